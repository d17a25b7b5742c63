"""Function transforms, alone, nested and compiled; each program runs eagerly and in one graph.

The rate is 0.5 where numbers are compared, so that the slope is 0 or 2 and every derivative is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import agree, compiled, observe
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.flop_counter import FlopCounterMode

from dropkit import kernels, nn, random, torch_private
from dropkit.functional import alpha_dropout, dropout, dropout1d

# torch compiles its own forward-mode decompositions at first use, with deprecated features.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

WAYS = (None, "aot_eager")
ways = pytest.mark.parametrize("backend", WAYS, ids=str)
X = torch.arange(1.0, 25.0).view(4, 6)
KEY = torch.tensor(7)
KEYS = random.split(7, 4)
SLOPE = dropout(torch.ones(4, 6), 0.5, key=KEY)
SLOPES = torch.stack([dropout(torch.ones(6), 0.5, key=key) for key in KEYS])


def keyed(x: Tensor, key: Tensor = KEY) -> Tensor:
    return dropout(x, 0.5, key=key)


def squares(x: Tensor, key: Tensor = KEY) -> Tensor:
    return dropout(x, 0.5, key=key).square().sum()


def through(function: Callable[..., Any], backend: str | None) -> Callable[..., Any]:
    return function if backend is None else compiled(function, backend)


def diagonal(slope: Tensor) -> Tensor:
    return slope.flatten().diag().view(*slope.shape, *slope.shape)


def along(x: Tensor) -> Tensor:
    """The derivative of dropout at x in the direction x."""
    return jvp(keyed, (x,), (x,))[1]


def back(x: Tensor) -> Tensor:
    return vjp(keyed, x)[1](x)[0]


DERIVATIVES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "grad": (grad(squares), 2 * X * SLOPE**2),
    "vjp": (back, X * SLOPE),
    "jvp": (along, X * SLOPE),
    "jacrev": (jacrev(keyed), diagonal(SLOPE)),
    "jacfwd": (jacfwd(keyed), diagonal(SLOPE)),
    "hessian": (hessian(squares), diagonal(2 * SLOPE**2)),
    "grad of grad": (grad(lambda x: grad(squares)(x).sum()), 2 * SLOPE**2),
    "jvp of grad": (lambda x: jvp(grad(squares), (x,), (x,))[1], 2 * X * SLOPE**2),
    "grad of jvp": (grad(lambda x: along(x).sum()), SLOPE),
}


@pytest.mark.parametrize("backend", [*WAYS, "inductor"], ids=str)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_have_the_mask_of_the_call(name, backend):
    """Each derivative of a call with a key follows from the mask of that key."""
    derivative, expected = DERIVATIVES[name]

    assert torch.equal(through(derivative, backend)(X), expected)


DRAWING: dict[str, Callable[[Tensor], Any]] = {
    "vmap same": vmap(lambda x: dropout(x, 0.5), randomness="same"),
    "vmap different": vmap(lambda x: dropout(x, 0.5), randomness="different"),
    "vmap of another dimension": vmap(lambda x: dropout1d(x[None], 0.5), in_dims=1, randomness="different"),
    "vmap of nothing batched": lambda x: vmap(lambda _: dropout(X, 0.5), randomness="different")(x),
    "vmap in vmap": vmap(vmap(lambda x: dropout(x, 0.5), randomness="same"), randomness="different"),
    "vmap in vmap, the other way": vmap(vmap(lambda x: dropout(x, 0.5), randomness="different"), randomness="same"),
    "vmap of grad": vmap(grad(lambda x: dropout(x, 0.5).square().sum()), randomness="different"),
    "vmap in place": vmap(lambda x: dropout(x * 2, 0.5, inplace=True), randomness="different"),
    "vmap of two": vmap(lambda x: dropout(dropout(x, 0.5), 0.5), randomness="same"),
    "vmap of a draw": vmap(lambda x: dropout(x, 0.5, key=random.draw()), randomness="different"),
    "vmap with a rate in a tensor": vmap(lambda x: dropout(x, torch.tensor(0.5)), randomness="different"),
    "grad": grad(lambda x: dropout(x, 0.5).square().sum()),
    "jvp": lambda x: jvp(lambda x: dropout(x, 0.5), (x,), (x,)),
    "jacfwd": jacfwd(lambda x: dropout(x, 0.5), randomness="same"),
}


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", DRAWING)
def test_compiled_transforms_draw_as_eager_ones(name, backend):
    """Values and the generator's state afterwards are those of the eager program."""
    function = DRAWING[name]

    assert agree(observe(compiled(function, backend), X), observe(function, X))


