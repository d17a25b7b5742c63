"""The laws that every layer obeys, whatever the shape of its mask, and with its options.

Each law is a function of the layer's record. `test_laws.py` runs each law on each layer; `test_broken.py` shows that
the laws reject broken kernels. Chance is tested with fixed keys and a bound of five standard errors, computed from n
and p.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from helpers import oracle
from helpers.compare import agree, compiled, graphs, observe
from helpers.kernel_grid import DTYPES, same_bits
from torch import Tensor

from dropkit import random
from dropkit.kernels.params import NoiseParams, unscaled
from dropkit.nn.layer import Layer

LAWS: list[Callable[[Layer], None]] = []
_OF_MASKS: set[Callable[[Layer], None]] = set()
_OF_NOISE: set[Callable[[Layer], None]] = set()
RATES = (0.001, 0.1, 0.3, 0.5, 0.7, 0.999)
MANY = 2**17
COMPLEX = (torch.complex64, torch.complex128, torch.complex32)


def law(function: Callable[[Layer], None]) -> Callable[[Layer], None]:
    """Register a law of every layer."""
    LAWS.append(function)
    return function


def law_of_masks(function: Callable[[Layer], None]) -> Callable[[Layer], None]:
    """Register a law of the layers that keep or drop, so that an output shows which elements are kept."""
    _OF_MASKS.add(function)
    return law(function)


def law_of_noise(function: Callable[[Layer], None]) -> Callable[[Layer], None]:
    """Register a law of the layers that use the random number of a mask element."""
    _OF_NOISE.add(function)
    return law(function)


def applies(law: Callable[[Layer], None], layer: Layer) -> bool:
    """Whether a law is one of this layer."""
    return law not in (_OF_MASKS if is_noise(layer) else _OF_NOISE)


def is_noise(layer: Layer) -> bool:
    return isinstance(layer.params(0.5), NoiseParams)


def bound(p: float, n: int) -> float:
    """Five standard errors of the dropped fraction of n mask elements that drop with probability p."""
    return 5 * math.sqrt(p * (1 - p) / n)


def example(layer: Layer, mask_elements: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Ones of the layer's example shape, with so many samples that the mask has at least `mask_elements` elements."""
    shape = list(layer.example_shape)
    # The first dimension whose elements have mask elements of their own: of a sequence, time may come before samples.
    dim = next(dim for dim, size in enumerate(mask_shape(layer, torch.empty(shape))) if size > 1)
    one_sample = math.prod(mask_shape(layer, torch.empty(shape).narrow(dim, 0, 1)))
    shape[dim] = max(shape[dim], math.ceil(mask_elements / one_sample))
    return torch.ones(shape, dtype=dtype)


def dtypes(layer: Layer) -> list[torch.dtype]:
    """Dtypes that the layer drops."""
    return [*DTYPES, *(COMPLEX if layer.takes_complex else ())]


def mask_shape(layer: Layer, input: Tensor) -> tuple[int, ...]:
    """Sizes of the mask of `input`: 1 along each dimension whose elements share a mask element."""
    return tuple(input.shape) if layer.mask_shape is None else layer.mask_shape(input.shape)


def mask_of(layer: Layer, values: Tensor) -> Tensor:
    """The first of the values that share a mask element, for each mask element: a tensor of the mask's shape."""
    return values[tuple(slice(size) for size in mask_shape(layer, values))]


def run(layer: Layer, input: Tensor, p: float, key: Tensor | int, **more: bool) -> Tensor:
    return call(layer, input, p, True, key=key, **more)


def call(layer: Layer, input: Tensor, p: float | Tensor, training: bool, **more: Any) -> Tensor:
    """A call of the layer's function with the options of this record."""
    return layer.function(input, p, training, **layer.options, **more)


def module(layer: Layer, p: float) -> torch.nn.Module:
    """The layer's module with the options of this record."""
    return layer.module(p, **layer.options)


def kept_elements(layer: Layer, output: Tensor, p: float) -> Tensor:
    """Which elements of the output for ones are kept, by their value."""
    return output != torch.tensor(layer.params(p).fill, dtype=output.dtype)


def kept_mask(layer: Layer, p: float, key: Tensor | int, size: int = MANY) -> Tensor:
    """Which of at least `size` mask elements one call keeps, in the order of their index."""
    output = run(layer, example(layer, size), p, key)
    return mask_of(layer, kept_elements(layer, output, p)).flatten()


