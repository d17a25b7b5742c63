"""predict: laws that hold for every model, whatever kind of dropout it has and wherever its inputs lie."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.mc_models import MODELS, close, flags, inputs, made
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dropkit import mc
from dropkit.mc.predict import predict
from dropkit.mc.virtual_tensors import DeferredLayer

COUNT, SAMPLES = 70, 6
X = inputs(COUNT)


def run(model: nn.Module | str, x: Any = X, samples: int = SAMPLES, **settings: Any) -> Any:
    model = made(model) if isinstance(model, str) else model
    return predict(model, x, samples, **{"masks": "input", "seed": 5, "keep_samples": True, **settings})


@pytest.mark.parametrize("plan", ["iid", "stratified"])
@pytest.mark.parametrize("masks", ["input", "chunk"])
@pytest.mark.parametrize("name", MODELS)
def test_batch_size_does_not_change_the_result(name: str, masks: str, plan: str) -> None:
    """The mask of an input is a function of the seed, the site, the sample and the input."""
    whole = run(name, masks=masks, plan=plan, chunk=40, batch_size=COUNT)

    parts = run(name, masks=masks, plan=plan, chunk=40, batch_size=13)

    assert close(whole.samples, parts.samples)
    assert whole.samples.var(0).amax() > 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_order_does_not_change_the_result(name: str) -> None:
    """With the number of each input given, shuffled inputs give shuffled results."""
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))

    shuffled = run(name, X[order], example_ids=order, batch_size=32)

    assert close(run(name).samples[:, order], shuffled.samples)


@pytest.mark.parametrize("plan", ["iid", "stratified"])
@pytest.mark.parametrize("masks", ["input", "chunk", "shared"])
@pytest.mark.parametrize("name", MODELS)
def test_the_prefix_cache_gives_the_same_bits(name: str, masks: str, plan: str) -> None:
    """A cached result is what every pass would compute."""
    settings: dict[str, Any] = {"masks": masks, "plan": plan, "thin": False}

    cached, plain = run(name, **settings), run(name, replay=False, **settings)

    assert torch.equal(cached.samples, plain.samples)
    assert cached.notes == plain.notes == ()


@pytest.mark.parametrize("masks", ["chunk", "shared"])
@pytest.mark.parametrize("name", MODELS)
def test_leaving_units_out_is_the_same_as_zeroing_them(name: str, masks: str) -> None:
    """Pruned networks give what masked ones do, up to rounding."""
    pruned = run(name, masks=masks)

    assert close(pruned.samples, run(name, masks=masks, thin=False).samples)
    assert pruned.notes == ()


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_units_are_left_out_of_matrix_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some matrix products have less than the full width on both sides."""
    shapes: list[tuple[int, int]] = []
    run_layer = DeferredLayer.run

    def recording(layer: Any, kept: Tensor | None) -> Tensor:
        out = run_layer(layer, kept)
        shapes.append((layer.source.shape[1] if layer.source_kept is not None else -1, out.shape[1]))
        return out

    monkeypatch.setattr(DeferredLayer, "run", recording)
    run(name, masks="shared", batch_size=COUNT)

    full = {"mlp": (64, 48), "cnn": (36, 20)}[name]
    assert any(0 < inner < full[0] and outer < full[1] for inner, outer in shapes)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_left_as_it_was(name: str) -> None:
    """Flags, classes, weights, statistics and torch's generator do not change; the model starts in training mode."""
    model = made(name).train()
    list(model.modules())[-1].eval()
    before, state = flags(model), copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()

    run(model)

    assert flags(model) == before
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("name", ["mlp", "cnn", "LSTM", "DropPath", "MultiheadAttention"])
def test_a_stratified_plan_keeps_every_unit_equally_often(name: str) -> None:
    """With T (1 - p) an integer at every site, the mean of a linear readout of the masks is exact."""
    means: list[Tensor] = []

    class Readout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(torch.ones_like(x)).flatten(1)

    for masks in ("input", "chunk"):
        r = run(Readout(), samples=20, task="regression", masks=masks, plan="stratified")
        means.append(r.mean)

    assert all(torch.equal(mean, torch.ones_like(mean)) for mean in means)
    assert run(Readout(), samples=20, task="regression").mean.std() > 0.1


