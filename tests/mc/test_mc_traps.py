"""predict where models make replay, thinning or shared state go wrong: the result is that of the plain loop."""

from __future__ import annotations

import random as python_random
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.mc_models import inputs, made
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dropkit import mc
from dropkit.mc.accelerate import pruned_networks
from dropkit.mc.batch_dim_probe import ProbeMode
from dropkit.mc.predict import predict

X = inputs(70)


def run(model: nn.Module, **settings: Any) -> Any:
    return predict(model.eval(), X, 6, **{"seed": 5, "keep_samples": True, "masks": "shared", **settings})


def plain(model: nn.Module, **settings: Any) -> Any:
    return run(model, **{"replay": False, "thin": False, **settings})


def same(model: nn.Module, **settings: Any) -> tuple[str, ...]:
    """The result is that of the plain loop; what was said of it."""
    expected = plain(model, **settings).draws
    r = run(model, thin=False, **settings)
    assert torch.equal(r.draws, expected)
    assert torch.allclose(run(model, **settings).draws, expected, rtol=0, atol=2e-5)
    assert expected.var(0).amax() > 0
    return r.notes


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def start(self, x: Tensor) -> Tensor:
        return self.first(x.mean(1))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class WritesAfterwards(Base):
    """What was computed before the first draw is overwritten after it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        y = self.drop(h)
        h.mul_(2)
        return self.head(y + h)


class WritesAView(Base):
    """Through a view that was made before the first draw."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        half = h[:, :4]
        y = self.drop(h)
        half.add_(1)
        return self.head(y + h)


class DropsInPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        F.dropout(h, 0.5, self.training, inplace=True)
        return self.head(h)


class WritesItsInput(Base):
    """The caller's tensor changes in each pass; in a plain loop as well."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.9)
        return self.head(self.drop(self.start(x)))


class WritesABuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.head(self.drop(self.start(x) * self.passes))


class Random(Base):
    """Python's own randomness comes before the first draw."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.start(x) * self.generator.random()))

    def __init__(self) -> None:
        super().__init__()
        self.generator = python_random.Random(3)


class RandomWay(Random):
    """And decides which calls are made."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for _ in range(self.generator.randrange(1, 4)):
            h = torch.tanh(h)
        return self.head(self.drop(h))


class LooksAtData(Base):
    """Branches on values, before and after the first draw."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        if h.sum() > 0 or float(h[0, 0]) > 0.3:
            h = h + 1
        for _ in range(int(h.abs().mean().item()) + 1):
            h = self.second(h)
        y = self.drop(h)
        return self.head(y if y.sum() > 0 else self.drop(y))


class CalledTwice(Base):
    """One module is called before the first draw and after it."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.mean(1)))
        return self.head(torch.relu(self.first(self.drop(h))) + self.first(self.drop(self.first(h))))


class ChangesAWeight(Base):
    """A linear layer's input and weight are overwritten while it waits for the mask behind it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.start(x)) * 1.0
        y = self.second(h)
        h.zero_()
        return self.head(self.drop(y))


class UsesBoth(Base):
    """A result is wanted dropped and whole, and written after it was dropped."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.drop(self.start(x)))
        y = self.drop(F.gelu(h))
        h += 1
        z = y.clone()
        y.add_(1)
        return self.head(y + h + z)


class InPlace(Base):
    """Functions in place whose result is not looked at, and functions that are not homogeneous."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.drop(self.start(x)))
        F.relu(h, inplace=True)
        h = self.drop(h)
        h.tanh_()
        y = self.second(F.gelu(self.drop(self.second(h))))
        torch.sigmoid_(y)
        return self.head(F.silu(self.drop(y)))