@law_of_masks
def the_mask_is_the_specified_one(layer: Layer) -> None:
    """Mask element j of key k keeps exactly if word j of the Philox stream of k is at least round(p * 2**32)."""
    for p in RATES:
        for key in (0, -3):
            kept = kept_mask(layer, p, key, size=100)[:100].tolist()
            assert kept == [oracle.keeps(index, key, p) for index in range(len(kept))]


@law_of_masks
def the_realised_rate_is_p(layer: Layer) -> None:
    """The fraction of dropped mask elements differs from p by less than five standard errors."""
    for p in RATES:
        dropped = ~kept_mask(layer, p, key=11)
        assert abs(dropped.double().mean().item() - p) < bound(p, dropped.numel())


@law_of_masks
def every_mask_element_drops_at_rate_p(layer: Layer) -> None:
    """Over many keys each single mask element drops at rate p: no index is favoured."""
    p, draws = 0.3, 400
    keys = random.split(5, draws)

    dropped = sum(~kept_mask(layer, p, key, size=64)[:64] for key in keys) / draws

    # The largest of 64 deviations exceeds five standard errors by chance less than once in 10,000 such tests.
    assert (dropped - p).abs().max() < bound(p, draws)


@law_of_masks
def mask_elements_are_independent(layer: Layer) -> None:
    """Mask elements at every small distance, and one sample apart, drop together as often as independent ones."""
    p = 0.5
    kept = kept_mask(layer, p, key=2)
    one_sample = math.prod(mask_shape(layer, example(layer))[1:])
    for distance in {1, 2, 3, 4, 5, 7, 8, 16, 63, 64, one_sample}:
        agreeing = (kept[distance:] == kept[:-distance]).double().mean().item()
        assert abs(agreeing - 0.5) < bound(0.5, kept.numel() - distance)


@law_of_masks
def neighbouring_keys_are_independent(layer: Layer) -> None:
    """Keys that differ by one, in one bit, or by `fold_in` of neighbours, give masks that agree by chance alone.

    Nor is one mask the other shifted along.
    """
    p, key = 0.5, 1000
    kept = kept_mask(layer, p, key)
    for other in (key + 1, key ^ 2**31, key ^ 2**32, key ^ -(2**63), random.fold_in(key, 0), random.fold_in(key, 1)):
        kept_by_other = kept_mask(layer, p, other)
        for shift in (-4, -1, 0, 1, 4):
            agreeing = (kept == kept_by_other.roll(shift)).double().mean().item()
            assert abs(agreeing - 0.5) < bound(0.5, kept.numel())


@law
def equal_keys_give_equal_bits(layer: Layer) -> None:
    """The same key gives the same output, as an int or a tensor; another key gives another."""
    input = torch.randn(layer.example_shape)

    first = run(layer, input, 0.4, key=3)

    assert torch.equal(run(layer, input, 0.4, key=3), first)
    assert torch.equal(run(layer, input, 0.4, key=torch.tensor(3)), first)
    assert not torch.equal(run(layer, input, 0.4, key=4), first)


@law_of_masks
def shared_elements_drop_together(layer: Layer) -> None:
    """All elements that share a mask element are kept, or all are dropped."""
    kept = kept_elements(layer, run(layer, example(layer), 0.5, key=1), 0.5)

    assert torch.equal(kept, mask_of(layer, kept).expand_as(kept))
    assert kept.any()
    assert not kept.all()


@law_of_masks
def the_mean_is_kept(layer: Layer) -> None:
    """On inputs of mean 0 and variance 1, or of mean 1 for the layers that only scale, training keeps the mean."""
    if layer.make_params is unscaled:
        return
    for p in (0.1, 0.5, 0.8):
        input = example(layer, MANY)
        if layer.params(p).shift:
            # One normal number per mask element, so that mask elements are the only source of chance.
            input = torch.randn(mask_shape(layer, input)).expand_as(input)

        change = mask_of(layer, run(layer, input, p, key=8).double() - input.double())

        assert abs(change.mean().item()) < 5 * change.std().item() / math.sqrt(change.numel())


