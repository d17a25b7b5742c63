"""The prefix cache and pruned networks give the result of the plain loop, whatever a model does with its tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.mc_models import close, inputs, made
from helpers.mc_trap_models import (
    TRAPS,
    Base,
    BehindTheScenes,
    Random,
    RandomWay,
    WritesABuffer,
    WritesAView,
    WritesItsInput,
)
from torch import Tensor, nn

from dropkit.mc.accelerate import pruned_networks
from dropkit.mc.predict import predict

X = inputs(70)


def run(model: nn.Module, **settings: Any) -> Any:
    return predict(model.eval(), X, 6, **{"seed": 5, "keep_samples": True, "masks": "shared", **settings})


def plain(model: nn.Module, **settings: Any) -> Any:
    return run(model, **{"replay": False, "thin": False, **settings})


def check_against_plain(model: nn.Module, **settings: Any) -> tuple[str, ...]:
    """Assert that the result is that of the plain loop, and return its notes."""
    expected = plain(model, **settings).samples
    r = run(model, thin=False, **settings)
    assert torch.equal(r.samples, expected)
    assert close(run(model, **settings).samples, expected)
    assert expected.var(0).amax() > 0
    return r.notes


@pytest.mark.parametrize("masks", ["input", "chunk", "shared"])
@pytest.mark.parametrize("kind", TRAPS)
def test_the_result_is_that_of_the_plain_loop(kind: type[nn.Module], masks: str) -> None:
    """Whatever the model does with its tensors, and nothing is switched off for it."""
    assert check_against_plain(kind(), masks=masks, chunk=70) == ()
    assert run(kind(), masks=masks, chunk=70).notes == ()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (WritesAView, "that share memory"),
        (BehindTheScenes, "numpy of a tensor shares memory"),
    ],
)
def test_a_model_that_cannot_be_cached_runs_in_full(kind: type[nn.Module], why: str) -> None:
    """The result is that of the plain loop, and a note says why."""
    notes = check_against_plain(kind())

    assert any(why in note for note in notes), notes


def test_a_model_that_cannot_be_pruned_runs_in_full() -> None:
    """A model that reads the memory of a tensor finds none in a pruned one, and a note says so."""

    class Looks(Base):
        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.start(x))
            with torch._C.DisableTorchFunction():
                address = torch._C.TensorBase.data_ptr(h)
            return self.head(h) + (address < 0)

    expected = plain(Looks()).samples

    r = run(Looks())

    assert close(r.samples, expected)
    assert len(r.notes) == 1
    assert r.notes[0].startswith("no units were left out: ")


@pytest.mark.parametrize("kind", [WritesABuffer, WritesItsInput])
def test_a_model_that_writes_before_its_first_dropout_is_not_cached(kind: type[nn.Module]) -> None:
    """Each pass writes, as in a plain loop."""
    model, x = kind().eval(), X.clone()

    r = predict(model, x, 6, seed=5, masks="shared", keep_samples=True)

    other, y = kind().eval(), X.clone()
    expected = predict(other, y, 6, seed=5, masks="shared", keep_samples=True, replay=False, thin=False)
    assert any("writes into its parameters, buffers or inputs" in note for note in r.notes)
    assert close(r.samples, expected.samples)
    assert torch.equal(x, y)
    assert all(map(torch.equal, model.buffers(), other.buffers()))


def test_random_numbers_of_python_are_not_cached() -> None:
    """A factor from Python's generator differs in each pass, so that passes differ before the first dropout."""
    r = predict(Random().eval(), X, 6, seed=5, masks="shared")

    assert any("passes differ before the first dropout" in note for note in r.notes)


def test_random_control_flow_is_not_cached() -> None:
    """Passes make different calls."""
    r = predict(RandomWay().eval(), X, 12, seed=5, masks="shared")

    assert any("passes differ before the first dropout" in note for note in r.notes)


def test_hooks_see_every_pass() -> None:
    """Hooks of the user run as often as without the prefix cache, and see the same values."""

    def seen(**settings: Any) -> list[float]:
        model, values = made("residual"), []
        model.first.register_forward_hook(lambda module, args, output: values.append(output.sum().item()))
        model.head.register_forward_pre_hook(lambda module, args: values.append(args[0].sum().item()))
        run(model, masks="input", **settings)
        return values

    assert seen() == seen(replay=False)


def test_hooks_may_change_outputs() -> None:
    """A hook may replace an output before the first dropout."""
    model = made("mlp")
    model[1].register_forward_hook(lambda module, args, output: output * 2)

    assert check_against_plain(model) == ()


def test_weights_may_change_between_calls() -> None:
    """No result is kept from one call of predict to the next."""
    model = made("mlp")
    first = run(model).samples
    with torch.no_grad():
        model[1].weight.mul_(2)

    assert not torch.equal(run(model).samples, first)
    check_against_plain(model)


def test_a_model_that_wants_one_batch_size() -> None:
    """Where a probe of three inputs fails, the batch dimension is found with the whole batch."""

    class Fixed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.start(x.view(70, 5, 8))))

    assert check_against_plain(Fixed()) == ()


def test_a_site_where_pruning_saves_nothing_is_pruned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what follows needs the whole tensor, later passes do not prune it."""
    prune, pruned = pruned_networks.prune, list[int]()
    monkeypatch.setattr(pruned_networks, "prune", lambda *args: pruned.append(1) or prune(*args))

    class Summed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.start(x)) + 1)

    run(Summed(), batch_size=70)

    assert len(pruned) == 1
