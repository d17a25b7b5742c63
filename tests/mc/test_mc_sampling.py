"""sampling: every dropout draws in evaluation mode, and nothing else of a model changes."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.mc_models import KINDS, Attention, DropPath, flags, inputs, made
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.overrides import TorchFunctionMode

from dropkit import catalog, dropout_functions, mc
from dropkit.mc.training_flag import detection
from dropkit.mc.training_flag.detection import gates_dropout

X = inputs(4)


def spread(model: nn.Module, x: Tensor = X, samples: int = 8) -> Tensor:
    return torch.stack([model(x) for _ in range(samples)]).var(0).amax()


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_dropout_draws_and_batch_norm_is_untouched(name: str, grad: bool) -> None:
    """All kinds: stochastic inside of the block alone, with no flag, statistic or class changed."""
    model = made(name)
    before, state = flags(model), copy.deepcopy(model.state_dict())

    with torch.set_grad_enabled(grad):
        with mc.sampling():
            inside = spread(model)
        outside = spread(model)

    assert inside > 0
    assert outside == 0
    assert flags(model) == before
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
def test_flags_stay_down_inside_of_the_block(name: str) -> None:
    """No training flag is changed, not even for a moment: what is kept in each module stays false."""
    model = made(name)

    with torch.no_grad(), mc.sampling():
        model(X)

        assert not any(vars(module)["training"] for module in model.modules())


def test_the_rate_is_the_one_that_was_asked_for() -> None:
    """Kept values are scaled, and as many are dropped as p says."""
    p, n = 0.3, 100_000

    with mc.sampling():
        y = nn.Dropout(p).eval()(torch.ones(n))

    dropped = (y == 0).float().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(y[y != 0].unique(), torch.tensor([1 / (1 - p)]))


def test_draws_come_from_torchs_generator() -> None:
    """Equal seeds give equal samples."""
    model = made("TransformerEncoderLayer")

    def sample() -> Tensor:
        torch.manual_seed(3)
        with mc.sampling():
            return model(X)

    assert torch.equal(sample(), sample())


@pytest.mark.parametrize("model", [nn.Linear(8, 8), nn.Dropout(0.0), nn.Sequential(), nn.LSTM(8, 8, 1, dropout=0.0)])
def test_nothing_to_sample_is_an_error(model: nn.Module) -> None:
    """A model without dropout, or with rates of 0, would give the same each time: that is said."""
    with pytest.raises(mc.NothingToSample, match=r"no dropout drew.*dropkit\.audit"), mc.sampling():
        model.eval()(X)


def test_draws_that_no_call_shows_count() -> None:
    """What changes torch's generator has drawn, seen or not."""

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction():
                return torch.dropout(x, 0.5, True)

    with mc.sampling():
        Hidden().eval()(X)


def test_an_exception_leaves_no_trace() -> None:
    """What a model raises goes on, and flags, classes and the mode are as before."""
    path = DropPath()
    model = nn.Sequential(path, nn.Linear(3, 3)).eval()
    before = flags(model)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), mc.sampling():
        model(X)

    assert flags(model) == before
    assert path(X) is X


def test_other_threads_see_nothing() -> None:
    """While one thread samples, another gets what the model gives in evaluation mode."""
    model = made("DropPath")
    expected = model(X)
    inside, done = threading.Event(), threading.Event()
    seen: list[Tensor] = []

    def other() -> None:
        inside.wait(30)
        seen.append(model(X))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with mc.sampling():
        model(X)
        inside.set()
        assert done.wait(30)
        assert spread(model) > 0
    thread.join()

    assert torch.equal(seen[0], expected)


def test_threads_may_sample_from_one_model_at_once() -> None:
    """The first to end takes nothing from the other, and the last leaves the model as it was."""
    model = made("DropPath")
    before = flags(model)
    first_in, first_out = threading.Event(), threading.Event()
    later: list[Tensor] = []

    def longer() -> None:
        with torch.no_grad(), mc.sampling():
            model(X)
            first_in.set()
            assert first_out.wait(30)
            later.append(spread(model))

    thread = threading.Thread(target=longer)
    thread.start()
    assert first_in.wait(30)
    with torch.no_grad(), mc.sampling():
        model(X)
    first_out.set()
    thread.join()

    assert later[0] > 0
    assert flags(model) == before