@ways
def test_vmap_gives_the_masks_asked_for(backend):
    """Under "same" all slices share a mask, under "different" each has its own, at each level of nesting."""
    ones = torch.ones(3, 4, 20)

    def masks(outer, inner):
        function = vmap(vmap(lambda x: dropout(x, 0.5), randomness=inner), randomness=outer)
        return len({tuple(mask) for mask in through(function, backend)(ones).view(12, 20).tolist()})

    assert masks("same", "same") == 1
    assert masks("same", "different") == 4
    assert masks("different", "same") == 3
    assert masks("different", "different") == 12


def test_vmap_refuses_draws_in_torchs_words():
    """In error mode a call that draws raises torch's error; one that does not draw works."""
    with pytest.raises(RuntimeError) as theirs:
        vmap(lambda x: F.dropout(x))(X)
    for call in (lambda x: dropout(x), lambda x: alpha_dropout(x, 0.5, True), lambda x: x * random.draw()):
        with pytest.raises(RuntimeError) as raised:
            vmap(call)(X)
        assert str(raised.value) == str(theirs.value)


@ways
def test_vmap_allows_what_draws_nothing(backend):
    """In error mode calls with rates 0 and 1, in eval mode and with given keys work."""

    def function(x):
        return dropout(x, 0.0), dropout(x, 1.0), dropout(x, 0.5, False), keyed(x)

    none, all, eval, given = through(vmap(function), backend)(X)

    assert torch.equal(none, X)
    assert torch.equal(all, torch.zeros_like(X))
    assert torch.equal(eval, X)
    assert torch.equal(given, X * keyed(torch.ones(6)))


@ways
def test_each_sample_may_have_its_key(backend):
    """A batch of keys gives each sample the mask of its key, in values, gradients and derivatives along a direction."""

    def function(x, keys):
        forward = vmap(lambda x, key: jvp(lambda x: keyed(x, key), (x,), (x,))[1])
        return vmap(keyed)(x, keys), vmap(grad(squares))(x, keys), forward(x, keys)

    values, grads, tangents = through(function, backend)(X, KEYS)

    assert torch.equal(values, X * SLOPES)
    assert torch.equal(grads, 2 * X * SLOPES**2)
    assert torch.equal(tangents, X * SLOPES)


@ways
def test_keys_may_be_batched_at_two_levels(backend):
    """Two nested batches of keys apply to one tensor."""
    keys = random.fold_in(KEYS[:, None], torch.arange(3))

    outputs = through(vmap(vmap(keyed, in_dims=(None, 0)), in_dims=(None, 0)), backend)(X, keys)

    expected = torch.stack([torch.stack([keyed(X, key) for key in row]) for row in keys])
    assert torch.equal(outputs, expected)


@ways
def test_derived_keys_are_those_of_each_slice(backend):
    """`fold_in` and `split` give each slice under vmap the same as alone."""

    def function(keys, n):
        return (
            vmap(random.fold_in)(keys, n),
            vmap(random.fold_in, in_dims=(0, None))(keys, n),
            vmap(random.fold_in, in_dims=(None, 0))(keys, n),
            vmap(random.split)(keys),
        )

    n = torch.arange(4) * 2**40
    both, keys_alone, numbers_alone, pairs = through(function, backend)(KEYS, n)

    every = torch.stack([random.fold_in(key, n) for key in KEYS])
    assert torch.equal(both, every.diagonal())
    assert torch.equal(keys_alone, every)
    assert torch.equal(numbers_alone, every.T)
    assert torch.equal(pairs, torch.stack([random.split(key) for key in KEYS]))