class Branches(Base):
    """What was dropped goes through a layer and past it, and is written meanwhile."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.start(x))
        y = self.second(h)
        h = h + 1
        z = self.drop(self.start(x))
        w = self.second(z)
        z.add_(1)
        return self.head(self.drop(y) + h + self.drop(w) + z)


class Cells(Base):
    """Many sites in a loop, with states that are stacked and indexed."""

    def forward(self, x: Tensor) -> Tensor:
        h, states = x.new_zeros(len(x), 8), []
        for step in x.unbind(1):
            h = self.drop(torch.tanh(self.first(step) + self.second(h)))
            states.append(h)
        return self.head(torch.stack(states, 1)[:, -2:].mean(1))


class NoGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class BehindTheScenes(Base):
    """NumPy computes on what no call of torch's returned."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        return self.head(self.drop(NoGrad.apply(torch.tanh(h)) + 1))


class Softmaxed(Base):
    """Functions of thinned tensors that have no rule."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.second(self.drop(self.start(x))))
        h = torch.cat([h.softmax(-1), h[:, :2], h.cumsum(1)], 1)
        h[:, 0] = 1.0
        return self.head(h.flip(0).flip(0)[:, 2:10] @ torch.eye(8))


class Grouped(nn.Module):
    """Convolutions with groups, strides and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(5, 8, 3, padding=1, padding_mode="circular"), nn.Dropout1d(0.5), nn.Conv1d(8, 8, 3, groups=4)),
            *(nn.ELU(inplace=True), nn.Dropout1d(0.5), nn.Conv1d(8, 6, 3, stride=2, bias=False), nn.AvgPool1d(2)),
            *(nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(6, 5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


TRAPS = (
    DropsInPlace, LooksAtData, CalledTwice, UsesBoth, ChangesAWeight, Branches, InPlace, Cells, Softmaxed, Grouped,
    WritesAfterwards,
)  # fmt: skip


@pytest.mark.parametrize("masks", ["input", "chunk", "shared"])
@pytest.mark.parametrize("kind", TRAPS)
def test_the_result_is_that_of_the_plain_loop(kind: type[nn.Module], masks: str) -> None:
    """Whatever the model does with its tensors, and nothing was given up for it."""
    assert same(kind(), masks=masks, chunk=70) == ()
    assert run(kind(), masks=masks, chunk=70).notes == ()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (WritesAView, "share memory"),
        (BehindTheScenes, "numpy of a tensor gives access that nothing counts"),
    ],
)
def test_what_cannot_be_replayed_runs_in_full(kind: type[nn.Module], why: str) -> None:
    """The result is that of the plain loop, and the reason is said."""
    notes = same(kind())

    assert any(why in note for note in notes), notes


def test_what_cannot_be_cut_is_computed_in_full() -> None:
    """A model that looks into the memory of a tensor finds none in a thinned one: the reason is said."""

    class Looks(Base):
        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.start(x))
            with torch._C.DisableTorchFunction():
                address = torch._C.TensorBase.data_ptr(h)
            return self.head(h) + (address < 0)

    expected = plain(Looks()).draws

    r = run(Looks())

    assert torch.allclose(r.draws, expected, atol=2e-5)
    assert len(r.notes) == 1
    assert r.notes[0].startswith("nothing was cut out: ")


@pytest.mark.parametrize("kind", [WritesABuffer, WritesItsInput])
def test_what_writes_before_its_first_draw_is_not_replayed(kind: type[nn.Module]) -> None:
    """Each pass writes, as in a plain loop."""
    model, x = kind().eval(), X.clone()

    r = predict(model, x, 6, seed=5, masks="shared", keep_samples=True)

    other, y = kind().eval(), X.clone()
    expected = predict(other, y, 6, seed=5, masks="shared", keep_samples=True, replay=False, thin=False)
    assert any("writes into its parameters, buffers or inputs" in note for note in r.notes)
    assert torch.allclose(r.draws, expected.draws, atol=2e-5)
    assert torch.equal(x, y)
    assert all(torch.equal(one, two) for one, two in zip(model.buffers(), other.buffers(), strict=True))


def test_randomness_of_python_is_not_replayed() -> None:
    """A factor of Python's own is another in each pass, so the pass is not the same as the first."""
    r = predict(Random().eval(), X, 6, seed=5, masks="shared")

    assert any("does not run the same way before its first draw" in note for note in r.notes)


