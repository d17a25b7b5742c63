"""propagate: moments against enumeration and integration, results, and what has no rule."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import equal_but_for_rounding
from torch import Tensor, nn

import dropkit
from dropkit.kernels.params import SATURATION
from dropkit.mc import NoMomentRule, NothingToSample, ValuePrediction, predict, propagate
from dropkit.mc.moments.gaussian import Gaussian, maximum
from dropkit.mc.moments.moments import RULES, Moments
from dropkit.mc.moments.rules import smooth
from dropkit.mc.options import PassOptions, Settings

P = 0.3
X = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1)).double()


def with_random_weights(model: nn.Module) -> nn.Module:
    """The model with weights, and statistics of batch norm, that do not depend on the test."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
            tensor.copy_(tensor.abs() if name.endswith("var") else tensor)
    return model.eval()


class Residual(nn.Module):
    """What was not dropped is added to what was."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.drop, self.branch = drop, nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return (2 - self.branch(self.drop(x)) / 3) * x.sum(1, True) - x


def behind(drop: nn.Module, last: nn.Module) -> nn.Module:
    return with_random_weights(nn.Sequential(drop, last))


AFFINE = {
    "linear": lambda drop: behind(drop, nn.Linear(6, 3)),
    "two linear": lambda drop: behind(drop, nn.Sequential(nn.Flatten(), nn.Linear(6, 1))),
    "convolution": lambda drop: behind(drop, nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 3, 2, padding=1))),
    "batch norm": lambda drop: behind(drop, nn.BatchNorm1d(6)),
    "pooling": lambda drop: behind(drop, nn.AdaptiveAvgPool1d(4)),
    "residual": lambda drop: with_random_weights(Residual(drop)),
}
SCALE = ((SATURATION**2 * P + 1) * (1 - P)) ** -0.5
# With what kept elements are multiplied by, what is added to them, and what dropped ones become.
DROPOUTS: dict[str, tuple[Callable[[], nn.Module], tuple[float, float, float]]] = {
    "dropout": (lambda: nn.Dropout(P), (1 / (1 - P), 0.0, 0.0)),
    "dropkit": (lambda: dropkit.nn.Dropout(P), (1 / (1 - P), 0.0, 0.0)),
    "alpha": (lambda: nn.AlphaDropout(P), (SCALE, SCALE * SATURATION * P, SCALE * SATURATION * (P - 1))),
}


class Masked(nn.Module):
    """Dropout with a mask that is set."""

    def __init__(self, scale: float, shift: float, fill: float) -> None:
        super().__init__()
        self.scale, self.shift, self.fill = scale, shift, fill
        self.kept = torch.ones(6, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.kept, x * self.scale + self.shift, self.fill)


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("affine", AFFINE)
@torch.no_grad()
def test_one_dropout_before_an_affine_layer_is_exact(affine: str, dropout: str) -> None:
    """Mean and variance are those of an enumeration of all masks."""
    make, values = DROPOUTS[dropout]
    masked = Masked(*values)
    every = AFFINE[affine](masked).double()
    outputs: list[Tensor] = []
    weights: list[float] = []
    for kept in itertools.product((False, True), repeat=6):
        masked.kept = torch.tensor(kept)
        outputs.append(every(X.double()))
        weights.append((1 - P) ** sum(kept) * P ** (6 - sum(kept)))
    weight = torch.tensor(weights, dtype=torch.float64)
    mean = torch.einsum("t,t...->...", weight, torch.stack(outputs))
    variance = torch.einsum("t,t...->...", weight, (torch.stack(outputs) - mean).square())

    r = propagate(AFFINE[affine](make()).double(), X.double(), task="regression")

    # Both were rounded to float32 once.
    assert equal_but_for_rounding(r.mean, mean.float(), 2)
    assert equal_but_for_rounding(r.variance, variance.float(), 2)
    assert not any(error.any() for error in r.standard_error.values())


def test_noise_that_is_multiplied() -> None:
    """Gaussian dropout has the variance p / (1 - p) times the square of its input."""
    r = propagate(dropkit.nn.GaussianDropout(P), X, task="regression")

    assert torch.equal(r.mean, X)
    assert equal_but_for_rounding(r.variance, X.square() * P / (1 - P), 4)


# Rectifiers and limits are exact.
PIECEWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "prelu": lambda x: F.prelu(x, torch.tensor([-0.5], dtype=x.dtype)),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -2, 0.5),
    "clamp above": lambda x: x.clamp(max=1),
    "clamp below": lambda x: torch.clamp(x, -1),
    "hardsigmoid": F.hardsigmoid,
    "scaled": lambda x: 1 - 2 * x / 3,
}
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        torch.sigmoid, torch.tanh, F.gelu, F.silu, F.elu, F.selu, F.celu, F.mish, F.softplus, F.hardswish
    )
}  # fmt: skip


@pytest.mark.parametrize("name", [*PIECEWISE, *SMOOTH])
def test_elementwise_functions_of_normal_numbers(name: str) -> None:
    """Mean and standard deviation are those of a numerical integration, or within what the documentation says."""
    function: Any = {**PIECEWISE, **SMOOTH}[name]
    mean, std = torch.meshgrid(torch.linspace(-8, 8, 33), torch.tensor([1e-3, 0.1, 1, 3]), indexing="ij")
    mean, std = mean.double(), std.double()
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2) / torch.exp(-z.square() / 2).sum()
    values = function(mean[..., None] + std[..., None] * z)
    expected = (values * weight).sum(-1)
    spread = ((values - expected[..., None]).square() * weight).sum(-1).sqrt()
    # The integration errs by about the square of its step, 1e-3.
    largest = torch.full_like(std, 1e-6) if name in PIECEWISE else torch.where(std > 1, 0.04, 0.008)

    moments = function(Moments.of((mean, std.square()), frozenset({0})))

    assert ((moments.expectation - expected).abs() < largest).all()
    assert ((moments.variance.sqrt() - spread).abs() < largest).all()


def test_the_larger_of_two_normal_numbers() -> None:
    """Mean and variance are those of a numerical integration over both."""
    z = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    weight = density[:, None] * density / density.sum() ** 2
    for mean, std, other in itertools.product((-4.0, 0.0, 0.3), (0.0, 0.5, 2.0), (0.0, 1.0)):
        values = torch.maximum(mean + std * z[:, None], (other * z).expand(len(z), -1))
        expected = (values * weight).sum()

        result = maximum(*(Gaussian(*map(torch.tensor, pair)) for pair in ((mean, std**2), (0.0, other**2))))

        assert abs(result.mean - expected) < 1e-4
        assert abs(result.variance - ((values - expected).square() * weight).sum()) < 1e-3


# Functions of images, (2, 4, 6, 6), that are linear in them.
LINEAR: dict[str, Callable[[Any], Any]] = {
    "conv2d": lambda x: F.conv2d(x, IMAGES[:, :2, :3, :3], stride=2, padding=1, groups=2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, IMAGES[:, :2, :3, :3].repeat(2, 1, 1, 1), None, 2),
    "circular convolution": nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular", bias=False).double(),
    "conv3d": lambda x: F.conv3d(x[:, None], IMAGES[:1, :2, :2, :2][None].expand(3, 1, -1, -1, -1)),
    "linear": lambda x: F.linear(x, IMAGES[0, 0]),
    "matmul": lambda x: x @ IMAGES[0, 0, :, :2],
    "matmul from the left": lambda x: IMAGES[0, 0, :2] @ x,
    "batch_norm": lambda x: F.batch_norm(x, IMAGES[0, 0, 0, :4] * 0, IMAGES[0, 0, 0, :4].abs(), IMAGES[0, 0, 1, :4]),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (3, 2), 2, padding=(1, 0)),
    "avg_pool2d with a divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "avg_pool1d": lambda x: F.avg_pool1d(x.flatten(1, 2), 3),
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (4, 1)),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 5),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum(1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "reflected": lambda x: F.pad(x, (1, 2, 0, 1), "reflect"),
    "upsampling": lambda x: F.interpolate(x, scale_factor=2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "joining": lambda x: torch.cat([x, IMAGES * 0, -x], 1),
    "stacking": lambda x: torch.stack([x, x], 1),
    "moving": lambda x: x.permute(0, 2, 3, 1).reshape(2, 3, -1)[:, 1:].transpose(1, 2).unsqueeze(1).squeeze(),
    "chunks": lambda x: torch.cat([part * 2 for part in x.chunk(3, 2)], 1),
    "scaling": lambda x: -(2 * x / 3) * IMAGES[:, :1],
}


@pytest.mark.parametrize("name", LINEAR)
@torch.no_grad()
def test_linear_functions_of_independent_numbers(name: str) -> None:
    """The variance is the sum of the input's variances times squared derivatives."""
    function, variance = LINEAR[name], IMAGES.square() + 0.1
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: function(x).flatten(), IMAGES)

    moments: Any = function(Moments.of((IMAGES.clone(), variance), frozenset({0})))

    expected = jacobian.flatten(1).square() @ variance.flatten()
    assert torch.allclose(moments.expectation, function(IMAGES), rtol=1e-12, atol=1e-12)
    assert torch.allclose(moments.variance.flatten(), expected, rtol=1e-12, atol=1e-12)


