"""The GPU kernel: Triton, for NVIDIA and AMD.

A key that was drawn on the host is passed by value (`keys`), and any other is read from memory on the device: so a call
never waits for the device, compiles nothing for a new key or rate, and gives a new mask at every replay of a captured
graph.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from dropkit.kernels.gpu import keys
from dropkit.kernels.gpu.launch import KNOWN, Constants, is_known, launcher
from dropkit.kernels.key import Key, as_tensor, batch_shape, is_pair, read
from dropkit.kernels.mask import Mask
from dropkit.kernels.numbers import NORMAL
from dropkit.kernels.params import IDENTITY, DropoutParams, NoiseParams, ScheduledParams

missing = None if find_spec("triton") else 'Triton is not installed: pip install "dropkit[gpu]"'

# Elements for a program of four warps.
_BLOCK = 2048
# Outer dimensions that the kernel for any strides takes, after merging.
_OUTER = 4
_WARPS = 4


# A rate in memory, and the function of `PARAMS_BY_NAME` that the kernel calls on it.
_Rate: TypeAlias = "tuple[Tensor | int, str]"
# There is none: the numbers are passed.
_PASSED: _Rate = 0, ""


class _Dim(NamedTuple):
    """A dimension: its size, and its strides in the mask, in both memories and in the keys."""

    size: int
    mask: int
    input: int
    output: int
    key: int = 0

    @property
    def strides(self) -> tuple[int, ...]:
        return self.input, self.output, self.mask, self.key

    def merges(self, inner: _Dim) -> bool:
        """Whether this dimension and the next inner one can be walked as one."""
        return self.strides == tuple(inner.size * stride for stride in inner.strides)


def drop(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`."""
    if input.numel() == 0:
        return
    params, rate = mask.params, _PASSED
    if isinstance(params, ScheduledParams) and params.p.device == input.device and params.form is not IDENTITY:
        params, rate = params.form, (params.p, params.function)
    params = params.resolve()
    mask = Mask(readable_key(mask.key, input), params, mask.strides, mask.offset)
    whole = _Dim(input.numel(), 1, 1, 1)
    is_flat = _is_flat(mask) and input.is_contiguous() and output.is_contiguous()
    dims = [whole] if is_flat else _merged(input, output, mask)
    if isinstance(params, DropoutParams) and params.drops_all:
        output.fill_(params.fill)
    elif dims == [whole] and mask.offset % 4 == 0:
        if add is not None and add.is_contiguous() and add.dtype == input.dtype:
            _flat(output, input, mask, rate, add, "added")
            return
        _flat(output, input, mask, rate)
    else:
        _strided(output, input, mask, rate, dims)
    if add is not None:
        output.add_(add)


def dropped(input: Tensor, mask: Mask) -> Tensor:
    """Return a contiguous input after dropout. Nothing is checked.

    The call for small tensors, whose time goes into asking torch about them: `drop` asks more.
    """
    output, params = torch.empty_like(input), mask.params
    if isinstance(params, ScheduledParams) or params.drops_all or type(mask.key) is not int or not _is_flat(mask):
        drop(output, input, mask)
    else:
        _flat(output, input, mask)
    return output


def drop_and_mask(output: Tensor, kept: Tensor, input: Tensor, mask: Mask) -> bool:
    """Write `output` as `drop` does, and which elements are kept to `kept`, a tensor of bools; both contiguous.

    Returns:
        Whether both are written: one pass over memory does it for contiguous inputs with a mask element for each.
    """
    params = mask.params.resolve()
    if not (_is_flat(mask) and input.is_contiguous()) or params.drops_all:
        return False
    _flat(output, input, mask._replace(key=readable_key(mask.key, input), params=params), _PASSED, kept, "kept")
    return True


def detail() -> str:
    # The module, since its distribution is called otherwise where it comes with torch for AMD.
    try:
        triton = import_module("triton")
    except Exception as error:
        return f"Triton, which cannot be imported ({error})"
    notes = ""
    if not is_known():
        oldest, newest = (".".join(map(str, version)) for version in KNOWN)
        notes += f"; launches take longer than with Triton {oldest} to {newest}, which dropkit knows"
    if torch.cuda.is_available() and not keys.agrees(torch.device("cuda", torch.cuda.current_device())):
        notes += "; keys are drawn on the device, since its torch.randint draws other numbers than expected"
    return f"Triton {getattr(triton, '__version__', 'of an unknown version')}{notes}"