def test_a_way_that_is_chosen_at_random_is_not_replayed() -> None:
    """Other calls than in the first pass."""
    r = predict(RandomWay().eval(), X, 12, seed=5, masks="shared")

    assert any("does not run the same way before its first draw" in note for note in r.notes)


def test_hooks_see_every_pass() -> None:
    """Hooks of the user's own run as often as without replay, and see the same values where they look."""

    def seen(**settings: Any) -> list[float]:
        model, values = made("residual"), []
        model.first.register_forward_hook(lambda module, args, output: values.append(output.sum().item()))
        model.head.register_forward_pre_hook(lambda module, args: values.append(args[0].sum().item()))
        run(model, masks="input", **settings)
        return values

    assert seen() == seen(replay=False)


def test_hooks_may_change_what_they_see() -> None:
    """A hook that replaces an output before the first draw."""
    model = made("mlp")
    model[1].register_forward_hook(lambda module, args, output: output * 2)

    assert same(model) == ()


def test_weights_may_change_between_calls() -> None:
    """Nothing is kept from one call to the next."""
    model = made("mlp")
    first = run(model).draws
    with torch.no_grad():
        model[1].weight.mul_(2)

    assert not torch.equal(run(model).draws, first)
    same(model)


@pytest.mark.parametrize("settings", [{}, {"replay": False}, {"thin": False}, {"masks": "input"}])
def test_an_exception_half_way_leaves_no_trace(settings: dict[str, Any]) -> None:
    """What the model raises comes out, and the model and torch are as before."""

    class Fails(Base):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.start(x))
            self.passes += 1
            if self.passes > 5:
                raise ValueError("the fifth pass")
            return self.head(h)

    model = Fails().train()

    with pytest.raises(ValueError, match="the fifth pass"):
        predict(model, X, 20, seed=5, **settings)

    assert all(module.training for module in model.modules())
    assert model.eval().drop(X) is X
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_two_threads_at_once() -> None:
    """From one model, in training mode, with different seeds: each gets what it gets alone."""
    model = made("DropPath").train()
    alone = [predict(model, X, 20, seed=seed, batch_size=10).mean for seed in (1, 2)]
    together: dict[int, Tensor] = {}

    def one(seed: int) -> None:
        together[seed] = predict(model, X, 20, seed=seed, batch_size=10).mean

    threads = [threading.Thread(target=one, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert torch.equal(together[1], alone[0])
    assert torch.equal(together[2], alone[1])
    assert model.training


def test_batch_norm_in_training_mode_is_not_touched() -> None:
    """A model that was left in training mode is evaluated all the same, and left in training mode."""
    model = made("Dropout").train()
    before = model.norm.running_mean.clone()

    run(model.train())
    predict(model.train(), X, 4, seed=5)

    assert torch.equal(model.norm.running_mean, before)
    assert model.norm.training


def test_dropouts_that_were_set_to_training_mode_by_hand() -> None:
    """The usual snippet has been run before: the result is the same, and so are the flags afterwards."""
    model = made("TransformerEncoderLayer")
    expected = predict(model, X, 4, seed=5).mean
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()

    assert torch.equal(predict(model, X, 4, seed=5).mean, expected)
    assert any(module.training for module in model.modules())


def test_inside_of_inference_mode() -> None:
    """Inputs that were made there, and a call from there."""
    model = made("residual")
    expected = run(model).draws

    with torch.inference_mode():
        r = predict(model, X * 1, 6, seed=5, masks="shared", keep_samples=True)

    assert torch.equal(r.draws, expected)


def test_compiled_models_run_uncompiled() -> None:
    """With the same result."""
    model = made("mlp")
    expected = run(model).draws

    assert torch.equal(run(torch.compile(model, backend="eager")).draws, expected)


def test_scripted_models_are_refused() -> None:
    """With the reason."""
    with pytest.raises(TypeError, match="must not be scripted where it drops"):
        run(torch.jit.script(made("mlp")))


def test_a_model_that_wants_one_batch_size() -> None:
    """Where three inputs cannot be tried, the layout is found with the whole batch."""

    class Fixed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.start(x.view(70, 5, 8))))

    assert same(Fixed()) == ()