MAXIMA: dict[str, Callable[[Any], Any]] = {
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(1, 2), 2),
    "max_pool2d": lambda x: F.max_pool2d(x, (3, 2), (2, 1), padding=1),
    "max_pool3d": lambda x: F.max_pool3d(x, 2, 1),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (1, None)),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima_of_numbers_that_are_certain(name: str) -> None:
    """Every window is found: without variance they are torch's, and one random number far above has its variance."""
    function = MAXIMA[name]
    certain: Any = function(Moments.of((IMAGES, torch.zeros_like(IMAGES)), frozenset({0})))
    is_first = torch.arange(IMAGES.numel()).view(IMAGES.shape) == 0
    above: Any = function(Moments.of((IMAGES + 50 * is_first, 4.0 * is_first), frozenset({0})))

    assert torch.equal(certain.expectation, function(IMAGES))
    assert not certain.variance.any()
    reached = function(IMAGES + 50 * is_first) - function(IMAGES) > 10
    assert torch.equal(above.variance > 0, reached)
    assert torch.allclose(above.variance[reached], torch.tensor(4.0, dtype=torch.float64))


def test_pooling_computes_maxima_in_pairs() -> None:
    """The maximum of two elements is exact; of more, of standard normal numbers, it is within 3 %."""
    zeros = torch.zeros(1, 1, 16, dtype=torch.float64)
    numbers = torch.randn(100_000, 16, generator=torch.Generator().manual_seed(0))

    for size in (2, 4, 16):
        result: Any = F.max_pool1d(Moments.of((zeros, zeros + 1), frozenset({0})), size)  # type: ignore[arg-type]

        largest = numbers[:, :size].amax(1)
        assert abs(result.expectation[0, 0, 0] / largest.mean() - 1) < 0.03