def test_threads_do_not_change_the_result() -> None:
    """One thread and two give the same."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = run("mlp")
        torch.set_num_threads(2)
        double = run("mlp")
    finally:
        torch.set_num_threads(threads)

    assert close(single.samples, double.samples)


def test_equal_seeds_give_equal_results() -> None:
    """Other seeds give other results; without a seed, torch's generator decides."""
    model = made("mlp")

    assert torch.equal(run(model, seed=1).samples, run(model, seed=1).samples)
    assert not torch.equal(run(model, seed=1).samples, run(model, seed=2).samples)
    torch.manual_seed(0)
    first = run(model, seed=None).samples
    assert not torch.equal(first, run(model, seed=None).samples)
    torch.manual_seed(0)
    assert torch.equal(first, run(model, seed=None).samples)


def test_samples_and_sites_have_masks_of_their_own() -> None:
    """No two masks of a pass, and none of two passes, are equal."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.ones(len(x), 64)
            return torch.cat([nn.functional.dropout(x, 0.5, self.training) for _ in range(2)], 1)

    draws = run(Two(), samples=8, task="regression").samples
    masks = draws.unflatten(2, (2, 64)).transpose(1, 2).reshape(-1, 64)

    assert len(masks.unique(dim=0)) == len(masks)


def test_chunks_share_masks_and_neighbours_do_not() -> None:
    """`masks` says which inputs share a mask."""

    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(torch.ones(len(x), 64), 0.5, self.training)

    different = {
        masks: len(run(Mask(), task="regression", masks=masks, chunk=32).samples[0].unique(dim=0))
        for masks in ("input", "chunk", "shared")
    }

    assert different == {"input": COUNT, "chunk": 3, "shared": 1}


def test_chunks_share_masks_by_default_where_there_are_many() -> None:
    """Not for regression, nor for few inputs."""
    model = made("mlp")

    def shares(result: Any, masks: str, **settings: Any) -> bool:
        return torch.equal(result.samples, run(model, masks=masks, chunk=32, **settings).samples)

    assert shares(run(model, masks=None, chunk=32), "chunk")
    assert shares(predict(model, X[:30], SAMPLES, seed=5, keep_samples=True, chunk=32), "input", x=X[:30])
    regression = {"task": "regression"}
    assert shares(run(model, masks=None, chunk=32, **regression), "input", **regression)


class Named(nn.Module):
    """Takes its arguments by name, as models of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = made("mlp")

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.inner(x)
        return {"logits": logits if scale is None else logits * scale[:, None]}


LABELS = torch.arange(COUNT)


@pytest.mark.parametrize(
    "given",
    [
        lambda: X.numpy(),
        lambda: {"x": X},
        lambda: {"x": X.numpy()},
        lambda: (X,),
        lambda: DataLoader(TensorDataset(X, LABELS), batch_size=16),
        lambda: DataLoader([{"x": x} for x in X], batch_size=16),
        lambda: ((X[i : i + 9], LABELS[i : i + 9]) for i in range(0, COUNT, 9)),
        lambda: [X[:50], X[50:]],
        lambda: iter([{"x": X[:1]}, {"x": X[1:]}]),
    ],
    ids=["array", "mapping", "mapping of arrays", "tuple", "loader", "loader of dicts", "pairs", "list", "iterator"],
)
def test_inputs_may_come_in_any_form(given: Any) -> None:
    """Tensors, arrays, mappings, loaders and iterables of batches give the same."""
    assert close(run(Named(), given()).samples, run(Named()).samples)


def test_prepare_batch_makes_the_arguments_of_the_model() -> None:
    """The model gets several arguments, by position or by name."""
    scale = torch.linspace(1, 2, COUNT)
    expected = run(Named(), {"x": X, "scale": scale}).samples
    pairs = DataLoader(TensorDataset(scale, X), batch_size=16)

    assert close(run(Named(), pairs, prepare_batch=lambda pair: (pair[1], pair[0])).samples, expected)
    assert close(run(Named(), pairs, prepare_batch=lambda pair: {"x": pair[1], "scale": pair[0]}).samples, expected)