def _is_flat(mask: Mask) -> bool:
    """Whether the elements of a contiguous tensor use consecutive mask elements from a multiple of 4 on."""
    key, _, strides, offset = mask
    return strides is None and offset % 4 == 0 and (type(key) is int or not mask.slice_dims)


def _flat(
    output: Tensor, input: Tensor, mask: Mask, rate: _Rate = _PASSED, other: Tensor | int = 0, use: str = ""
) -> None:
    key, params, _, offset = mask
    count, (p, function) = input.numel(), rate
    numbers, constants = _flat_form(params, type(key) is not int, function, use, _BLOCK)
    launcher("strided", "flat")(-(-count // _BLOCK), (output, input, other, key, p, *numbers, offset, count), constants)


def _strided(output: Tensor, input: Tensor, mask: Mask, rate: _Rate, dims: list[_Dim]) -> None:
    inner, outer = dims[-1], dims[:-1]
    if len(outer) > _OUTER:
        for arguments in _slices(output, input, mask, dims):
            _strided(*arguments, rate, dims[1:])
        return
    kernels = triton_kernels("strided")
    kind, outer = _kind(inner, outer, mask.offset, kernels)
    rows = 1
    for dim in outer:
        rows *= cdiv(dim.size, 4) if kind is kernels.ACROSS and dim is outer[0] else dim.size
    # As many Philox blocks in a program of each kind: here they are those of an element, or of a column of four.
    block = _BLOCK // 4 if kind is kernels.ANY or kind is kernels.ACROSS else _BLOCK
    across = min(max(8, next_power_of_2(inner.size)), block // 2)
    down = min(next_power_of_2(rows), block // across)
    strides = [number for dim in outer for number in (dim.size, *dim.strides)]
    strides += [1, 0, 0, 0, 0] * (_OUTER - len(outer))
    (p, function), params = rate, mask.params.resolve()
    layout = mask.slice_dims > 0, kind.value, len(outer), down, across
    launcher("strided", "tiles")(
        cdiv(rows, down) * cdiv(inner.size, across),
        (output, input, mask.key, p, *_numbers(params), mask.offset, rows, inner.size, *inner.strides, *strides),
        _tile_constants(type(mask.key) is not int, function, _effect(params), *layout),
    )


def _kind(inner: _Dim, outer: list[_Dim], offset: int, kernels: Any) -> tuple[Any, list[_Dim]]:
    """How mask elements share Philox blocks, see `strided`, and the outer dimensions in the order for that."""
    if inner.mask == 0 and not inner.key:
        return kernels.SHARED, outer
    fours = [dim for dim in (inner, *outer) if dim.mask == 1 and not dim.key]
    rest = [dim for dim in (*outer, inner) if dim not in fours]
    if len(fours) == 1 and not inner.key and offset % 4 == 0 and all(dim.mask % 4 == 0 for dim in rest):
        if fours == [inner]:
            return kernels.CONSECUTIVE, outer
        return kernels.ACROSS, [*fours, *rest[:-1]]
    return kernels.ANY, outer


def double_bits(number: float) -> int:
    """The bits of a double, which Triton would pass in single precision."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def readable_key(key: Key, input: Tensor) -> Tensor | int:
    """The key as an int, or as a tensor on the device of `input`. The two numbers of a pair lie side by side."""
    if isinstance(key, Tensor) and key.device != input.device:
        key = key.to(input.device) if batch_shape(key) or not key.is_cpu else read(key)
    if isinstance(key, int):
        return key
    key = as_tensor(key, input.device)
    return key.contiguous() if is_pair(key) and key.stride(-1) != 1 else key


@lru_cache(maxsize=256)
def _flat_form(
    form: DropoutParams | NoiseParams, key_in_memory: bool, function: str, use: str, block: int
) -> tuple[tuple[int, ...], Constants]:
    return _numbers(form), _flat_constants(key_in_memory, function, _effect(form), use, block)


@lru_cache(maxsize=256)
def _flat_constants(key_in_memory: bool, function: str, effect: str, use: str, block: int) -> Constants:
    return constants(key_in_memory, FUNCTION=function, EFFECT=effect, OTHER=use, BLOCK=block, num_warps=_WARPS)


@lru_cache(maxsize=256)
def _tile_constants(
    key_in_memory: bool, function: str, effect: str, has_keys: bool, kind: int, outer: int, rows: int, columns: int
) -> Constants:
    sizes = {"OUTER": outer, "ROWS": rows, "COLUMNS": columns, "num_warps": _WARPS}
    return constants(key_in_memory, FUNCTION=function, EFFECT=effect, KEYS=has_keys, KIND=kind, **sizes)


def constants(key_in_memory: bool, **others: Any) -> Constants:
    """Constants of a kernel, with those of all. Without fusion each operation rounds by itself, as on the CPU."""
    return Constants(KEY_IN_MEMORY=key_in_memory, enable_fp_fusion=False, **others)


def _slices(output: Tensor, input: Tensor, mask: Mask, dims: list[_Dim]) -> Iterator[tuple[Tensor, Tensor, Mask]]:
    """The slices of the tensors along the outermost of these dimensions, and their masks."""
    sizes, outermost = [dim.size for dim in dims], dims[0]
    source = input.as_strided(sizes, [dim.input for dim in dims])
    target = output.as_strided(sizes, [dim.output for dim in dims])
    for index in range(outermost.size):
        key = _from(mask.key, index * outermost.key) if mask.slice_dims else mask.key
        yield target[index], source[index], mask._replace(key=key, offset=mask.offset + index * outermost.mask)


def _from(keys: Any, step: int) -> Tensor:
    """The keys from the one that lies `step` numbers further in memory on; their strides are in the dimensions."""
    size = (1, 2) if is_pair(keys) else (1,)
    return keys.as_strided(size, (1,) * len(size), int(keys.storage_offset()) + step)


def _merged(input: Tensor, output: Tensor, mask: Mask) -> list[_Dim]:
    """The dimensions in the order of the output's memory, outermost first, without those of size 1."""
    key_strides = cast("Tensor", mask.key).stride()[: mask.slice_dims] if mask.slice_dims else ()
    key_strides += (0,) * (input.dim() - mask.slice_dims)
    strides = mask.strides_for(input.shape), input.stride(), output.stride(), key_strides
    columns = zip(input.shape, *strides, strict=True)
    dims = [_Dim(*column) for column in columns if column[0] != 1] or [_Dim(1, 1, 1, 1)]
    dims.sort(key=lambda dim: -dim.output)
    merged = dims[:1]
    for inner in dims[1:]:
        outer = merged[-1]
        if outer.merges(inner):
            merged[-1] = inner._replace(size=outer.size * inner.size)
        else:
            merged.append(inner)
    return merged


@lru_cache(maxsize=256)
def _numbers(params: DropoutParams | NoiseParams) -> tuple[int, ...]:
    """The threshold, and the bits of each fraction. Noise has two, a factor and a term."""
    if isinstance(params, NoiseParams):
        return 0, double_bits(params.factor), double_bits(params.term), 0
    return params.threshold, *map(double_bits, params[1:])


def _effect(params: DropoutParams | NoiseParams) -> str:
    """What the kernel does to elements; see `strided`."""
    if isinstance(params, NoiseParams):
        return "normal" if params.distribution == NORMAL else "uniform"
    return "affine" if params.shift or params.fill else "scale"


def cdiv(size: int, block: int) -> int:
    """How many blocks cover `size`: the quotient, rounded up."""
    return -(-size // block)


def next_power_of_2(number: int) -> int:
    """The smallest power of 2 that is at least `number`."""
    return 1 << (number - 1).bit_length()


@lru_cache
def triton_kernels(module: str) -> Any:
    """A module of this package, imported at the first call, because Triton takes a while to import."""
    return import_module(f"{__name__}.{module}")
