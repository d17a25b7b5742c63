"""The laws that every composed layer obeys, whatever it is made of.

Each law is a function of the layer's record. Modules with parameters are made from seed 1, so that two of them are
equal. Chance is tested with fixed keys and a bound of five standard errors.
"""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from helpers.compare import graphs
from torch import Tensor, nn

from dropkit import random, shard
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.ops import slices
from dropkit.shard.parts import Replica

COMPOSED_LAWS: list[Callable[[ComposedLayer], None]] = []
RATES = (0.2, 0.6)


def law(function: Callable[[ComposedLayer], None]) -> Callable[[ComposedLayer], None]:
    COMPOSED_LAWS.append(function)
    return function


def make(layer: ComposedLayer, p: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return layer.make(p).to(dtype)


def inputs(layer: ComposedLayer, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    return layer.inputs(dtype)


# fx gives proxies to arguments by name alone. By the number of inputs.
FORWARDS = {
    1: lambda self, one: self.layer(one),
    2: lambda self, one, two: self.layer(one, two),
    3: lambda self, one, two, three: self.layer(one, two, three),
}


def first(output: Any) -> Tensor:
    """The tensor in which dropped units show."""
    return output[0] if isinstance(output, tuple) else output


def tensors(output: Any) -> list[Tensor]:
    """All tensors of an output, in order."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for item in output if item is not None for tensor in tensors(item)]


def equal(one: Any, other: Any) -> bool:
    return len(tensors(one)) == len(tensors(other)) and all(map(torch.equal, tensors(one), tensors(other)))


@law
def the_realised_rate_is_p(layer: ComposedLayer) -> None:
    """Over many keys the fraction of dropped units is p, and that of each unit, within five standard errors."""
    example, draws = inputs(layer), 100
    for p in RATES:
        module = make(layer, p)
        with torch.no_grad():
            samples = torch.stack(
                [layer.dropped(first(module(*example, key=key)), module).flatten() for key in random.split(7, draws)]
            ).double()

        fractions = samples.mean(1)
        # A fixed number of units may be dropped: then the fraction is p up to one unit, and does not vary.
        error = 5 * fractions.std() / math.sqrt(draws) + (fractions.std() == 0) / samples.shape[1]
        assert abs(fractions.mean() - p) <= max(error, 5e-16), (p, fractions.mean(), error)
        # Six standard errors: the largest of up to thousands of units is looked at.
        assert (samples.mean(0) - p).abs().max() < 6 * math.sqrt(p * (1 - p) / draws) + 1 / samples.shape[1]


@law
def equal_keys_give_equal_bits(layer: ComposedLayer) -> None:
    """The same key gives the same output, as an int or a tensor; another key gives another."""
    module, example = make(layer, 0.5), inputs(layer)

    output = module(*example, key=3)

    assert equal(module(*example, key=3), output)
    assert equal(module(*example, key=torch.tensor(3)), output)
    assert not equal(module(*example, key=4), output)


@law
def seeds_decide_what_is_drawn(layer: ComposedLayer) -> None:
    """Equal seeds give equal outputs, by torch's generator or another; calls that follow one another differ."""
    module, example = make(layer, 0.5), inputs(layer)
    torch.manual_seed(1)
    one, two = module(*example), module(*example)

    torch.manual_seed(1)
    again = module(*example)
    by_generator = module(*example, generator=torch.Generator().manual_seed(1))

    assert equal(again, one)
    assert equal(by_generator, one)
    assert not equal(one, two)


@law
def eval_and_p_0_drop_nothing(layer: ComposedLayer) -> None:
    """In eval mode at any rate, and at rate 0 in training, outputs are the same, and nothing is drawn.

    Layers whose eval mode computes an expectation instead draw nothing and drop nothing.
    """
    example = inputs(layer)
    modules = make(layer, 0.5).eval(), make(layer, 0.0), make(layer, 0.0).eval()
    before = torch.get_rng_state()

    outputs = [module(*example) for module in modules]

    assert torch.equal(torch.get_rng_state(), before)
    assert all(equal(output, outputs[-1]) for output in outputs[not layer.is_plain_in_eval :])
    assert not layer.dropped(first(outputs[0]), modules[0]).any()


@law
def a_key_and_a_generator_exclude_each_other(layer: ComposedLayer) -> None:
    """Both at once is an error that names the two arguments."""
    try:
        make(layer, 0.5)(*inputs(layer), key=1, generator=torch.Generator())
    except ValueError as error:
        assert "key must be None where generator is given" in str(error)  # noqa: PT017
    else:
        raise AssertionError("no error")


@law
def rates_out_of_range_are_refused(layer: ComposedLayer) -> None:
    """A rate below 0, above 1, or NaN is torch's ValueError when the module is made."""
    for p in (-0.1, 1.5, math.nan):
        try:
            layer.make(p)
        except ValueError as error:
            assert f"between 0 and 1, but got {p}" in str(error)  # noqa: PT017
        else:
            raise AssertionError(f"{p} was accepted")


@law
def the_gradient_is_that_of_the_output(layer: ComposedLayer) -> None:
    """Under a fixed key, derivatives by every input and parameter are those of finite differences."""
    module = make(layer, 0.4, torch.float64)
    example = [x.requires_grad_() if x.is_floating_point() else x for x in inputs(layer, torch.float64)]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def call(*_: Tensor) -> tuple[Tensor, ...]:
        return tuple(x for x in tensors(module(*example, key=5)) if x.is_floating_point())

    # Along one random direction instead of each coordinate: examples may be large.
    leaves = tuple(x for x in (*example, *parameters) if x.is_floating_point())
    assert not leaves or torch.autograd.gradcheck(call, leaves, fast_mode=True)


@law
def memory_layout_does_not_change_the_bits(layer: ComposedLayer) -> None:
    """Equal keys give equal outputs, up to the order of sums, whatever the strides of the inputs."""
    module, example = make(layer, 0.5), inputs(layer)
    expected = module(*example, key=5)

    output = module(*(_transposed_memory(x) for x in example), key=5)

    dropped = layer.dropped(first(expected), module)
    assert torch.equal(layer.dropped(first(output), module), dropped)
    torch.testing.assert_close(first(output), first(expected))


def _transposed_memory(x: Tensor) -> Tensor:
    dims = tuple(reversed(range(x.dim())))
    return x.permute(dims).contiguous().permute(dims)


@law
def the_dtype_does_not_change_the_mask(layer: ComposedLayer) -> None:
    """Equal keys drop the same units in every dtype, and the dtype is kept."""
    masks = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        module = make(layer, 0.5, dtype)
        output = first(module(*inputs(layer, dtype), key=5))
        assert output.dtype == dtype or not output.is_floating_point()
        masks.append(layer.dropped(output, module))
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@law
def a_shorter_batch_has_the_first_masks(layer: ComposedLayer) -> None:
    """Which units of the first samples are dropped does not depend on how many samples follow."""
    if layer.batch_dim is None:
        return
    module, example = make(layer, 0.5), inputs(layer)
    few = [x.narrow(layer.batch_dim, 0, 2) for x in example]

    whole, part = (layer.dropped(first(module(*x, key=5)), module) for x in (example, few))

    assert torch.equal(part, whole.narrow(layer.batch_dim, 0, 2) if whole.dim() > layer.batch_dim else whole)


@law
def a_part_of_the_batch_has_its_masks(layer: ComposedLayer) -> None:
    """A process that says which samples it holds drops the units that one process drops in them.

    If samples share the masks, each process has all of these. Processes with masks of their own drop others.
    """
    module, example = make(layer, 0.5), inputs(layer)
    whole, dim = layer.dropped(first(module(*example, key=5)), module), layer.batch_dim
    held = example if dim is None else [x.narrow(dim, 1, 2) for x in example]

    with shard.holding(shard.Slice(dim or 0, 1, 2 + example[0].shape[dim or 0])):
        part = layer.dropped(first(module(*held, key=5)), module)
    with slices.Holding((Replica(1, frozenset()),)):
        of_another = layer.dropped(first(module(*example, key=5)), module)

    assert torch.equal(part, whole if dim is None or whole.dim() <= dim else whole.narrow(dim, 1, 2))
    assert not torch.equal(of_another, whole)


@law
def exported_programs_are_the_layer(layer: ComposedLayer) -> None:
    """In eval mode to the bit; in training they draw at each run, if a compiler takes the layer."""
    module, example = make(layer, 0.5), inputs(layer)
    exported = torch.export.export(module.eval(), example).module()
    assert equal(exported(*example), module(*example))
    if layer.takes_compiler:
        exported = torch.export.export(module.train(), example).module()
        one, two = (layer.dropped(first(exported(*example)), module) for _ in range(2))
        assert one.any()
        assert not torch.equal(one, two)


@law
def graphs_of_fx_follow_the_mode(layer: ComposedLayer) -> None:
    """A graph that was traced in training holds the module itself, unless it cannot be traced, as any loop cannot."""
    if not layer.takes_compiler:
        return
    module, example = make(layer, 0.5), inputs(layer)
    model = type("Model", (nn.Module,), {"forward": FORWARDS[len(example)]})()
    model.layer = module

    traced = torch.fx.symbolic_trace(model.train())

    assert equal(traced.eval()(*example), module.eval()(*example))
    torch.manual_seed(3)
    dropped = traced.train()(*example)
    torch.manual_seed(3)
    assert equal(dropped, module.train()(*example))


@law
def copies_are_the_layer(layer: ComposedLayer) -> None:
    """A pickled or deep copy, and a fresh module with its state, give its outputs; `repr` shows the rate."""
    module, example = make(layer, 0.25), inputs(layer)
    expected = module(*example, key=5)
    fresh = layer.make(0.25)
    fresh.load_state_dict(module.state_dict())

    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert equal(copied(*example, key=5), expected)
    assert f"{layer.rate}=0.25" in repr(module)


@law
def the_rate_can_be_set(layer: ComposedLayer) -> None:
    """A rate that is assigned to the module is that of its next call."""
    module, example = make(layer, 0.5), inputs(layer)
    setattr(module, layer.rate, 0.0)

    assert equal(module(*example, key=5), make(layer, 0.0)(*example, key=5))


@law
def compiled_equals_eager(layer: ComposedLayer) -> None:
    """Compiled or not, a call from one seed has the same effects; another key is not another graph."""
    if not layer.takes_compiler:
        return
    module = make(layer, 0.5)

    def call(*arguments: Tensor) -> list[Tensor]:
        *example, key = arguments
        return [*tensors(module(*example)), *tensors(module(*example, key=key))]

    example = [x.requires_grad_() if x.is_floating_point() else x for x in inputs(layer)]
    assert graphs(call, [(*example, torch.tensor(key)) for key in (3, 4)]) == 1