Q = torch.randn(3, 4, 5, 8, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"is_causal": True},
        {"scale": 0.2},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.eye(5, dtype=torch.bool) | (torch.arange(5) > 2)},
        {"attn_mask": torch.tensor([[True], [False], [True], [False], [True]]).expand(5, 5)},
        {"enable_gqa": True},
    ],
    ids=["plain", "causal", "scale", "added", "masked", "nothing to look at", "grouped"],
)
def test_attention_that_is_taken_apart_is_torchs(arguments: dict[str, Any]) -> None:
    """With its dropout a site like any other, attention is what it was."""
    kv = Q[:, :2] if "enable_gqa" in arguments else Q.flip(0)
    expected = F.scaled_dot_product_attention(Q, kv, kv, **arguments)

    with ProbeMode() as probe:
        found = F.scaled_dot_product_attention(Q, kv, kv, dropout_p=0.5, **arguments)

    assert len(probe.seen) == 1
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"bias": False, "batch_first": True}])
@pytest.mark.parametrize("given", [False, True], ids=["no state", "state"])
def test_recurrent_networks_that_are_taken_apart_are_torchs(kind: Any, settings: dict[str, Any], given: bool) -> None:
    """Output and state, layer by layer."""
    network = kind(8, 6, 3, dropout=0.5, **settings).eval()
    state = torch.randn(3 * (1 + network.bidirectional), 5 if not network.batch_first else 4, 6)
    hx = ((state, state * 2) if kind is nn.LSTM else state) if given else None
    x = torch.randn(4, 5, 8)
    expected = network(x, hx)

    with ProbeMode() as probe:
        found = network(x, hx)

    assert len(probe.seen) == 2
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class Mixing(Base):
    """Dropout of what belongs to pairs of inputs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        return self.head(self.drop(h @ h.T).tanh() @ h)


class Noise(Base):
    """Noise that is no dropout, gated as dropout is."""

    def drop(self, x: Tensor) -> Tensor:
        return x * torch.randn_like(x).exp() if self.training and "dropout" else x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.start(x)))


@pytest.mark.parametrize("kind", [Mixing, Noise])
@pytest.mark.parametrize("masks", ["input", "chunk"])
def test_where_inputs_cannot_be_told_apart_that_is_said(kind: type[nn.Module], masks: str) -> None:
    """The draws are still reproducible, and others for each sample and batch."""
    r = run(kind(), masks=masks, batch_size=35, chunk=35)

    assert r.notes == ("masks depend on the batches: inputs cannot be told apart at draw 0",)
    assert torch.equal(run(kind(), masks=masks, batch_size=35, chunk=35).draws, r.draws)
    assert r.variance.amin() > 0


@pytest.mark.parametrize("masks", ["input", "chunk"])
def test_noise_differs_from_batch_to_batch(masks: str) -> None:
    """Equal inputs in two batches get two noises."""
    x = X[:1].expand(4, -1, -1)

    r = predict(Noise().eval(), x, 6, seed=5, masks=masks, keep_samples=True, batch_size=2, chunk=2)

    assert not torch.equal(r.draws[:, :2], r.draws[:, 2:])


def test_a_site_that_gains_nothing_is_thinned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what follows wants the whole tensor, later passes do not cut it first."""
    cut: list[int] = []
    monkeypatch.setattr(pruned_networks, "prune", lambda *args: cut.append(1) or original(*args))

    class Summed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.start(x)) + 1)

    run(Summed(), batch_size=70)

    assert len(cut) == 1


original = pruned_networks.prune


def test_torchs_own_dropout_may_be_dropkits() -> None:
    """`install` changes nothing here: the kernels are dropkit's anyway."""
    import dropkit

    model = made("encoder, sequence first")
    expected = run(model, masks="input").draws

    with dropkit.installed():
        assert torch.equal(run(model, masks="input").draws, expected)


def test_sampling_may_surround_it() -> None:
    """Inside of a sampling block the result is the same."""
    model = made("mlp")
    expected = run(model).draws

    with mc.sampling():
        assert torch.equal(run(model).draws, expected)
        model(X)
