"""The suite's own test: each of these faults, put in on purpose, is rejected by at least one law."""

from collections.abc import Callable

import pytest
import torch
from helpers import laws

from dropkit import kernels, random
from dropkit.kernels import reference
from dropkit.nn import LAYERS
from dropkit.nn import layer as layer_file
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, custom_op

Law = Callable[[Layer], None]
Patch = Callable[[pytest.MonkeyPatch], None]
BROKEN: dict[str, tuple[Patch, Law]] = {}
_drop = kernels.drop
_again = autograd._again
_gradient = custom_op._gradient


def broken(rejected_by: Law) -> Callable[[Patch], None]:
    """A fault, and a law that must reject it, the one that a user would notice broken."""

    def listed(patch: Patch) -> None:
        BROKEN[patch.__name__] = patch, rejected_by

    return listed


def kernel(patch: pytest.MonkeyPatch, drop: Callable[..., None]) -> None:
    """Every call runs `drop(output, input, key, values, steps, base)`."""
    patch.setattr(kernels, "drop", drop)


@broken(laws.the_realised_rate_is_p)
def eight_bit_threshold(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, key, values._replace(threshold=round(values.threshold / 2**24) * 2**24), steps, base)

    kernel(patch, drop)


@broken(laws.kept_and_dropped_values_are_exact)
def no_scale(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, key, values._replace(scale=1.0), steps, base)

    kernel(patch, drop)


@broken(laws.the_gradient_has_the_mask_of_the_output)
def fresh_mask_in_backward(patch):
    def again(grad, coins, strides):
        key, *rest = coins
        return _again(grad, (key + 1, *rest), strides)

    patch.setattr(autograd, "_again", again)


@broken(laws.the_gradient_has_the_mask_of_the_output)
def no_mask_in_backward(patch):
    patch.setattr(autograd, "_again", lambda grad, coins, strides: grad * coins[1].scale)


@broken(laws.memory_layout_does_not_change_the_bits)
def memory_order_index(patch):
    def drop(output, input, key, values, steps, base):
        shared = [step == 0 for step in steps or (1,) * input.dim()]
        in_memory = [0 if same else size for same, size in zip(shared, input.stride(), strict=True)]
        _drop(output, input, key, values, in_memory, base)

    kernel(patch, drop)


@broken(laws.the_realised_rate_is_p)
def inverted_p(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, key, values._replace(threshold=2**32 - values.threshold), steps, base)

    kernel(patch, drop)


@broken(laws.a_dropped_nan_is_gone)
def multiplied_by_zero(patch):
    def drop(output, input, key, values, steps, base):
        ones = torch.empty_like(input)
        _drop(ones, torch.ones_like(input), key, values, steps, base)
        output.copy_(input * ones)

    kernel(patch, drop)


@broken(laws.units_are_independent)
def one_coin_for_two_units(patch):
    def drop(output, input, key, values, steps, base):
        coins = reference.coins(input.shape, steps or reference.row_major(input.shape), base, input.device)
        keep = reference.words(coins // 2, torch.tensor(int(key))) >= values.threshold
        output.copy_(torch.where(keep, input * values.scale + values.shift, values.fill))

    kernel(patch, drop)


@broken(laws.neighbouring_keys_are_independent)
def half_of_the_key(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, int(key) & 0xFFFFFFFF, values, steps, base)

    kernel(patch, drop)


@broken(laws.neighbouring_keys_are_independent)
def one_stream_for_all_keys(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, 0, values, steps, base + int(key))

    kernel(patch, drop)


@broken(laws.the_dtype_does_not_change_the_mask)
def mask_by_dtype(patch):
    def drop(output, input, key, values, steps, base):
        _drop(output, input, int(key) + input.element_size(), values, steps, base)

    kernel(patch, drop)


@broken(laws.eval_and_p_0_return_the_same_object)
def drops_in_eval(patch):
    layer_type = type(LAYERS[0])
    as_it_is = layer_type.drop

    def drop(self, input, p, training, *rest):
        return as_it_is(self, input, p, True, *rest)

    patch.setattr(layer_type, "drop", drop)


@broken(laws.compiled_equals_eager)
def fresh_mask_in_compiled_backward(patch):
    def gradient(ctx, grad):
        steps, base = ctx.where
        ctx.where = steps, base + 1
        return _gradient(ctx, grad)

    patch.setattr(custom_op, "_gradient", gradient)


@broken(laws.compiled_equals_eager)
def equal_draws_are_merged(patch):
    def draw(device, p=None):
        return torch.ops.dropkit.draw_v1((), device=device, p=p, after=torch.zeros((), dtype=torch.int64))

    patch.setattr(layer_file, "draw", draw)


@broken(laws.one_graph_serves_many_calls)
def key_of_the_first_call(patch):
    as_it_is = random.checked
    patch.setattr(random, "checked", lambda key, *rest: 0 if torch.compiler.is_compiling() else as_it_is(key, *rest))


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_kernels_are_rejected(fault, layer, monkeypatch):
    """No layer with this fault obeys the law that the fault breaks."""
    if fault == "equal_draws_are_merged" and torch.__version__ >= "2.14":
        pytest.skip("torch 2.14 keeps equal draws apart by itself")
    patch, rejected_by = BROKEN[fault]
    patch(monkeypatch)

    with pytest.raises(AssertionError):
        rejected_by(layer)