@ways
def test_functional_call_runs_our_modules(backend):
    """An ensemble of weights under vmap, each network with its own masks and its own gradients."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False), nn.Dropout(0.5))
    weights = torch.arange(90.0).view(3, 5, 6)

    def loss(weight, x):
        return functional_call(network, {"0.weight": weight}, (x,)).sum()

    function = vmap(grad(loss), in_dims=(0, None), randomness="different")
    seen = observe(through(function, backend), weights, X)

    assert agree(seen, observe(function, weights, X))
    assert len({tuple(grads.flatten().tolist()) for grads in seen[0]}) == 3


BATCHED: dict[str, Callable[[Tensor], Tensor]] = {
    "vmap": vmap(lambda x: dropout(x, 0.5), randomness="different"),
    "of columns": vmap(lambda x: dropout(x, 0.5), in_dims=1, randomness="different"),
    "of two levels": vmap(vmap(lambda x: dropout(x, 0.5), randomness="different"), randomness="different"),
    "of keys alone": lambda x: vmap(keyed, in_dims=(None, 0))(x, KEYS),
    "in place": vmap(lambda x: dropout(x * 2, 0.5, inplace=True), randomness="different"),
    "with a rate in a tensor": vmap(lambda x: dropout(x, torch.tensor(0.5)), randomness="different"),
    "of jvp": vmap(lambda x: jvp(lambda x: dropout(x, 0.5), (x,), (x,))[0], randomness="different"),
}


@pytest.mark.parametrize("name", BATCHED)
def test_one_kernel_call_serves_all_slices(name, monkeypatch):
    """However many slices there are, and whichever way a call takes."""
    calls = []
    run = kernels.drop
    monkeypatch.setattr(kernels, "drop", lambda *call: calls.append(run(*call)))

    BATCHED[name](X)

    # Forward mode runs the kernel for the tangent, too.
    assert len(calls) == (2 if name == "of jvp" else 1)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_the_batch_may_be_any_dimension(dtype, in_dim):
    """Each slice has the mask of its key, wherever the batch lies in memory."""
    x = torch.randn(4, 5, 6).movedim(0, in_dim).to(dtype)
    keys = random.split(7, 4)

    outputs = vmap(keyed, in_dims=(in_dim, 0))(x, keys)

    assert torch.equal(
        outputs, torch.stack([keyed(each, key) for each, key in zip(x.unbind(in_dim), keys, strict=True)])
    )


def test_gradients_go_on_outside_of_a_transform():
    """`torch.func.grad` gives a differentiable gradient where gradients are enabled around it."""
    x = X.clone().requires_grad_()

    def gradient(x: Tensor) -> Tensor:
        return grad(squares)(x)

    assert torch.equal(torch.autograd.grad(gradient(x).sum(), x)[0], 2 * SLOPE**2)
    with torch.no_grad():
        assert not gradient(x).requires_grad


def test_a_key_may_be_an_argument_of_a_transform():
    """The backward pass reads the key after the transform that wrapped it has ended."""
    assert torch.equal(jacrev(lambda x, key: keyed(x, key))(X, KEY), diagonal(SLOPE))
    assert torch.equal(grad(squares)(X, KEY), 2 * X * SLOPE**2)


def test_a_key_may_be_an_inference_tensor():
    """Autograd saves no such tensor: not under a transform, nor for the operator that a mode sees."""
    with torch.inference_mode():
        key = KEY.clone()
    x = X.clone().requires_grad_()

    with FlopCounterMode(display=False):
        (seen,) = torch.autograd.grad(squares(x, key), x)

    for gradient in (grad(squares)(X, key), grad(lambda x: squares(x, key))(X), seen):
        assert torch.equal(gradient, 2 * X * SLOPE**2)


def test_backward_does_not_see_what_is_written_to_a_key():
    """A key that was written to raises torch's error inside of a transform, and is not read again outside of it."""
    key, x = KEY.clone(), X.clone().requires_grad_()
    _, pull = vjp(lambda x: keyed(x, key), X)
    outputs = vmap(lambda x: keyed(x, key))(x)

    key.add_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pull(X)
    (grads,) = torch.autograd.grad(outputs.sum(), x)
    assert torch.equal(grads, vmap(keyed, in_dims=(0, None))(torch.ones_like(X), KEY))
    keys, x = KEYS.clone(), X.clone().requires_grad_()
    outputs = vmap(keyed)(x, keys)
    keys.zero_()
    assert torch.equal(torch.autograd.grad(outputs.sum(), x)[0], SLOPES)


def test_every_way_gives_the_same_draws(monkeypatch):
    """A torch without the private names that make transforms fast gives the same masks by way of its dispatcher."""
    expected = {name: observe(function, X) for name, function in DRAWING.items()}

    monkeypatch.setattr(torch_private.transforms, "_ARE_FOUND", False)

    for name, function in DRAWING.items():
        assert agree(observe(function, X), expected[name]), name
