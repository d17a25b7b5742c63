"""A key for each slice of a tensor: every kernel gives in one call the bits of a call for each slice."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from helpers.kernel_grid import DTYPES, LAYOUTS, same_bits
from helpers.triton_device import INTERPRETED, needs_interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dropkit.kernels import cpu, gpu, reference
from dropkit.kernels.key import read
from dropkit.kernels.mask import Mask, mask_strides, row_major
from dropkit.kernels.params import alpha, gaussian, inverted

Drop = Callable[[Tensor, Tensor, Mask], None]

KERNELS = [
    pytest.param(cpu.drop, id="cpu", marks=pytest.mark.extension),
    pytest.param(reference.drop, id="reference"),
    pytest.param(
        gpu.drop,
        id="gpu",
        marks=[
            pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
            needs_interpreter,
            pytest.mark.filterwarnings("ignore:overflow encountered"),
        ],
    ),
]
kernels = pytest.mark.parametrize("drop", KERNELS)


def run(drop: Drop, input: Tensor, mask: Mask) -> Tensor:
    output = torch.empty_like(input)
    drop(output, input, mask)
    return output


def slice_by_slice(input: Tensor, mask: Mask) -> Tensor:
    """The oracle: a call of the reference for each slice, with one key."""
    output, strides, dims = torch.empty_like(input), mask.strides_for(input.shape), mask.slice_dims
    for place in itertools.product(*map(range, input.shape[:dims])):
        first = mask.offset + sum(at * stride for at, stride in zip(place, strides, strict=False))
        reference.drop(output[place], input[place], Mask(read(mask.key[place]), mask.params, strides[dims:], first))
    return output


def keys(shape: torch.Size, order: str, pairs: bool) -> Tensor:
    """Keys or pairs in rows, in columns, or the same along the first dimension."""
    shape = (*shape, 2) if pairs else tuple(shape)
    whole = torch.randint(-(2**62), 2**62, shape[1:] if order == "expanded" else shape)
    if order == "columns":
        whole = torch.stack([whole, whole], -1)[..., 0]
    return (whole.view(torch.uint64) if pairs else whole).expand(shape)


# The layouts with a dimension for slices; in those with the last one, a slice has only one element.
SLICED = [
    (name, dims) for name, make in LAYOUTS.items() if (rank := make().dim()) for dims in range(1, min(rank, 3) + 1)
]
INDICES: dict[str, Callable[[Tensor], tuple[int, ...] | None]] = {
    "whole tensor": lambda x: None,
    "each slice from 0 on": lambda x: (0, *row_major(x.shape[1:])),
    "channel": lambda x: mask_strides((*x.shape[:2], *(1,) * (x.dim() - 2))),
    "any": lambda x: tuple(7 * d + 5 for d in range(x.dim())),
}


@pytest.mark.parametrize("indices", INDICES)
@pytest.mark.parametrize(("layout", "dims"), SLICED)
@kernels
def test_one_call_gives_the_bits_of_a_call_for_each_slice(monkeypatch, drop, layout, dims, indices):
    """For every layout, one to three dimensions of keys, and keys or pairs in any strides."""
    monkeypatch.setattr(gpu, "_BLOCK", 2**15)
    input = LAYOUTS[layout]()
    while input.shape[:dims].numel() > 40:  # as many calls of the oracle are enough
        input = input[: input.shape[0] // 2] if input.shape[0] > 1 else input[:, : input.shape[1] // 2]
    shape, strides = input.shape[:dims], INDICES[indices](input)
    order = ("rows", "columns", "expanded")[dims - 1]
    offset = 2**32 - 17 if indices == "any" else 0

    mask = Mask(keys(shape, order, pairs=indices in ("whole tensor", "any")), inverted(0.4), strides, offset)

    assert same_bits(run(drop, input, mask), slice_by_slice(input, mask))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("params", [inverted(0.3), alpha(0.3), inverted(1.0), gaussian(0.3)], ids=str)
@kernels
def test_every_dtype_and_kind_has_a_key_for_each_slice(drop, dtype, params):
    """The numbers are those of the call for each slice, too; at p = 1 no key is read."""
    if drop is gpu.drop and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter truncates bfloat16")
    input = torch.randn(9, 5, 33).to(dtype)
    mask = Mask(torch.arange(45).view(9, 5) - 20, params)

    assert same_bits(run(drop, input, mask), slice_by_slice(input, mask))


@pytest.mark.extension
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_strides_have_a_key_for_each_slice(data):
    """Any shape, memory order, mask strides and number of key dimensions, also with a few threads."""
    shape = data.draw(st.lists(st.integers(1, 6) | st.sampled_from([63, 65, 130]), min_size=1, max_size=4))
    dims = data.draw(st.integers(0, len(shape)))
    if torch.Size(shape).numel() > 20_000 or torch.Size(shape[:dims]).numel() > 150:
        return
    order = data.draw(st.permutations(range(len(shape))))
    input = torch.randn([shape[d] for d in order]).permute([order.index(d) for d in range(len(shape))])
    strides = tuple(data.draw(st.sampled_from([stride, stride, 0, 1, 4, 3])) for stride in row_major(shape))
    order, pairs = data.draw(st.sampled_from(["rows", "columns"])), data.draw(st.booleans())
    mask = Mask(keys(torch.Size(shape[:dims]), order, pairs), inverted(0.5), strides, data.draw(st.integers(0, 99)))

    assert same_bits(run(cpu.drop, input, mask), slice_by_slice(input, mask))


LARGE: dict[str, tuple[Callable[[], Tensor], int]] = {
    "short slices": (lambda: torch.randn(6000, 16), 1),
    "slices of a few rows": (lambda: torch.randn(40, 30, 100), 1),
    "long slices": (lambda: torch.randn(3, 150_000), 1),
    "one long slice": (lambda: torch.randn(1, 300, 1000), 2),
    "slices side by side": (lambda: torch.randn(300, 700).t(), 1),
    "some slices side by side": (lambda: torch.randn(4, 30, 700).mT, 2),
}


@pytest.mark.extension
@pytest.mark.parametrize("name", LARGE)
def test_threads_do_not_change_the_bits(name):
    """Slices are divided between threads, and long slices are divided themselves."""
    make, dims = LARGE[name]
    input = make()
    mask = Mask(keys(input.shape[:dims], "rows", pairs=True), inverted(0.5))
    before = torch.get_num_threads()

    outputs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs.append(run(cpu.drop, input, mask))
    torch.set_num_threads(before)

    expected = run(reference.drop, input, mask)
    assert all(same_bits(output, expected) for output in outputs)


@kernels
def test_in_place_and_added(drop):
    """In place the bits are the same, and an addition comes after the dropout."""
    input, add = torch.randn(8, 20), torch.randn(8, 20)
    mask = Mask(torch.arange(8), inverted(0.5))
    expected = slice_by_slice(input, mask)

    assert same_bits(run(lambda *call: drop(*call, add), input, mask), expected + add)
    drop(input, input, mask)
    assert same_bits(input, expected)


@pytest.mark.parametrize("size", [1, 16, 70])
@kernels
def test_the_output_may_lie_otherwise_than_the_input(drop, size):
    """Slices that lie side by side in one of the two tensors and with gaps or transposed in the other."""
    mask, dense = Mask(torch.arange(20), inverted(0.5)), torch.randn(20, size)
    places = [torch.empty(20, size), torch.empty(20, size + 3)[:, :size], torch.empty(size, 20).t()]
    for input, output in itertools.product(places, places):
        output = output.clone() if output is input else output
        input.copy_(dense)

        drop(output, input, mask)

        assert torch.equal(output, slice_by_slice(dense, mask))


@kernels
@pytest.mark.parametrize(("shape", "dims"), [((0, 4), 1), ((4, 0), 1), ((4, 0, 3), 2), ((0, 0), 2)])
def test_empty_slices_are_left_alone(drop, shape, dims):
    """A tensor without elements is not accessed, whether slices are empty or there are none."""
    mask = Mask(torch.zeros(shape[:dims], dtype=torch.int64), inverted(0.5))

    assert run(drop, torch.empty(shape), mask).shape == shape


def test_more_outer_dimensions_than_the_gpu_kernel_takes(monkeypatch):
    """Slices of six dimensions in reverse order, which no two can be merged of."""
    if gpu.missing is not None or not INTERPRETED:
        pytest.skip("Triton does not interpret its kernels here")
    input = torch.randn(2, 3, 2, 3, 2, 3).permute(5, 4, 3, 2, 1, 0)
    shape = input.shape[:3]
    for pairs in (False, True):
        mask = Mask(keys(shape, "columns", pairs), inverted(0.5), None, 3)
        assert same_bits(run(gpu.drop, input, mask), slice_by_slice(input, mask))
