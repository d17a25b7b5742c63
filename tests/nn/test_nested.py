"""Nested tensors: the laws that hold for all layers and both layouts of torch's.

The components are (channels, length, ...), with lengths that differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers.laws import mask_shape
from torch import Tensor

from dropkit import functional, random
from dropkit.nn.layer import Layer

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")

KEY = 7
LENGTHS = (3, 1, 0, 5)
CHANNELS = 6
Build = Callable[[list[Tensor]], Tensor]


def jagged(components: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(components, layout=torch.jagged)


def strided(components: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(components, layout=torch.strided)


def transposed(build: Build) -> Build:
    return lambda components: build([component.transpose(0, 1) for component in components]).transpose(1, 2)


def with_gaps(components: list[Tensor]) -> Tensor:
    """Gaps of two before, between and behind the components, full of nines."""
    gap = torch.full_like(components[0][:, :1], 9.0).expand(-1, 2, *components[0].shape[2:])
    values = torch.cat([gap, *(piece for component in components for piece in (component, gap))], 1)
    lengths = torch.tensor([component.shape[1] for component in components])
    starts = torch.nn.functional.pad((lengths + 2).cumsum(0), (1, 0)) + 2
    return torch.nested.nested_tensor_from_jagged(values, starts, lengths, jagged_dim=2)


BUILDS: dict[str, Build] = {
    "jagged": jagged,
    "strided": strided,
    "transposed jagged": transposed(jagged),
    "transposed strided": transposed(strided),
    "jagged with gaps": with_gaps,
}
WRITABLE = [name for name in BUILDS if name != "transposed strided"]  # torch cannot write these
JAGGED = [name for name in BUILDS if "jagged" in name]


def components_for(layer: Layer) -> list[Tensor]:
    return [torch.randn(CHANNELS, length, *layer.example_shape[3:], dtype=torch.float64) for length in LENGTHS]


def dense_drop(layer: Layer, components: list[Tensor], p: float = 0.5, key: int = KEY) -> list[Tensor]:
    """What the components become by definition: the masks of all, one behind the other, have consecutive indices."""
    shapes = [mask_shape(layer, component.unsqueeze(0))[1:] for component in components]
    sizes = [math.prod(shape) for shape in shapes]
    kept = functional.dropout(torch.ones(sum(sizes)), p, key=key) != 0
    params = layer.params(p)
    return [
        torch.where(mask.view(shape), component * params.scale + params.shift, params.fill)
        for component, mask, shape in zip(components, kept.split(sizes), shapes, strict=True)
    ]


def equal(nested: Tensor, components: list[Tensor]) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(nested.unbind(), components, strict=True))


def drew(call: Callable[[], object]) -> bool:
    state = torch.get_rng_state()
    call()
    return not torch.equal(torch.get_rng_state(), state)


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_mask_indices_continue_from_component_to_component(layer, build, p):
    """The mask follows from the key and the components, not from how these lie in memory."""
    components = components_for(layer)

    output = layer.function(BUILDS[build](components), p, True, key=KEY)

    assert equal(output, dense_drop(layer, components, p))


@pytest.mark.parametrize("build", [jagged, strided, transposed(with_gaps)])
def test_positions_first(build):
    """A jagged tensor (N, length, features) has the mask of its components laid end to end."""
    components = [torch.randn(length, 4) for length in LENGTHS]

    output = functional.dropout(build(components), 0.5, key=KEY)

    assert equal(output, list(functional.dropout(torch.cat(components), 0.5, key=KEY).split(LENGTHS)))


def test_sizes_that_differ_in_all_dimensions():
    """Images of different sizes have a mask element for each channel of each image, as in a batch."""
    images = [torch.ones(CHANNELS, height, width) for height, width in ((2, 4), (5, 1), (3, 3))]

    output = functional.dropout2d(strided(images), 0.5, key=KEY)

    masks = functional.dropout2d(torch.ones(len(images), CHANNELS, 1, 1), 0.5, key=KEY)
    assert equal(output, [mask.expand_as(image) for mask, image in zip(masks, images, strict=True)])


def test_components_without_dimensions():
    """Each component has one mask element."""
    output = functional.dropout(strided([torch.tensor(1.0)] * 4), 0.5, key=KEY)

    assert torch.stack(output.unbind()).tolist() == functional.dropout(torch.ones(4), 0.5, key=KEY).tolist()


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("build", WRITABLE)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_in_place_writes_the_input(layer, build, p):
    """The input itself comes back, written once; the gaps between components keep what they hold."""
    components = components_for(layer)
    x = BUILDS[build](components)
    values = x.values()

    output = layer.function(x, p, True, True, key=KEY)

    assert output is x
    assert equal(x, dense_drop(layer, components, p))
    assert x._version == 1
    if build == "jagged with gaps":
        assert values.eq(9).sum() == 2 * (len(LENGTHS) + 1) * values[:, 0].numel()


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_reach_the_components(layer, build, inplace):
    """The gradient has the mask of the call, also for the tensors that the nested tensor was made from."""
    if inplace and build not in WRITABLE:
        pytest.skip("torch cannot write these")
    components = [component.requires_grad_() for component in components_for(layer)]
    weights = [torch.randn_like(component) for component in components]

    output = layer.function(BUILDS[build](components) * 1, 0.5, True, inplace, key=KEY)
    sum((part * weight).sum() for part, weight in zip(output.unbind(), weights, strict=True)).backward()

    expected = torch.autograd.grad(dense_drop(layer, components), components, weights)
    assert equal(torch.nested.as_nested_tensor([component.grad for component in components]), list(expected))


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_a_nested_leaf(layer, layout):
    """The input gets a nested gradient, and is not written in place."""
    components = components_for(layer)
    x = torch.nested.nested_tensor(components, layout=layout, requires_grad=True)

    sum(part.sum() for part in layer.function(x, 0.5, True, key=KEY).unbind()).backward()
    with pytest.raises(RuntimeError, match=r"in-place|inplace"):
        layer.function(x, 0.5, True, True, key=KEY)

    leaves = [component.clone().requires_grad_() for component in components]
    grads = torch.autograd.grad(sum(map(torch.sum, dense_drop(layer, leaves))), leaves)
    assert equal(x.grad, list(grads))
    assert equal(x.detach(), components)


@pytest.mark.parametrize("build", JAGGED)
def test_jagged_structure_is_kept(layer, build):
    """The output can be added to the input, and has its strides, offsets, lengths and length bounds."""
    x = BUILDS[build](components_for(layer))

    output = layer.function(x, 0.5, True, key=KEY)

    assert equal(x + output, [a + b for a, b in zip(x.unbind(), output.unbind(), strict=True)])
    assert output.shape == x.shape
    assert output.offsets() is x.offsets()
    assert output.lengths() is x.lengths()
    assert output.values().stride() == x.values().stride()
    assert (output._maybe_min_seqlen, output._maybe_max_seqlen) == (x._maybe_min_seqlen, x._maybe_max_seqlen)


@pytest.mark.parametrize("build", BUILDS)
def test_nothing_dropped_returns_the_same_object(layer, build):
    """In eval mode and at p = 0 the input itself is returned, also in place, and no key is drawn."""
    x = BUILDS[build](components_for(layer))

    for p, training, inplace in ((0.5, False, False), (0.5, False, True), (0.0, True, False), (0.0, True, True)):
        assert layer.function(x, p, training, inplace) is x
        assert layer.module(p, inplace).train(training)(x) is x
    assert not drew(lambda: layer.function(x, 0.0, True))
    assert x._version == 0


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("build", BUILDS)
def test_everything_dropped_is_zero(layer, build):
    """At p = 1 all elements become 0, also NaN and infinity, and no key is drawn."""
    x = BUILDS[build]([component.fill_(float("nan")) for component in components_for(layer)])

    assert not drew(lambda: layer.function(x, 1.0, True))
    assert all(part.count_nonzero() == 0 for part in layer.function(x, 1.0, True).unbind())


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("build", BUILDS)
def test_one_key_is_drawn(layer, build):
    """All components share a key, from torch's generator or from the given one; modules do the same."""
    components = components_for(layer)
    x, module = BUILDS[build](components), layer.module(0.5)
    key = random.draw(torch.Generator().manual_seed(3)).item()
    torch.manual_seed(3)
    random.draw()
    state = torch.get_rng_state()

    for call in (lambda **more: layer.function(x, 0.5, True, **more), lambda **more: module(x, **more)):
        torch.manual_seed(3)
        outputs = [call(), call(generator=torch.Generator().manual_seed(3)), call(key=key), call(key=torch.tensor(key))]

        assert torch.equal(torch.get_rng_state(), state)
        assert all(equal(output, dense_drop(layer, components, key=key)) for output in outputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_is_kept(layer, dtype):
    """The output has the dtype of the input in both layouts."""
    for build in (jagged, strided):
        assert layer.function(build(components_for(layer)).to(dtype), 0.5, True).dtype == dtype


@pytest.mark.parametrize("name", ["dropout1d", "dropout2d", "feature_alpha_dropout"])
@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_positions_are_not_channels(name, p):
    """If dimension 1 varies, the error says so, with the shape and what to do; nothing is written."""
    function, components = getattr(functional, name), [torch.ones(length, 4) for length in (3, 1)]

    for build in (jagged, strided):
        x = build(components)
        with pytest.raises(RuntimeError, match=rf"{name}: .*channels.*got \(2, \*, 4\).*use dropout .*transpose"):
            function(x, p, True, inplace=True)
        assert equal(x, components)


def test_dimension_0_is_the_batch():
    """`dropout1d` refuses nested (C, L), and `dropout3d` nested (C, D, H, W)."""
    for name, shape, wanted in (("dropout1d", (4,), 3), ("dropout3d", (4, 5, 6), 5)):
        x = jagged([torch.ones(shape), torch.ones(shape)])
        with pytest.raises(RuntimeError, match=f"{name}: input must have {wanted} dimensions .* got {len(shape) + 1};"):
            getattr(functional, name)(x, 0.5)


def test_compiled_equals_eager(layer):
    """One graph gives the bits and gradients of the eager call, also for lengths that it was not compiled for."""
    if layer.name == "LockedDropout":
        pytest.skip("the size of its mask depends on lengths that a compiler does not know")
    torch.compiler.reset()
    compiled = torch.compile(layer.function, fullgraph=True, backend="aot_eager")
    for order in (1, -1):
        x = jagged(components_for(layer)[::order]).requires_grad_()

        outputs = [function(x, 0.5, True, key=KEY) for function in (compiled, layer.function)]

        assert torch.equal(*(output.values() for output in outputs))
        assert torch.equal(*(torch.autograd.grad(output.values().sum(), x)[0].values() for output in outputs))


def test_compiled_residual():
    """In a compiled graph the output has the ragged size of the input, and the drawn key is that of eager mode."""
    torch.compiler.reset()
    x = jagged([torch.randn(length, 4) for length in LENGTHS])
    outputs = []
    for compiled in (torch.compile(fullgraph=True, backend="aot_eager"), lambda function: function):
        torch.manual_seed(3)
        outputs.append(compiled(lambda x: x + functional.dropout(2 * x))(x).values())

    assert torch.equal(*outputs)
