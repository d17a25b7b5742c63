"""The CPU kernel: C++ with vector instructions, on torch's own thread pool."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Callable
from importlib.machinery import PathFinder
from operator import index
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.kernels.key import batch_shape, check_batch, is_pair, read
from dropkit.kernels.mask import Mask
from dropkit.kernels.numbers import NORMAL, UNIFORM
from dropkit.kernels.params import DropoutParams, NoiseParams
from dropkit.kernels.reference import mask_indices
from dropkit.torch_private import empty_on_cpu


def _why_missing(error: ImportError) -> str:
    if PathFinder.find_spec("dropkit.kernels._cpu", [str(Path(__file__).parent)]) is not None:
        return f"the compiled extension cannot be loaded ({error})"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the compiled extension is not built for free-threaded Python"
    return (
        "the compiled extension is missing, since dropkit was installed from a wheel without it, or built without a "
        "working C++17 compiler; with a compiler, DROPKIT_REQUIRE_EXTENSION=1 pip install --force-reinstall --no-deps "
        "--no-cache-dir --no-binary dropkit dropkit builds it"
    )


try:
    from dropkit.kernels import _cpu
except ImportError as _error:
    _cpu = None
    missing: str | None = _why_missing(_error)
else:
    missing = None
    _codes = {getattr(torch, name): code for code, name in enumerate(_cpu.DTYPES)}
    _drop = _cpu.drop
    philox: Callable[[int, int, int], tuple[int, int, int, int]] = _cpu.philox

# Environment variable that forces an instruction set: avx512, avx2, neon or scalar. For tests and comparisons.
LEVEL = "DROPKIT_CPU_LEVEL"


def drop(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`.

    Raises:
        TypeError: an argument is of the wrong type, or the tensors are not of one floating dtype.
        ValueError: the tensors are not in the CPU's memory, differ in shape, or overlap in part; or there are not as
            many mask strides as dimensions, a stride or the offset is negative, or mask indices do not fit 63 bits.
    """
    _check_tensors(output, input, add)
    _check_mask(mask, tuple(input.shape))
    run(output, input, mask, add)


def run(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """`drop` for callers that made `output` like `input`: nothing is checked."""
    key = mask.key
    if isinstance(key, Tensor) and key.dim():
        if batch_shape(key):
            _drop_slices(output, input, mask, key if key.is_cpu else key.cpu())
            if add is not None:
                output.add_(add)
            return
        mask = mask._replace(key=read(key))
    if mask.strides is None and input.is_contiguous() and output.is_contiguous():
        arguments = output.data_ptr(), input.data_ptr(), _codes[input.dtype], mask, input.numel()
        if add is None:
            _drop(*arguments)
            return
        params = mask.params.resolve()
        if add.is_contiguous() and not params.drops_all and not isinstance(params, NoiseParams):
            _drop(*arguments, add.data_ptr())
            return
    shape = tuple(input.shape)
    if type(mask.strides) is not tuple:
        mask = mask._replace(strides=mask.strides_for(shape))
    _drop(output.data_ptr(), input.data_ptr(), _codes[input.dtype], mask, shape, output.stride(), input.stride())
    if add is not None:
        output.add_(add)


def _drop_slices(output: Tensor, input: Tensor, mask: Mask, keys: Tensor) -> None:
    """Run the kernel with a key for each slice."""
    first_blocks, key_strides = 0, keys.stride()
    if is_pair(keys):
        *key_strides, step = key_strides
        first_blocks, key_strides = keys.data_ptr() + step * keys.element_size(), tuple(key_strides)
    if type(mask.strides) is not tuple:
        mask = mask._replace(strides=mask.strides_for(input.shape))
    arguments = output.data_ptr(), input.data_ptr(), _codes[input.dtype], mask
    slices = keys.data_ptr(), first_blocks, key_strides
    _drop(*arguments, input.shape, output.stride(), input.stride(), slices)


def dropped(input: Tensor, mask: Mask) -> Tensor:
    """Return a contiguous input after dropout. Nothing is checked.

    The call for small tensors, whose time goes into asking torch about them: `run` asks more.
    """
    dtype = input.dtype
    output = empty_on_cpu((*input.shape,), input.stride(), dtype)
    if mask.strides is None:
        _drop(output.data_ptr(), input.data_ptr(), _codes[dtype], mask, input.numel())
    else:
        run(output, input, mask)
    return output


def _check_tensors(output: Any, input: Any, add: Any) -> None:
    """Refuse tensors for which the extension would read or write outside of their memory."""
    for name, tensor in (("input", input), ("output", output), ("add", add)):
        if tensor is None and name == "add":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(tensor).__name__}")
        if not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
            raise ValueError(f"{name} must be a dense tensor on the CPU, got {tensor.layout} on {tensor.device}")
        check(name, not tensor.is_neg(), "resolved", "a tensor that is lazily negated; see Tensor.resolve_neg")
        if tensor.dtype not in _codes or tensor.dtype != input.dtype:
            raise TypeError(f"{name} must be of the input's floating dtype, got {tensor.dtype} and {input.dtype}")
        if tensor.shape != input.shape:
            raise ValueError(f"{name} must be of the input's shape {tuple(input.shape)}, got {tuple(tensor.shape)}")
        if tensor.numel() > 0 and _end(tensor) > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} must have memory, got a tensor that is larger than its storage")
        check(name, tensor.numel() == 0 or tensor.data_ptr() != 0, "in memory", "a tensor that has none")
    check("output", not _overlaps_itself(output), "a tensor that does not overlap itself", f"strides {output.stride()}")
    for other in (input, *(() if add is None else (add,))):
        same = output.data_ptr() == other.data_ptr() and output.stride() == other.stride()
        if not same and not _is_apart(output, other):
            raise ValueError("output must not overlap what is read, unless it is the same memory, got an overlap")