def test_arrays_keep_their_dtype() -> None:
    """A float64 model gets a float64 array."""
    r = run(made("mlp").double(), X.double().numpy())

    assert r.mean.dtype == torch.float32
    assert close(r.samples, run("mlp").samples)


def half_rounding(dtype: torch.dtype) -> float:
    """A bound for the probabilities of `mlp` in half precision, whose logits are of the size of 1.

    Inputs and weights are rounded, and so are the outputs of three layers, two dropouts and the bias: 8 times.
    """
    return 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masks", ["input", "chunk"])
def test_half_precision_gives_float32_results(dtype: torch.dtype, masks: str) -> None:
    """Sums are in float32 whatever the model's dtype."""
    r = run(made("mlp").to(dtype), X.to(dtype), masks=masks)

    assert {measure.dtype for measure in (r.mean, r.variance, r.entropy, *r.standard_error.values())} == {torch.float32}
    assert torch.allclose(r.mean, run("mlp", masks=masks).mean, rtol=0, atol=half_rounding(dtype))


def test_autocast_is_respected() -> None:
    """Under autocast the model's matrix products are in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        r = run("mlp")

    assert torch.allclose(r.mean, run("mlp").mean, rtol=0, atol=half_rounding(torch.bfloat16))


def test_one_logit_is_that_of_the_second_of_two_classes() -> None:
    """Binary classifiers have one output."""
    two = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(40, 2))
    binary = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(40, 1))
    with torch.no_grad():
        binary[2].weight.copy_(two[2].weight[1:] - two[2].weight[:1])
        binary[2].bias.copy_(two[2].bias[1:] - two[2].bias[:1])

    assert close(run(binary).samples, run(two).samples)
    assert close(run(nn.Sequential(binary, nn.Flatten(0))).samples, run(two).samples)
    assert close(run(nn.Sequential(binary, nn.Sigmoid()), outputs="probabilities").samples, run(two).samples)


def test_log_probabilities_are_logits_and_probabilities_must_be_named() -> None:
    """Softmax of log-probabilities is the probabilities; a second softmax of these would be a silent mistake."""
    model = made("mlp")
    expected = run(model).samples

    assert close(run(nn.Sequential(model, nn.LogSoftmax(1))).samples, expected)
    assert close(run(nn.Sequential(model, nn.Softmax(1)), outputs="probabilities").samples, expected)
    with pytest.raises(ValueError, match=r'outputs must be "probabilities" where the model returns them'):
        run(nn.Sequential(model, nn.Softmax(1)))


def test_classes_may_lie_in_any_dimension() -> None:
    """Classes lie in dimension 1 for images, and in the last for tokens."""
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout())
    last = run(model, class_dim=-1)

    assert last.mean.shape == (COUNT, 5, 3)
    assert last.entropy.shape == last.label.shape == (COUNT, 5)
    assert close(run(nn.Sequential(model, Transposed()), class_dim=1).mean, last.mean)


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT


def test_a_target_standard_error_stops_each_input_separately() -> None:
    """An input takes samples until the error of its mean is small enough, in tens, whatever the batch."""
    r = run("mlp", samples=400, target_standard_error=0.008, keep_samples=False, batch_size=COUNT)
    parts = run("mlp", samples=400, target_standard_error=0.008, keep_samples=False, batch_size=11)

    assert torch.equal(r.sample_counts, parts.sample_counts)
    assert close(r.mean, parts.mean)
    assert len(r.sample_counts.unique()) > 1
    assert (r.sample_counts % 10 == 0).all()
    assert (r.standard_error["mean"].amax(1)[r.sample_counts < 400] <= 0.008).all()
    whole = run("mlp", samples=400, keep_samples=False)
    error = (r.standard_error["mean"].square() + whole.standard_error["mean"].square()).sqrt()
    assert ((r.mean - whole.mean).abs() < 6 * error).all()


def test_a_target_standard_error_gives_the_estimates_of_the_samples_taken() -> None:
    """An input that took n samples has the estimates of its first n."""
    r = run("mlp", samples=400, target_standard_error=0.01)

    for i in (0, 1, 2):
        own = r.samples[: r.sample_counts[i], i]
        assert close(own.mean(0), r.mean[i])
        assert close(own.var(0), r.variance[i])


def test_memory_is_that_of_a_batch() -> None:
    """No tensor of the size of samples times inputs is kept."""
    model, x = nn.Sequential(nn.Dropout(), nn.Linear(40, 1000)), torch.randn(64, 40)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        predict(model, x, 40, masks="input", batch_size=8)
    remaining = sum(event.self_cpu_memory_usage for event in profile.key_averages())

    # All samples would be 64 x 1000 x 40 numbers; the result is 4 of (64, 1000), and its parts are alive beside it.
    assert remaining < 64 * 1000 * 40 * 4


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"samples": 0}, ValueError, "samples must be an integer of at least 1, got 0"),
        ({"samples": True}, ValueError, "samples must be an integer of at least 1, got True"),
        ({"samples": 2.5}, ValueError, "samples must be an integer of at least 1, got 2.5"),
        ({"task": "ranking"}, ValueError, 'task must be "classification", "multilabel" or "regression", got ranking'),
        ({"masks": "batch"}, ValueError, 'masks must be "input", "chunk" or "shared", got batch'),
        ({"plan": "sobol"}, ValueError, 'plan must be "iid" or "stratified", got sobol'),
        ({"target_standard_error": 0.0}, ValueError, "target_standard_error must be larger than 0, got 0.0"),
        ({"target_standard_error": 0.1, "plan": "stratified"}, ValueError, 'plan must be "iid" where'),
        ({"outputs": "odds"}, ValueError, 'outputs must be "logits" or "probabilities" with task='),
        ({"seed": 2**64}, ValueError, "seed must fit 64 bits"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
        ({"example_ids": torch.arange(3)}, ValueError, "example_ids must be as long as the inputs, got 3 numbers"),
        ({"example_ids": torch.arange(99)}, ValueError, "example_ids must be as long as the inputs, got 99"),
        ({"x": 3}, TypeError, "inputs must be a tensor, an array, .* got int"),
        ({"x": X[:0]}, ValueError, "inputs must be at least one, got none"),
        ({"x": ["a", "b"]}, TypeError, "inputs must hold a tensor with a batch dimension, got str"),
        ({"class_dim": 2}, ValueError, "class_dim must be a dimension of the output after the first, of 2, got 2"),
        ({"class_dim": 0}, ValueError, "class_dim must be a dimension of the output after the first, of 2, got 0"),
        ({"outputs": "probabilities"}, ValueError, 'outputs must be "logits" where they are no probabilities'),
        ({"model": nn.functional.relu}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"model": nn.Sequential(nn.Flatten(0), nn.Dropout())}, ValueError, "one row for each of 70 inputs"),
        ({"model": nn.Linear(8, 5)}, mc.NothingToSample, "no dropout is active"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    """Each error names the argument, what is wanted and what it got."""
    settings = {"model": "mlp", **settings}

    with pytest.raises(error, match=text):
        run(settings.pop("model"), **settings)


def test_the_result_has_a_short_repr() -> None:
    """It is one line."""
    assert repr(run("mlp")) == "ClassPrediction(70 inputs, mean (70, 5), 6 samples)"
    assert repr(run("mlp", task="regression")) == "ValuePrediction(70 inputs, mean (70, 5), 6 samples)"


def test_numpy_integers_are_tokens() -> None:
    """Arrays of integers stay integers."""
    model = nn.Sequential(nn.Embedding(10, 8), nn.Dropout(), nn.Flatten(), nn.Linear(40, 5))

    assert run(model, np.arange(50).reshape(10, 5) % 10).mean.shape == (10, 5)