def test_blocks_nest() -> None:
    """The end of an inner block does not end the outer one."""
    model = made("scaled_dot_product_attention")

    with torch.no_grad(), mc.sampling():
        with mc.sampling():
            model(X)
        assert spread(model) > 0
    assert spread(model) == 0


@pytest.mark.parametrize("name", ["Dropout", "DropPath", "MultiheadAttention"])
def test_copies_made_inside_are_ordinary(name: str) -> None:
    """A copy, and what is saved, is of the module's own classes, and keeps its flags."""
    model = made(name)

    with torch.no_grad(), mc.sampling():
        model(X)
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]

    assert all(flags(one) == flags(model) for one in copies)
    assert torch.equal(copies[0](X), model(X))


def test_a_mode_of_the_users_own_still_sees_the_calls() -> None:
    """Modes stack: one outside of the block sees the dropout that is now on."""
    seen: list[bool] = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if getattr(func, "__name__", "") == "dropout":
                seen.append((kwargs or {})["training"])
            return func(*args, **(kwargs or {}))

    with Watching(), mc.sampling():
        nn.Dropout().eval()(X)

    assert seen == [True]


def test_a_compiled_model_runs_uncompiled() -> None:
    """Compiled code holds no dropout; inside of the block it is left aside, and used again afterwards."""
    model = made("Dropout")
    compiled = torch.compile(model, backend="eager")
    expected = compiled(X)

    with torch.no_grad(), mc.sampling():
        assert spread(compiled) > 0

    assert torch.equal(compiled(X), expected)


def test_blocks_that_overlap_in_threads_leave_the_compiler_as_it_was() -> None:
    """Whichever of two blocks ends first: what is compiled afterwards is compiled."""
    model = made("Dropout")
    inside, go_on = threading.Event(), threading.Event()

    def longer() -> None:
        with mc.sampling():
            model(X)
            inside.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=longer)
    with mc.sampling():
        thread.start()
        assert inside.wait(30)
        model(X)
    go_on.set()
    thread.join()
    graphs = CompileCounter()
    torch.compile(lambda x: x + 1, backend=graphs)(X)

    assert graphs.frame_count == 1


def test_an_exported_model_draws() -> None:
    """Where the graph still calls dropout, in evaluation mode, it is turned on."""
    exported = torch.export.export(made("Dropout"), (X,), dynamic_shapes=None).module(check_guards=False)

    with torch.no_grad(), mc.sampling():
        assert spread(exported) > 0


def test_a_scripted_model_is_refused() -> None:
    """TorchScript shows no calls: where it drops, that is an error with a way out."""
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.Dropout()).eval())

    with (
        pytest.raises(TypeError, match=r"must not be scripted where it drops, got .*sample from the module"),
        mc.sampling(),
    ):
        scripted(X)


def test_a_scripted_part_without_dropout_is_fine() -> None:
    """Only scripted dropout is in the way."""
    model = nn.Sequential(torch.jit.script(nn.Linear(8, 8)), nn.Dropout()).eval()

    with torch.no_grad(), mc.sampling():
        assert spread(model) > 0


class Auxiliary(nn.Module):
    """The flag decides what is returned, and has nothing to do with dropout."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = nn.functional.dropout(x, 0.5, training=self.training)
        if self.training:
            return y, x
        return y


class Statistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return x


class EarlyReturn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.rand_like(x) < 0.5
        return x * mask


class Named(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        training = self.training
        return self.dropout_by_hand(x, training)

    def dropout_by_hand(self, x: Tensor, on: bool) -> Tensor:
        return x * torch.empty_like(x).bernoulli_(0.5) if on else x


def dropout(x: Tensor, training: bool) -> Tensor:
    """Called as torch's, and none of it."""
    return x * torch.bernoulli(torch.full_like(x, 0.5)) if training else x


class OwnFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.training)


class ImportsInside(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.dropout(x, 0.5, self.training)


class GaussianDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.randn_like(x)) if self.training else x