@law_of_masks
def alpha_dropout_keeps_the_variance(layer: Layer) -> None:
    """The layers that shift keep variance 1 of an input of mean 0 and variance 1."""
    if layer.params(0.5).shift == 0:
        return
    input = torch.randn(example(layer, MANY).shape, dtype=torch.float64)
    shared = [dim for dim, size in enumerate(mask_shape(layer, input)) if size == 1]

    squares = run(layer, input, 0.3, key=8) ** 2 - 1
    squares = squares.mean(shared) if shared else squares

    assert abs(squares.mean().item()) < 5 * squares.std().item() / math.sqrt(squares.numel())


@law_of_masks
def kept_and_dropped_values_are_exact(layer: Layer) -> None:
    """Kept is x * scale + shift in float64, dropped is the fill; nothing else occurs."""
    p = 0.3
    input = torch.randn(layer.example_shape, dtype=torch.float64)
    params = layer.params(p)
    kept = kept_elements(layer, run(layer, torch.ones_like(input), p, key=1), p)

    output = run(layer, input, p, key=1)

    dropped = torch.full_like(input, params.fill)
    assert torch.equal(output, torch.where(kept, input * params.scale + params.shift, dropped))
    if params.shift == 0:
        assert params.scale == (1 if layer.make_params is unscaled else 1 / (1 - p))
        assert params.fill == 0


@law_of_masks
def the_gradient_has_the_mask_of_the_output(layer: Layer) -> None:
    """The gradient of a kept element is the scale, that of a dropped one is 0, also for infinite gradients."""
    p = 0.4
    input = example(layer, dtype=torch.float64).requires_grad_()

    output = run(layer, input, p, key=6)
    upstream = torch.full_like(input, 2.0)
    (gradient,) = torch.autograd.grad(output, input, upstream)

    kept = kept_elements(layer, output.detach(), p)
    assert torch.equal(gradient, torch.where(kept, upstream * layer.params(p).scale, torch.zeros_like(input)))


@law_of_masks
def a_dropped_nan_is_gone(layer: Layer) -> None:
    """Dropped elements are chosen, not multiplied by 0: NaN and infinity do not survive, in output and gradient."""
    kept = kept_elements(layer, run(layer, example(layer), 0.5, key=6), 0.5)
    for poison in (math.nan, math.inf):
        input = example(layer).fill_(poison).requires_grad_()

        output = run(layer, input, 0.5, key=6)
        (gradient,) = torch.autograd.grad(output, input, torch.full_like(input, poison))

        assert torch.equal(output.detach().isfinite(), ~kept)
        assert torch.equal(gradient.isfinite(), ~kept)
        assert (gradient[~kept] == 0).all()


