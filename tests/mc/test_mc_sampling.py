"""sampling: every dropout is active in evaluation mode, and nothing else of a model changes."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from helpers.mc_models import KINDS, DropPath, flags, inputs, made, spread
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.overrides import TorchFunctionMode

from dropkit import mc

X = inputs(4)


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_dropout_is_active_and_batch_norm_is_unchanged(name: str, grad: bool) -> None:
    """Models are stochastic inside the block alone, and no flag, statistic or class changes."""
    model = made(name)
    before, state = flags(model), copy.deepcopy(model.state_dict())

    with torch.set_grad_enabled(grad):
        with mc.sampling():
            inside = spread(model, X)
        outside = spread(model, X)

    assert inside > 0
    assert outside == 0
    assert flags(model) == before
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
def test_flags_are_false_inside_the_block(name: str) -> None:
    """No training flag is changed, not even for a moment."""
    model = made(name)

    with torch.no_grad(), mc.sampling():
        model(X)

        assert not any(vars(module)["training"] for module in model.modules())


def test_a_fraction_p_is_dropped() -> None:
    """Kept values are scaled by 1 / (1 - p)."""
    p, n = 0.3, 100_000

    with mc.sampling():
        y = nn.Dropout(p).eval()(torch.ones(n))

    dropped = (y == 0).float().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(y[y != 0].unique(), torch.tensor([1 / (1 - p)]))


def test_random_numbers_come_from_torchs_generator() -> None:
    """Equal seeds give equal samples."""
    model = made("TransformerEncoderLayer")

    def sample() -> Tensor:
        torch.manual_seed(3)
        with mc.sampling():
            return model(X)

    assert torch.equal(sample(), sample())


@pytest.mark.parametrize("model", [nn.Linear(8, 8), nn.Dropout(0.0), nn.Sequential(), nn.LSTM(8, 8, 1, dropout=0.0)])
def test_nothing_to_sample_is_an_error(model: nn.Module) -> None:
    """A model without dropout, or with rates of 0, would give the same output each time."""
    with pytest.raises(mc.NothingToSample, match=r"no dropout is active.*dropkit\.audit"), mc.sampling():
        model.eval()(X)


def test_hidden_random_numbers_count() -> None:
    """A model that changes torch's generator has drawn, whether the mode has seen it or not."""

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction():
                return torch.dropout(x, 0.5, True)

    with mc.sampling():
        Hidden().eval()(X)


def test_an_exception_leaves_no_trace() -> None:
    """An exception of the model is raised, and flags, classes and the mode are as before."""
    path = DropPath()
    model = nn.Sequential(path, nn.Linear(3, 3)).eval()
    before = flags(model)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), mc.sampling():
        model(X)

    assert flags(model) == before
    assert path(X) is X


def test_other_threads_are_not_affected() -> None:
    """While one thread samples, the model is in evaluation mode for another."""
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
        assert spread(model, X) > 0
    thread.join()

    assert torch.equal(seen[0], expected)


def test_threads_may_sample_from_one_model_at_once() -> None:
    """The first block to end does not end the other, and the last leaves the model as it was."""
    model = made("DropPath")
    before = flags(model)
    first_in, first_out = threading.Event(), threading.Event()
    later: list[Tensor] = []

    def longer() -> None:
        with torch.no_grad(), mc.sampling():
            model(X)
            first_in.set()
            assert first_out.wait(30)
            later.append(spread(model, X))

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
        assert spread(model, X) > 0
    assert spread(model, X) == 0


@pytest.mark.parametrize("name", ["Dropout", "DropPath", "MultiheadAttention"])
def test_copies_made_inside_are_ordinary(name: str) -> None:
    """A copy, and what is pickled, has the module's own classes and flags."""
    model = made(name)

    with torch.no_grad(), mc.sampling():
        model(X)
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]

    assert all(flags(module) == flags(model) for module in copies)
    assert torch.equal(copies[0](X), model(X))


def test_a_mode_of_the_users_own_still_sees_the_calls() -> None:
    """A mode around the block sees the dropout with its flag on."""
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
    """Compiled code of evaluation mode has no dropout: it is not used inside the block, and used again afterwards."""
    model = made("Dropout")
    compiled = torch.compile(model, backend="eager")
    expected = compiled(X)

    with torch.no_grad(), mc.sampling():
        assert spread(compiled, X) > 0

    assert torch.equal(compiled(X), expected)


def test_blocks_that_overlap_in_threads_leave_the_compiler_as_it_was() -> None:
    """Whichever of two blocks ends first, torch.compile works afterwards."""
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


def test_the_dropout_of_an_exported_model_is_active() -> None:
    """The graph still calls dropout in evaluation mode."""
    exported = torch.export.export(made("Dropout"), (X,), dynamic_shapes=None).module(check_guards=False)

    with torch.no_grad(), mc.sampling():
        assert spread(exported, X) > 0


def test_a_scripted_model_is_refused() -> None:
    """A mode sees no calls of TorchScript: where it drops, the error says what to do."""
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.Dropout()).eval())

    with (
        pytest.raises(TypeError, match=r"must not be scripted where it has dropout, got .*use the module"),
        mc.sampling(),
    ):
        scripted(X)


def test_a_scripted_part_without_dropout_is_fine() -> None:
    """Scripted modules without dropout are accepted."""
    model = nn.Sequential(torch.jit.script(nn.Linear(8, 8)), nn.Dropout()).eval()

    with torch.no_grad(), mc.sampling():
        assert spread(model, X) > 0


def test_dropout_of_timm_and_torchvision_is_active(torchvision) -> None:  # type: ignore[no-untyped-def]
    """Stochastic depth of other libraries."""
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(8, 4, 6, 6)

    for layer in (layers.DropPath(0.5), torchvision.ops.StochasticDepth(0.5, "row")):
        with torch.no_grad(), mc.sampling():
            assert spread(layer.eval(), x) > 0
        assert spread(layer, x) == 0