def _check_mask(mask: Mask, shape: tuple[int, ...]) -> None:
    key, params = cast("tuple[Any, Any]", mask[:2])
    if isinstance(key, Tensor):
        _check_keys(key, shape)
    else:
        _check_key(key)
    if isinstance(params, NoiseParams):
        check("distribution", params.distribution in (NORMAL, UNIFORM), f"{NORMAL} or {UNIFORM}", params.distribution)
        _check_indices(mask, shape)
        return
    if not isinstance(params, tuple) or len(cast("tuple[Any, ...]", params)) != len(DropoutParams._fields):
        raise TypeError(f"params must be a tuple of {len(DropoutParams._fields)} numbers, got {params!r}")
    check("threshold", 0 <= index(cast("Any", params)[0]) <= 2**32, "in [0, 2**32]", cast("Any", params)[0])
    _check_indices(mask, shape)


def _check_key(key: Any) -> None:
    """Refuse what is neither 64 bits nor a pair of them."""
    numbers = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
    if (isinstance(key, tuple) and len(numbers) != 2) or not all(isinstance(number, int) for number in numbers):
        raise TypeError(f"key must be an int, a tuple of two or a tensor, got {key!r}")
    check("key", all(-(2**63) <= number < 2**64 for number in numbers), "of 64 bits each", numbers)


def _check_keys(key: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse keys of another shape, or without memory of their own."""
    check_batch(key, shape)
    dense = key.layout is torch.strided and not key.is_nested and not key.is_neg()
    check("key", not key.is_meta, "a tensor with memory", "a tensor on the meta device")
    check("key", dense and type(key) is Tensor, "an ordinary dense tensor", type(key).__name__)
    in_storage = key.numel() == 0 or (key.data_ptr() != 0 and _end(key) <= key.untyped_storage().nbytes())
    check("key", in_storage, "in memory", "a tensor that is larger than its storage")


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements share memory."""
    extent = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= extent:
            positions = mask_indices(tensor.shape, tensor.stride(), 0, tensor.device)
            return len(set(cast("list[int]", positions.flatten().tolist()))) < tensor.numel()
        extent += max(size - 1, 0) * stride
    return False


def _check_indices(mask: Mask, shape: tuple[int, ...]) -> None:
    strides = mask.strides_for(shape)
    check("strides", len(strides) == len(shape), f"{len(shape)} numbers, one for each dimension", f"{len(strides)}")
    check("offset", index(mask.offset) >= 0, "at least 0", mask.offset)
    last = index(mask.offset)
    for size, stride in zip(shape, strides, strict=True):
        check("strides", index(stride) >= 0, "at least 0", stride)
        last += max(size - 1, 0) * index(stride)
    wanted = "small enough that every mask index is below 2**63"
    check("offset and strides", 0 in shape or last < 2**63, wanted, f"{mask.offset} and {strides}")


def _end(tensor: Tensor) -> int:
    """Where the elements of `tensor` end in its storage, in bytes."""
    dims = zip(tensor.shape, tensor.stride(), strict=True)
    last = int(tensor.storage_offset()) + sum((size - 1) * stride for size, stride in dims)
    return (last + 1) * tensor.element_size()


def _is_apart(tensor: Tensor, other: Tensor) -> bool:
    """Whether two contiguous tensors share no memory; those with gaps may interleave, and count as apart."""
    if not (tensor.numel() and tensor.is_contiguous() and other.is_contiguous()):
        return True
    return abs(tensor.data_ptr() - other.data_ptr()) >= tensor.nbytes


def levels() -> dict[str, bool]:
    """The instruction sets of this build, best first, and whether this machine can run them."""
    return dict(_cpu.levels()) if _cpu is not None else {}


def level() -> str:
    """The instruction set in use."""
    return _cpu.level() if _cpu is not None else "none"


def use_level(name: str) -> None:
    """Use an instruction set from now on.

    Raises:
        ValueError: this machine or this build does not have it.
    """
    usable = [level for level, runs_here in levels().items() if runs_here]
    if _cpu is None or name not in usable:
        raise ValueError(f"{LEVEL} must be one of {', '.join(usable)} on this machine, got {name!r}")
    _cpu.use_level(name)


def detail() -> str:
    usable = [name for name, runs_here in levels().items() if runs_here]
    forced = f", chosen instead of {usable[0]}" if usable and level() != usable[0] else ""
    return f"{level()}{forced}; {_threads}"


def _torch_parallel_for() -> int:
    """The address of `torch_parallel_for`, which libtorch exports from torch 2.10 on."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    return ctypes.cast(library.torch_parallel_for, ctypes.c_void_p).value or 0


_threads = "torch's thread pool"
# Why the kernel runs on one thread; None if it uses torch's thread pool.
single_threaded: str | None = None
if _cpu is not None:
    try:
        _cpu.use_pool(_torch_parallel_for())
    except (OSError, AttributeError) as _error:
        single_threaded = f"torch {torch.__version__} exports no torch_parallel_for ({_error})"
        _threads = f"one thread, because {single_threaded}"
        _cpu.use_pool(0)
    if os.environ.get(LEVEL):
        use_level(os.environ[LEVEL])