def noise_of(layer: Layer, p: float, key: Tensor | int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """What one call adds to ones, for each of at least `size` mask elements, in the order of their index."""
    input = example(layer, size, dtype)
    return mask_of(layer, run(layer, input, p, key) - input).flatten()


def standard_deviation(layer: Layer, p: float) -> float:
    """Of what a call adds to ones."""
    return math.sqrt(p / (1 - p)) if layer.takes_rate else p


@law_of_noise
def the_number_is_the_specified_one(layer: Layer) -> None:
    """Mask element j of key k uses the normal quantile of word j of the Philox stream of k."""
    for p in (0.001, 0.5, 0.9):
        for key in (0, -3):
            numbers = (noise_of(layer, p, key, 100)[:100] / standard_deviation(layer, p)).tolist()
            specified = [oracle.normal(index, key) for index in range(len(numbers))]
            # The documented error of a number, and the rounding of its sum with 1.
            error = 1.3e-6 + 2**-52 / standard_deviation(layer, p)
            assert max(abs(a - b) for a, b in zip(numbers, specified, strict=True)) < error


@law_of_noise
def shared_elements_have_one_number(layer: Layer) -> None:
    """What is added to ones is the same for all elements that share a mask element, and differs between others."""
    added = run(layer, example(layer), 0.5, key=1)

    assert torch.equal(added, mask_of(layer, added).expand_as(added))
    assert mask_of(layer, added).unique().numel() > 1


@law_of_noise
def the_noise_is_normal(layer: Layer) -> None:
    """Over many mask elements the noise has mean 0, the stated variance, and the normal distribution."""
    for p in (0.1, 0.5, 0.8):
        number = noise_of(layer, p, 8, MANY) / standard_deviation(layer, p)
        n = number.numel()

        assert abs(number.mean().item()) < 5 / math.sqrt(n)
        assert abs((number**2).mean().item() - 1) < 5 * math.sqrt(2 / n)
        below = torch.special.ndtr(number.sort().values)
        # Kolmogorov and Smirnov's distance exceeds this by chance less than once in 10**8 such tests.
        assert (below - torch.arange(1, n + 1) / n).abs().max() < 3.1 / math.sqrt(n)


@law_of_noise
def numbers_are_independent(layer: Layer) -> None:
    """Numbers at small distances, and those of neighbouring keys, are uncorrelated, and so are their squares."""
    number = noise_of(layer, 0.5, 2, MANY)
    others = [number.roll(distance) for distance in (1, 2, 3, 4, 5, 7, 8, 16, 63, 64)]
    others += [noise_of(layer, 0.5, key, MANY) for key in (3, 2 ^ 2**32, 2 ^ -(2**63), random.fold_in(2, 0))]
    for other in others:
        for power in (1, 2):
            correlation = torch.corrcoef(torch.stack([number, other]) ** power)[0, 1].item()
            assert abs(correlation) < 5 / math.sqrt(number.numel())


@law_of_noise
def the_gradient_has_the_number_of_the_output(layer: Layer) -> None:
    """The gradient is multiplied by what multiplies the input: the same factor, or 1 where noise is added."""
    ones = example(layer, dtype=torch.float64)
    input = torch.randn_like(ones).requires_grad_()
    upstream = torch.randn_like(ones)

    (gradient,) = torch.autograd.grad(run(layer, input, 0.4, key=6), input, upstream)

    factor = run(layer, ones, 0.4, key=6) if layer.takes_rate else ones
    assert torch.equal(gradient, upstream * factor)


@law_of_noise
def the_dtype_does_not_change_the_numbers(layer: Layer) -> None:
    """The numbers of every floating dtype are those of float64, rounded, and the dtype is kept."""
    exact = noise_of(layer, 0.5, 5, 64)
    for dtype in DTYPES:
        number = noise_of(layer, 0.5, 5, 64, dtype)
        assert number.dtype == dtype
        # One rounding to the dtype, of a sum below 8, and two of float32 before it.
        assert (number.double() - exact).abs().max() < 8 * torch.finfo(dtype).eps


@law
def eval_and_p_0_return_the_same_object(layer: Layer) -> None:
    """What drops nothing returns its input itself and draws nothing."""
    input = example(layer)
    before = torch.get_rng_state()

    assert call(layer, input, 0.5, False) is input
    assert call(layer, input, 0.0, True) is input
    assert call(layer, input, 0.5, False, inplace=True) is input
    assert module(layer, 0.5).eval()(input) is input
    assert torch.equal(torch.get_rng_state(), before)


@law_of_masks
def p_1_gives_zeros(layer: Layer) -> None:
    """At p = 1 everything is 0, also what was NaN, with gradient 0, and nothing is drawn."""
    input = example(layer).fill_(math.nan).requires_grad_()
    before = torch.get_rng_state()

    output = call(layer, input, 1.0, True)
    (gradient,) = torch.autograd.grad(output.sum(), input)

    assert torch.equal(output, torch.zeros_like(output))
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert torch.equal(torch.get_rng_state(), before)


@law
def memory_layout_does_not_change_the_bits(layer: Layer) -> None:
    """Equal keys give equal outputs for every order of the dimensions in memory, and strides are kept."""
    input = torch.randn(layer.example_shape)
    expected = run(layer, input, 0.5, key=5)
    dims = list(range(input.dim()))
    for order in (dims[::-1], dims[1:] + dims[:1], dims[-1:] + dims[:-1]):
        stored = input.permute(order).contiguous().permute([order.index(dim) for dim in dims])

        output = run(layer, stored, 0.5, key=5)

        assert torch.equal(output, expected)
        assert output.stride() == stored.stride()
    assert torch.equal(run(layer, torch.cat([input, input], -1)[..., : layer.example_shape[-1]], 0.5, key=5), expected)


@law_of_masks
def the_dtype_does_not_change_the_mask(layer: Layer) -> None:
    """Equal keys keep the same elements in every floating and complex dtype, and the dtype is kept."""
    masks = []
    for dtype in dtypes(layer):
        output = run(layer, example(layer, dtype=dtype), 0.5, key=5)
        assert output.dtype == dtype
        masks.append(kept_elements(layer, output, 0.5))
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@law_of_masks
def complex_numbers_are_pairs(layer: Layer) -> None:
    """A complex number has one mask element; its parts, and those of its gradient, become what real numbers become."""
    if not layer.takes_complex:
        return
    for dtype in COMPLEX:
        pairs = torch.randn(*layer.example_shape, 2).to(dtype.to_real())
        pairs[0], pairs[1, ..., 0] = math.nan, math.inf
        input = torch.view_as_complex(pairs).requires_grad_()
        kept = kept_elements(layer, run(layer, torch.ones(layer.example_shape), 0.3, key=5), 0.3)
        expected = torch.stack([run(layer, part, 0.3, key=5) for part in pairs.unbind(-1)], -1)

        output = run(layer, input, 0.3, key=5)
        (gradient,) = torch.autograd.grad(output, input, input.detach())

        for result in (output.detach(), gradient):
            assert same_bits(torch.view_as_real(result), expected)
            assert same_bits(torch.view_as_real(result)[~kept], torch.zeros_like(pairs[~kept]))


@law
def a_shorter_batch_has_the_first_masks(layer: Layer) -> None:
    """The mask of the first samples does not depend on how many follow."""
    input = torch.randn(layer.example_shape)

    assert torch.equal(run(layer, input[:3], 0.5, key=5), run(layer, input, 0.5, key=5)[:3])


@law
def in_place_gives_the_same_bits(layer: Layer) -> None:
    """In place writes what out of place returns, returns its input and counts as one change of it."""
    input = torch.randn(layer.example_shape)
    expected = run(layer, input, 0.5, key=5)
    version = input._version

    output = run(layer, input, 0.5, key=5, inplace=True)

    assert output is input
    assert torch.equal(output, expected)
    assert output._version == version + 1


@law
def seeds_decide_what_is_drawn(layer: Layer) -> None:
    """Equal seeds give equal masks, calls that follow one another different ones, whatever the size drawn before."""
    input = torch.randn(layer.example_shape)
    torch.manual_seed(1)
    first, second = call(layer, input, 0.5, True), call(layer, input, 0.5, True)

    torch.manual_seed(1)
    call(layer, input[:2], 0.5, True)
    again = call(layer, input, 0.5, True)
    generator = torch.Generator().manual_seed(1)
    by_generator = call(layer, input, 0.5, True, generator=generator)

    assert not torch.equal(first, second)
    assert torch.equal(again, second)
    assert torch.equal(by_generator, first)


@law
def the_module_is_the_function(layer: Layer) -> None:
    """In training the module gives what its function gives for the same key, and `repr` shows its arguments."""
    input = torch.randn(layer.example_shape)
    drops = module(layer, 0.3)

    assert torch.equal(drops(input, key=5), run(layer, input, 0.3, key=5))
    options = "".join(f", {name}={value}" for name, value in layer.options.items())
    first = "p" if layer.takes_rate else "std"
    assert repr(drops) == f"{layer.name}({first}=0.3, inplace=False{options})"


@law
def compiled_equals_eager(layer: Layer) -> None:
    """Compiled or not, a call from one seed gives the same output and gradient and moves the generator as far."""

    def drop(input: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        first, second = (call(layer, input, 0.5, True) for _ in range(2))
        return first, second, run(layer, input, 0.5, key)

    inputs = torch.randn(layer.example_shape, requires_grad=True), torch.tensor(5)

    assert agree(observe(compiled(drop), *inputs), observe(drop, *inputs))


@law
def one_graph_serves_many_calls(layer: Layer) -> None:
    """Neither another key nor another rate in a tensor is another graph."""

    def drop(input: Tensor, p: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        return call(layer, input, p, True), call(layer, input, p, True, key=key)

    input = torch.randn(layer.example_shape, requires_grad=True)
    last = 0.9 if is_noise(layer) else 1.0

    assert (
        graphs(drop, [(input, torch.tensor(p), torch.tensor(key)) for key, p in enumerate((0.3, 0.0, 0.5, last))]) == 1
    )
