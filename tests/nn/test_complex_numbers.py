"""Complex numbers: what becomes of them in every mode. The law `complex_numbers_are_pairs` has the values."""

from __future__ import annotations

import pytest
import torch
from helpers.compare import agree, compiled, observe
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import dropkit
from dropkit.functional import dropout
from dropkit.nn import LAYERS
from dropkit.nn.layer import Layer

KEY = 7
ABLE = [layer for layer in LAYERS if layer.takes_complex]
UNABLE = [layer for layer in LAYERS if not layer.takes_complex and layer.counterpart is not None]
each = pytest.mark.parametrize("drops", ABLE, ids=lambda layer: layer.name)


def example(layer: Layer, requires_grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(layer.example_shape, dtype=torch.complex64, generator=generator).requires_grad_(requires_grad)


def kept(layer: Layer, key: int = KEY) -> Tensor:
    return layer.function(torch.ones(layer.example_shape), 0.5, True, key=key) != 0


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(-x, x)


class Imaginary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.imag


@each
@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_lazily_conjugated_and_negated_numbers_are_dropped_by_value(drops, inplace):
    """In place they are written through the view, and stay lazy."""
    for make in (Tensor.conj, torch._neg_view, lambda x: torch._neg_view(x.conj())):
        lazy = make(example(drops))
        expected = torch.where(kept(drops), lazy * 2, 0)

        output = drops.function(lazy, 0.5, True, inplace, key=KEY)

        assert torch.equal(output, expected)
        assert (output is lazy) == inplace


@each
def test_in_place_counts_as_one_write(drops):
    """On a tensor of a graph too, with the gradient of the call out of place."""
    leaf = example(drops, requires_grad=True)
    x = leaf * 1

    output = drops.function(x, 0.5, True, True, key=KEY)
    output.backward(torch.full_like(output, 1 + 2j))

    assert output is x
    assert x._version == 1
    assert torch.equal(leaf.grad, torch.where(kept(drops), torch.full_like(leaf, 2 + 4j), 0))


@each
def test_memory_layout_is_kept(drops):
    """The output has the strides of its input, and the same bits."""
    x = example(drops)
    stored = x.transpose(0, 1).contiguous().transpose(0, 1)

    output = drops.function(stored, 0.5, True, key=KEY)

    assert output.stride() == stored.stride()
    assert torch.equal(output, drops.function(x, 0.5, True, key=KEY))


@each
def test_compiled_equals_eager(drops):
    """Also in place, with a key, and with a rate in a tensor."""

    def drop(x, p, key):
        return drops.function(x, 0.5, True), drops.function(x * 1, 0.5, True, True, key=key), drops.function(x, p, True)

    inputs = example(drops, requires_grad=True), torch.tensor(0.3), torch.tensor(KEY)

    assert agree(observe(compiled(drop), *inputs), observe(drop, *inputs))


@each
def test_transforms_of_torch_func(drops):
    """Under vmap each slice has the mask of its key; gradients and tangents have the mask of the output."""
    x = example(drops)

    def run(x, key=KEY):
        return drops.function(x, 0.5, True, key=key)

    slices = torch.vmap(run)(torch.stack([x, x]), torch.tensor([KEY, 8]))
    gradient = torch.func.grad(lambda x: run(x).abs().sum())(x)
    _, tangent = torch.func.jvp(run, (x,), (torch.full_like(x, 1j),))

    assert torch.equal(slices, torch.stack([run(x), run(x, 8)]))
    assert torch.equal(gradient != 0, kept(drops))
    assert torch.equal(tangent, torch.where(kept(drops), torch.full_like(x, 2j), 0))


@each
def test_tensors_without_memory(drops):
    """Meta and fake tensors give one of the same dtype and layout."""
    x = example(drops).transpose(0, 1).contiguous().transpose(0, 1)

    meta = drops.function(x.to("meta"), 0.5, True)
    with FakeTensorMode() as mode:
        fake = drops.function(mode.from_tensor(x), 0.5, True)

    assert type(fake) is FakeTensor
    for output in (meta, fake):
        assert (output.dtype, output.shape, output.stride()) == (x.dtype, x.shape, x.stride())


@each
def test_torchs_own_layers_drop_them_under_install(drops):
    """With the masks of dropkit's."""
    if drops.counterpart is None:
        return
    x = example(drops, requires_grad=True)

    def by(function):
        return lambda x: function(x, 0.5, True)

    with dropkit.installed():
        assert agree(observe(by(drops.counterpart.function), x), observe(by(drops.function), x))


@each
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:torch.jit.trace records:UserWarning")
def test_recorded_programs_hold_torchs_operators(drops):
    """torch.export and torch.jit.trace record torch's dropout of a real mask."""

    class Model(nn.Module):
        def forward(self, x):
            return drops.function(x, 0.5, True)

    x = example(drops)
    exported = torch.export.export(Model(), (x,))
    traced = torch.jit.trace(Model(), (x,), check_trace=False)

    assert not [node for node in exported.graph.nodes if "dropkit" in str(node.target)]
    for program in (exported.module(), traced):
        output = program(x)
        assert set((output / x).real.round().unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(3)
    expected = drops.function(x, 0.5, True)
    torch.manual_seed(3)
    with dropkit.installed():
        assert torch.equal(exported.module()(x), expected)


@pytest.mark.parametrize("drops", UNABLE, ids=lambda layer: layer.name)
def test_alpha_dropout_leaves_them_to_torch(drops):
    """It shifts by a real number; torch has no kernel for them, and dropkit's function gives torch's error."""
    with pytest.raises(NotImplementedError, match="not implemented for 'ComplexFloat'"):
        drops.function(example(drops), 0.5, True)


def test_an_audit_counts_complex_numbers():
    """Neither the shape nor the number of dropped elements counts the parts."""
    report = dropkit.audit(nn.Sequential(dropkit.nn.Dropout(0.5)), torch.ones(4, 6, dtype=torch.complex64))

    (site,) = report.sites
    visit = next(visit for visit in site.visits if visit.is_active)
    assert (visit.shape, visit.mask_shape, visit.mask_elements) == ((4, 6), (4, 6), 24)
    assert visit.dropped == visit.dropped_elements


@pytest.mark.parametrize("batch_size", [6, 2])
@pytest.mark.filterwarnings("error")
def test_monte_carlo_drops_them_by_the_mask_of_real_numbers(batch_size):
    """A complex number uses one mask element in `predict`, too."""
    x, drops = torch.rand(6, 5), dropkit.nn.Dropout(0.5)

    real, parts = (
        dropkit.mc.predict(model, x, 8, "regression", seed=0, batch_size=batch_size).mean
        for model in (nn.Sequential(drops), nn.Sequential(Complex(), drops, Imaginary()))
    )

    assert torch.equal(parts, real)


def test_monte_carlo_refuses_alpha_dropout_of_them():
    """It would shift the real part."""
    model = nn.Sequential(Complex(), dropkit.nn.AlphaDropout(0.5), Imaginary())

    with pytest.raises(TypeError, match="input of alpha dropout must be of real numbers, got"):
        dropkit.mc.predict(model, torch.rand(6, 5), 8, "regression", seed=0)


def test_a_model_of_complex_numbers_learns_with_dropout():
    """The loss of a complex linear model falls, and equal seeds give equal training."""

    def train():
        torch.manual_seed(0)
        x, target = torch.randn(64, 8, dtype=torch.complex64), torch.randn(8, 1, dtype=torch.complex64)
        weight = torch.zeros(8, 1, dtype=torch.complex64, requires_grad=True)
        losses = []
        for _ in range(50):
            loss = (dropout(x, 0.1) @ weight - x @ target).abs().square().mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            with torch.no_grad():
                weight -= 0.1 * gradient
            losses.append(loss.item())
        return losses

    losses = train()

    assert losses == train()
    assert losses[-1] < losses[0] / 5