class Branches(nn.Module):
    """Two branches of a dropout each, or of one for both, and their sum."""

    def __init__(self, is_common: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Dropout(P), nn.Dropout(P)
        self.is_common = is_common

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        return left + 2 * (left if self.is_common else self.right(x))


def test_sums_of_independent_and_of_dependent_numbers() -> None:
    """Variances of independent terms add up; terms that depend on the same dropout are refused."""
    r = propagate(Branches(False), X, task="regression")

    assert equal_but_for_rounding(r.variance, 5 * X.square() * P / (1 - P), 8)
    with pytest.raises(NoMomentRule, match="got add of two tensors that depend on the same dropout in Branches;"):
        propagate(Branches(True), X, task="regression")


@pytest.mark.parametrize("inplace", [False, True])
def test_writing_in_place_changes_nothing(inplace: bool) -> None:
    """Dropout and activations in place return what they return otherwise."""

    def model(inplace: bool) -> nn.Module:
        layers = [nn.Linear(6, 8), nn.Dropout(P, inplace), nn.Flatten(), nn.LeakyReLU(0.1, inplace)]
        return with_random_weights(nn.Sequential(*layers, nn.Dropout(P, inplace), nn.Linear(8, 3)))

    before = X.clone()
    r = propagate(model(inplace), X, task="regression")

    expected = propagate(model(False), X, task="regression")
    assert torch.equal(r.variance, expected.variance)
    assert torch.equal(X, before)


def network(last: int = 3) -> nn.Module:
    layers = [nn.Linear(6, 32), nn.LayerNorm(32), nn.ReLU(), nn.Dropout(P)]
    return with_random_weights(nn.Sequential(*layers, nn.Linear(32, 32), nn.ReLU(), nn.Dropout(P), nn.Linear(32, last)))


def test_two_layers_agree_with_samples() -> None:
    """Means differ from those of many samples by a fraction of the spread, and spreads by a third."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
    sampled = predict(network(), x, 500, task="regression", seed=0, plain=False)

    r = propagate(network(), x, task="regression")

    assert ((r.mean - sampled.mean) / sampled.std).abs().mean() < 0.1
    assert (r.std / sampled.std).log().abs().mean() < 0.3


def test_probabilities_are_means_over_normal_logits() -> None:
    """Each draw is in a stratum of its own, so that one logit's probability errs by less than 1 / draws."""
    model, z = network(1), torch.linspace(-9, 9, 20001)
    weight = torch.exp(-z.square() / 2) / torch.exp(-z.square() / 2).sum()
    logit = propagate(model, X, task="regression")

    r = propagate(model, X, draws=200)

    p = torch.sigmoid(logit.mean + logit.std * z)
    assert ((r.mean[:, 1] - (p * weight).sum(1)).abs() < 1 / 200).all()
    assert r.num_samples == 200
    assert {"entropy", "mutual_information", "variance"} <= r.measures.keys()
    assert any("moment propagation" in note for note in r.notes)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_batches_and_draws(task: Any) -> None:
    """Results do not depend on how inputs are batched; kept draws are those of the measures."""
    model, before = network(), torch.get_rng_state()
    r: Any = propagate(model, X, 400, task, seed=0, keep_samples=True)

    in_batches: Any = propagate(model, X, 400, task, seed=0, batch_size=3)

    assert torch.equal(torch.get_rng_state(), before)
    for name, measure in r.measures.items():
        assert torch.allclose(in_batches.measures[name], measure, atol=1e-6)
    assert r.samples.shape == (400, 7, 3)
    assert ((r.samples.mean(0) - r.mean).abs() < 0.05 * (r.std + 1e-3)).all()
    assert torch.allclose(in_batches.plain, r.plain, atol=1e-6)


def test_pixels_and_heads_and_noise_that_the_model_predicts() -> None:
    """Classes in any dimension, several heads, and an expected log-normal variance."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.pixels, self.value = nn.Dropout(P), nn.Conv2d(4, 3, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.drop(x)
            return {"pixels": self.pixels(h), "value": self.value(h.mean((2, 3)))}

    task, outputs = {"pixels": "classification", "value": "regression"}, {"value": "mean_log_variance"}
    model, x = Heads(), IMAGES.float()

    r: Any = propagate(model, x, task=task, outputs=outputs, class_dim={"pixels": 1})

    assert r["pixels"].entropy.shape == (2, 6, 6)
    value = r["value"]
    both = propagate(model, x, task={"value": "regression"})["value"]
    expected = (both.mean[:, 1] + both.variance[:, 1] / 2).exp()
    assert isinstance(value, ValuePrediction)
    assert torch.allclose(value.aleatoric_variance[:, 0], expected)
    assert torch.equal(value.total_variance, value.variance + value.aleatoric_variance)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "layer norm": (nn.Sequential(nn.Dropout(), nn.Sequential(nn.LayerNorm(6))), r"layer_norm in '1.0' \(LayerNorm\)"),
    "softmax": (nn.Sequential(nn.Dropout(), nn.Softmax(1)), "softmax in '1' "),
    "a mask of its own": (
        nn.Sequential(dropkit.nn.ConcreteDropout(nn.Identity())),
        "concrete_dropout",
    ),
    "dilation": (nn.Sequential(nn.Dropout(), nn.MaxPool1d(2, dilation=2)), "max_pool1d with dilation"),
    "statistics": (nn.Sequential(nn.Dropout(), nn.BatchNorm1d(6, track_running_stats=False)), "batch_norm with the"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_with_its_place(name: str) -> None:
    """The error names the call and the innermost module, and what to use instead."""
    model, got = REFUSED[name]

    with pytest.raises(NoMomentRule, match=f"^model must have a rule .* got {got}.*; predict samples from any model$"):
        propagate(model, X, task="regression")


def test_code_that_bypasses_the_rules_is_refused() -> None:
    """Nothing reads the means as if they were numbers."""

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.from_numpy(F.dropout(x, P, self.training).numpy())

    for model in (Reads(), nn.Sequential(nn.Dropout(), nn.RNN(6, 6))):
        with pytest.raises(NoMomentRule):
            propagate(model, X, task="regression", output=lambda y: y[0] if isinstance(y, tuple) else y)


def test_a_rule_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An elementwise function without steps needs nothing but its name."""

    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x)

    model = nn.Sequential(nn.Dropout(P), Sine())
    with pytest.raises(NoMomentRule, match=r"got sin in '1' \(Sine\)"):
        propagate(model, X, task="regression")

    monkeypatch.setitem(RULES, torch.sin, smooth)

    assert (propagate(model, X, task="regression").variance > 0).all()


def test_no_dropout_and_unknown_arguments() -> None:
    """As with predict."""
    with pytest.raises(NothingToSample):
        propagate(nn.Linear(6, 3), X)
    with pytest.raises(TypeError, match="propagate\\(\\) got an unexpected keyword argument 'masks'"):
        propagate(network(), X, masks="input")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="draws must be"):
        propagate(network(), X, 0)
    with pytest.raises(ValueError, match='outputs must be "logits"'):
        propagate(network(), X, outputs="probabilities")
    assert PassOptions.__annotations__.keys() < set(Settings.__slots__)


def test_shared_mask_elements_are_noted() -> None:
    """Dropout of channels has exact means and variances of its own, and a note about sums."""
    r = propagate(nn.Sequential(nn.Dropout2d(P)), IMAGES.float(), task="regression")

    assert equal_but_for_rounding(r.variance, IMAGES.float().square() * P / (1 - P), 4)
    assert any("Dropout2d" in note for note in r.notes)
    assert not any("Dropout2d" in note for note in propagate(nn.Dropout(P), X, task="regression").notes)
