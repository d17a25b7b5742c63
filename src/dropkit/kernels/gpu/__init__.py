"""The GPU kernel: Triton, for NVIDIA and AMD.

The key is read from memory on the device, so a call waits for nothing, compiles nothing for a new key or rate, and
draws anew at every replay of a captured graph.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels.params import DropoutParams
from dropkit.kernels.reference import row_major

missing = None if find_spec("triton") else "Triton is not installed (pip install dropkit[gpu])"

# Elements that a program of four warps takes.
_BLOCK = 2048
# Outer dimensions that the kernel for any strides knows, once what can be merged is.
_OUTER = 4
_WARPS = 4


@dataclass(frozen=True, slots=True)
class _Dim:
    """A dimension: how many places, and how far from one to the next in coins and in both memories."""

    size: int
    step: int
    input: int
    output: int

    def merges(self, inner: _Dim) -> bool:
        """Whether this dimension and the next inner one are one."""
        return (self.step, self.input, self.output) == tuple(
            inner.size * far for far in (inner.step, inner.input, inner.output)
        )


def drop(
    output: Tensor,
    input: Tensor,
    key: Tensor | int,
    values: DropoutParams,
    steps: Sequence[int] | None,
    base: int,
    add: Tensor | None = None,
) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`."""
    if input.numel() == 0:
        return
    key = key_there(key, input)
    whole = _Dim(input.numel(), 1, 1, 1)
    if steps is None and input.is_contiguous() and output.is_contiguous():
        dims = [whole]
    else:
        dims = _merged(input, output, row_major(input.shape) if steps is None else steps)
    if values.threshold >= 2**32:
        output.fill_(values.fill)
    elif dims == [whole] and base % 4 == 0:
        together = add is not None and add.is_contiguous() and add.dtype == input.dtype
        _flat(output, input, key, values, base, add if together else None)
        add = None if together else add
    else:
        _walk(output, input, key, values, base, dims)
    if add is not None:
        output.add_(add)


def detail() -> str:
    # The module, since its distribution is called otherwise where it comes with torch for AMD or Intel.
    try:
        triton = import_module("triton")
    except Exception as error:
        return f"Triton, which cannot be imported ({error})"
    return f"Triton {getattr(triton, '__version__', 'of an unknown version')}"


def _flat(
    output: Tensor, input: Tensor, key: Tensor | int, values: DropoutParams, base: int, add: Tensor | None
) -> None:
    count = input.numel()
    with there(input):
        _code().flat[(parts(count, _BLOCK),)](
            output, input, output if add is None else add, key, *numbers(values), base, count,
            AFFINE=_affine(values), ADD=add is not None, BLOCK=_BLOCK, num_warps=_WARPS, **constants(key),
        )  # fmt: skip


def _walk(output: Tensor, input: Tensor, key: Tensor | int, values: DropoutParams, base: int, dims: list[_Dim]) -> None:
    inner, outer = dims[-1], dims[:-1]
    if len(outer) > _OUTER:
        for place, (source, target) in enumerate(_slices(input, output, dims)):
            _walk(target, source, key, values, base + place * dims[0].step, dims[1:])
        return
    code = _code()
    aligned = base % 4 == 0 and all(one.step % 4 == 0 for one in outer)
    kind = code.ONE if inner.step == 0 else code.FOURS if inner.step == 1 and aligned else code.ANY
    rows = 1
    for one in outer:
        rows *= one.size
    # Where no two coins share a block, four times as much is computed for an element.
    block = _BLOCK if kind is not code.ANY else _BLOCK // 4
    across = min(max(8, power_of_two(inner.size)), block // 2)
    down = min(power_of_two(rows), block // across)
    strides = [number for one in outer for number in (one.size, one.input, one.output, one.step)]
    strides += [1, 0, 0, 0] * (_OUTER - len(outer))
    with there(input):
        code.tiles[(parts(rows, down) * parts(inner.size, across),)](
            output, input, key, *numbers(values), base,
            rows, inner.size, inner.input, inner.output, inner.step, *strides,
            AFFINE=_affine(values), KIND=kind.value, OUTER=len(outer), ROWS=down, COLUMNS=across, num_warps=_WARPS,
            **constants(key),
        )  # fmt: skip


def numbers(values: DropoutParams) -> tuple[int, ...]:
    """The values, fractions as their bits."""
    return values.threshold, *map(as_bits, values[1:])


def as_bits(number: float) -> int:
    """Of a double: Triton would hand it on as a single."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def key_there(key: Tensor | int, input: Tensor) -> Tensor | int:
    """A key that the device of `input` can read."""
    if not isinstance(key, Tensor) or key.device == input.device:
        return key
    return int(key) if key.is_cpu else key.to(input.device)


def there(input: Tensor) -> AbstractContextManager[object]:
    """Where Triton is to launch: it takes the current device for the right one."""
    if input.is_cpu or input.device.index == torch.accelerator.current_device_index():
        return nullcontext()
    return torch.accelerator.device_index(input.device.index)


def constants(key: Tensor | int) -> dict[str, Any]:
    """What every kernel is compiled for. Each operation is rounded by itself, as everywhere."""
    return {"KEY_IN_MEMORY": isinstance(key, Tensor), "enable_fp_fusion": False}


def _slices(input: Tensor, output: Tensor, dims: list[_Dim]) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors, place by place along the outermost of these dimensions."""
    sizes = [one.size for one in dims]
    source = input.as_strided(sizes, [one.input for one in dims])
    target = output.as_strided(sizes, [one.output for one in dims])
    yield from zip(source, target, strict=True)


def _merged(input: Tensor, output: Tensor, steps: Sequence[int]) -> list[_Dim]:
    """The dimensions in the order of the output's memory, outermost first, those of size 1 left out."""
    dims = [
        _Dim(*one) for one in zip(input.shape, steps, input.stride(), output.stride(), strict=True) if one[0] != 1
    ] or [_Dim(1, 1, 1, 1)]
    dims.sort(key=lambda one: -one.output)
    merged = dims[:1]
    for inner in dims[1:]:
        outer = merged[-1]
        if outer.merges(inner):
            merged[-1] = _Dim(outer.size * inner.size, inner.step, inner.input, inner.output)
        else:
            merged.append(inner)
    return merged


def _affine(values: DropoutParams) -> bool:
    """Whether there is more to do than to scale what is kept."""
    return bool(values.shift or values.fill)


def parts(size: int, each: int) -> int:
    """How many parts of `each` cover `size`."""
    return -(-size // each)


def power_of_two(number: int) -> int:
    """The smallest that is at least `number`."""
    return 1 << (number - 1).bit_length()


@lru_cache(maxsize=1)
def _code() -> Any:
    """Triton takes a while to import, so it waits for the first call."""
    from dropkit.kernels.gpu import strided

    return strided