class Sampled(nn.Module):
    """As in an autoencoder: noise that is no dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class AsksByName(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if getattr(self, "training", False) else x


class OwnNorm(nn.BatchNorm1d):
    """Keeps statistics, and has a dropout rate as well."""

    drop = 0.1

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 - self.drop if self.training else 1)


@pytest.mark.parametrize(
    ("kind", "gates"),
    [
        (Attention, True), (DropPath, True), (EarlyReturn, True), (Named, True), (Auxiliary, False),
        (OwnFunction, True), (ImportsInside, False), (GaussianDropout, True), (Sampled, False),
        (Statistics, False), (OwnNorm, False), (nn.Dropout, False), (nn.LSTM, False), (nn.RReLU, False),
        (nn.MultiheadAttention, False), (nn.TransformerEncoderLayer, False), (AsksByName, True),
    ],
)  # fmt: skip
def test_only_flags_that_gate_dropout_are_raised(kind: type[nn.Module], gates: bool) -> None:
    """Not those of statistics or outputs, nor where the flag is an argument that can be rewritten."""
    assert gates_dropout(kind) is gates


class ByOneFlag(nn.Module):
    """Statistics and a mask made by hand, both by one flag, and by place or by name."""

    def __init__(self, norm: Callable[..., Tensor], named: bool) -> None:
        super().__init__()
        self.norm, self.flag = norm, {F.batch_norm: "training", F.instance_norm: "use_input_stats"}[norm]
        self.named, self.inner = named, nn.BatchNorm1d(8)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.named:
            x = self.norm(x, running_mean=self.mean, running_var=self.var, **{self.flag: self.training})
        else:
            x = self.norm(x, self.mean, self.var, None, None, self.training)
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("norm", [F.batch_norm, F.instance_norm])
def test_statistics_stay_where_the_flag_is_up_for_dropout(norm: Callable[..., Tensor], named: bool) -> None:
    """The function that keeps them is told that it is evaluation; a layer that the user trains is not."""
    model, x = ByOneFlag(norm, named).eval(), torch.randn(6, 8, 5)
    expected = model(x)

    with mc.sampling():
        y = model(x)
    assert (y == 0).any()
    torch.testing.assert_close(y[y != 0], expected[y != 0])
    assert not model.mean.any()
    assert not model.inner.running_mean.any()

    model.inner.train()
    with mc.sampling():
        model(x)
    assert not model.mean.any()
    assert model.inner.running_mean.any()

    model.inner.eval()
    assert mc.predict(model, x, 5, "regression", seed=0).variance.any()
    assert not model.mean.any()


def test_a_register_of_classes_is_not_told_of_the_class_that_is_lent() -> None:
    """Nor is one that wants arguments left without."""
    names: list[str] = []

    class Registered(nn.Module):
        def __init_subclass__(cls, name: str) -> None:
            names.append(name)

    class Masked(Registered, name="masked"):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x

    model = Masked().eval()
    with mc.sampling():
        assert spread(model) > 0
    assert names == ["masked"]
    assert type(model) is Masked


def test_code_without_source_is_read_by_its_names() -> None:
    """Classes made by `exec` have no source: their compiled code still says what they read."""
    names: dict[str, type[nn.Module]] = {}
    lines = "class {}(nn.Module):\n    def forward(self, x):\n        return {} if self.training else x\n"
    exec(lines.format("Drops", "x * torch.bernoulli(x)") + lines.format("Adds", "x + 1"), globals(), names)

    assert gates_dropout(names["Drops"])
    assert not gates_dropout(names["Adds"])


def test_what_was_imported_before_does_not_matter(torchvision) -> None:  # type: ignore[no-untyped-def]
    """Functions of torchvision are Python that no mode sees, known to the catalog or not."""
    for known in (gates_dropout, detection._taking_flag, dropout_functions.dropout_functions):
        known.cache_clear()
    assert gates_dropout(torchvision.ops.StochasticDepth)
    assert gates_dropout(torchvision.ops.DropBlock2d)


def test_timm_and_torchvision_draw(torchvision) -> None:  # type: ignore[no-untyped-def]
    """Stochastic depth and blocks of other libraries."""
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(8, 4, 6, 6)

    for layer in (layers.DropPath(0.5), torchvision.ops.StochasticDepth(0.5, "row")):
        with torch.no_grad(), mc.sampling():
            assert spread(layer.eval(), x) > 0
        assert spread(layer, x) == 0


@pytest.mark.parametrize("name", sorted({*catalog.FUNCTIONALS, *catalog.DROPOUT_MODULES, *catalog.DROPOUT_PATHS}))
def test_every_dropout_of_the_catalog_is_known_by_its_name(name: str) -> None:
    """A flag that gates one of them gates dropout."""
    assert detection._MENTIONS_DROPOUT.search(name.rpartition(".")[2])
