"""Tests of the laws: code that is broken on purpose is rejected by at least one of them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import laws

from dropkit import kernels, random
from dropkit.kernels import reference
from dropkit.kernels.mask import row_major
from dropkit.kernels.numbers import UNIFORM
from dropkit.kernels.params import IDENTITY
from dropkit.nn import complex_numbers, dispatch
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, custom_op

Law = Callable[[Layer], None]
Patch = Callable[[pytest.MonkeyPatch], None]
BROKEN: dict[str, tuple[Patch, Law]] = {}
_drop = kernels.drop
_apply_same_mask = autograd.apply_same_mask
_gradient = custom_op._gradient


def broken(rejected_by: Law) -> Callable[[Patch], None]:
    """Register a fault with a law that must reject it."""

    def listed(patch: Patch) -> None:
        BROKEN[patch.__name__] = patch, rejected_by

    return listed


def kernel(patch: pytest.MonkeyPatch, drop: Callable[..., None]) -> None:
    """Every call runs `drop(output, input, mask)`."""
    patch.setattr(kernels, "drop", drop)
    patch.setattr(kernels, "dropped_on_cpu", kernels.dropped)


def gradient(patch: pytest.MonkeyPatch, apply_same_mask: Callable[..., torch.Tensor]) -> None:
    """Every backward pass runs `apply_same_mask(grad, mask, strides)`."""
    patch.setattr(autograd, "apply_same_mask", apply_same_mask)
    patch.setattr(autograd, "is_plain", lambda _: False)


@broken(laws.the_realised_rate_is_p)
def eight_bit_threshold(patch):
    def drop(output, input, mask):
        rounded = round(mask.params.threshold / 2**24) * 2**24
        _drop(output, input, mask._replace(params=mask.params._replace(threshold=rounded)))

    kernel(patch, drop)


@broken(laws.kept_and_dropped_values_are_exact)
def no_scale(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(params=mask.params._replace(scale=1.0)))

    kernel(patch, drop)


@broken(laws.the_gradient_has_the_mask_of_the_output)
def fresh_mask_in_backward(patch):
    def fresh(grad, mask, strides=None):
        return _apply_same_mask(grad, mask._replace(key=mask.key + 1), strides)

    gradient(patch, fresh)


@broken(laws.the_gradient_has_the_mask_of_the_output)
def no_mask_in_backward(patch):
    gradient(patch, lambda grad, mask, strides=None: grad * mask.params.scale)


@broken(laws.memory_layout_does_not_change_the_bits)
def memory_order_index(patch):
    def drop(output, input, mask):
        shared = [stride == 0 for stride in mask.strides or (1,) * input.dim()]
        in_memory = [0 if same else stride for same, stride in zip(shared, input.stride(), strict=True)]
        _drop(output, input, mask._replace(strides=in_memory))

    kernel(patch, drop)


@broken(laws.the_realised_rate_is_p)
def inverted_p(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(params=mask.params._replace(threshold=2**32 - mask.params.threshold)))

    kernel(patch, drop)


@broken(laws.a_dropped_nan_is_gone)
def multiplied_by_zero(patch):
    def drop(output, input, mask):
        ones = torch.empty_like(input)
        _drop(ones, torch.ones_like(input), mask)
        output.copy_(input * ones)

    kernel(patch, drop)


@broken(laws.mask_elements_are_independent)
def one_mask_element_for_two(patch):
    def drop(output, input, mask):
        params, strides = mask.params, mask.strides or row_major(input.shape)
        indices = reference.mask_indices(input.shape, strides, mask.offset, input.device)
        keep = reference.words(indices // 2, torch.tensor(int(mask.key))) >= params.threshold
        output.copy_(torch.where(keep, input * params.scale + params.shift, params.fill))

    kernel(patch, drop)


@broken(laws.neighbouring_keys_are_independent)
def half_of_the_key(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(key=int(mask.key) & 0xFFFFFFFF))

    kernel(patch, drop)


@broken(laws.neighbouring_keys_are_independent)
def one_stream_for_all_keys(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(key=0, offset=mask.offset + int(mask.key)))

    kernel(patch, drop)


@broken(laws.the_dtype_does_not_change_the_mask)
def mask_by_dtype(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(key=int(mask.key) + input.element_size()))

    kernel(patch, drop)


@broken(laws.complex_numbers_are_pairs)
def a_mask_element_for_each_part(patch):
    def of_pairs(layer):
        return replace(layer, mask_shape=lambda shape: (*laws.mask_shape(layer, torch.empty(shape[:-1])), 2))

    patch.setattr(complex_numbers, "_cached", of_pairs)


@broken(laws.the_noise_is_normal)
def uniform_instead_of_normal(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(params=mask.params._replace(distribution=UNIFORM)))

    kernel(patch, drop)


@broken(laws.the_noise_is_normal)
def a_tenth_too_much_noise(patch):
    def drop(output, input, mask):
        _, factor, term = mask.params
        _drop(output, input, mask._replace(params=mask.params._replace(factor=factor * 1.1, term=term * 1.1)))

    kernel(patch, drop)


@broken(laws.the_number_is_the_specified_one)
def mirrored_numbers(patch):
    def drop(output, input, mask):
        _, factor, term = mask.params
        _drop(output, input, mask._replace(params=mask.params._replace(factor=-factor, term=-term)))

    kernel(patch, drop)


@broken(laws.numbers_are_independent)
def one_number_for_all_keys(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(key=0))

    kernel(patch, drop)


@broken(laws.the_gradient_has_the_number_of_the_output)
def other_numbers_in_backward(patch):
    def other(grad, mask, strides=None):
        return (
            grad * 1.5 if mask.params.gradient is IDENTITY else _apply_same_mask(grad, mask._replace(key=-1), strides)
        )

    gradient(patch, other)


@broken(laws.the_dtype_does_not_change_the_numbers)
def numbers_by_dtype(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(key=int(mask.key) + input.element_size()))

    kernel(patch, drop)


@broken(laws.shared_elements_have_one_number)
def the_same_number_for_all(patch):
    def drop(output, input, mask):
        _drop(output, input, mask._replace(strides=(0,) * input.dim()))

    kernel(patch, drop)


@broken(laws.eval_and_p_0_return_the_same_object)
def drops_in_eval(patch):
    as_it_is = dispatch.drop

    def drop(layer, input, p, training, *rest):
        return as_it_is(layer, input, p, True, *rest)

    patch.setattr(dispatch, "drop", drop)


@broken(laws.compiled_equals_eager)
def fresh_mask_in_compiled_backward(patch):
    def gradient(ctx, grad):
        strides, offset = ctx.indices
        ctx.indices = strides, offset + 1
        return _gradient(ctx, grad)

    patch.setattr(custom_op, "_gradient", gradient)


@broken(laws.compiled_equals_eager)
def equal_draws_are_merged(patch):
    def draw(device, p=None):
        return torch.ops.dropkit.draw_v1((), device=device, p=p, after=torch.zeros((), dtype=torch.int64))

    patch.setattr(random, "draw_traced", draw)


@broken(laws.one_graph_serves_many_calls)
def key_of_the_first_call(patch):
    as_it_is = random.check_key
    patch.setattr(random, "check_key", lambda key, *rest: 0 if torch.compiler.is_compiling() else as_it_is(key, *rest))


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_kernels_are_rejected(fault, layer, monkeypatch):
    """No layer with this fault obeys the law that the fault breaks."""
    if fault == "equal_draws_are_merged" and torch.__version__ >= "2.14":
        pytest.skip("torch 2.14 keeps equal draws apart by itself")
    patch, rejected_by = BROKEN[fault]
    if not laws.applies(rejected_by, layer):
        pytest.skip("this law is not one of layers of this kind")
    if fault == "fresh_mask_in_compiled_backward" and layer.params(0.5).gradient is IDENTITY:
        pytest.skip("the gradient of this layer has no mask")
    if rejected_by is laws.complex_numbers_are_pairs and not layer.takes_complex:
        pytest.skip("this layer drops no complex numbers")
    patch(monkeypatch)

    with pytest.raises(AssertionError):
        rejected_by(layer)
