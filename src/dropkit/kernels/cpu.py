"""The CPU kernel: C++ with vector instructions, on torch's own thread pool."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import torch
from torch import Tensor

from dropkit.kernels.reference import row_major
from dropkit.kernels.values import Values


def _why_missing(error: ImportError) -> str:
    if PathFinder.find_spec("dropkit.kernels._cpu", [str(Path(__file__).parent)]) is not None:
        return f"the compiled extension cannot be loaded ({error})"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the compiled extension is not built for free-threaded Python"
    return (
        "the compiled extension is missing, since dropkit was installed without a working C++17 compiler; with one, "
        "DROPKIT_REQUIRE_EXTENSION=1 pip install --force-reinstall --no-deps --no-cache-dir builds it or fails"
    )


try:
    from dropkit.kernels import _cpu
except ImportError as error:
    _cpu = None
    missing: str | None = _why_missing(error)
else:
    missing = None
    _codes = {getattr(torch, name): code for code, name in enumerate(_cpu.DTYPES)}
    _drop = _cpu.drop

# Forces a lower instruction set, for tests and comparisons: avx512, avx2, neon or scalar.
LEVEL = "DROPKIT_CPU_LEVEL"


def drop(
    output: Tensor,
    input: Tensor,
    key: Tensor | int,
    values: Values,
    steps: Sequence[int] | None,
    base: int,
    add: Tensor | None = None,
) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`."""
    if steps is None and input.is_contiguous() and output.is_contiguous():
        row = output.data_ptr(), input.data_ptr(), _codes[input.dtype], int(key), values, base, input.numel()
        if add is None:
            _drop(*row)
            return
        if add.is_contiguous() and values.threshold < 2**32:
            _drop(*row, add.data_ptr())
            return
    shape = tuple(input.shape)
    coins = row_major(shape) if steps is None else tuple(steps)
    strides = output.stride(), input.stride()
    _drop(output.data_ptr(), input.data_ptr(), _codes[input.dtype], int(key), values, base, shape, *strides, coins)
    if add is not None:
        output.add_(add)


def levels() -> dict[str, bool]:
    """The instruction sets of this build, best first, and whether this machine has them."""
    return dict(_cpu.levels()) if _cpu is not None else {}


def level() -> str:
    """The instruction set in use."""
    return _cpu.level() if _cpu is not None else "none"


def use_level(name: str) -> None:
    """Use an instruction set from now on.

    Raises:
        ValueError: this machine or this build does not have it.
    """
    able = [level for level, runs_here in levels().items() if runs_here]
    if _cpu is None or name not in able:
        raise ValueError(f"{LEVEL} must be one of {', '.join(able)} on this machine, got {name!r}")
    _cpu.use_level(name)


def detail() -> str:
    able = [name for name, runs_here in levels().items() if runs_here]
    forced = f", chosen instead of {able[0]}" if able and level() != able[0] else ""
    return f"{level()}{forced}; {_threads}"


def _torch_parallel_for() -> int:
    """Address of libtorch's exported thread pool entry (torch >= 2.10).

    Raises:
        OSError: there is no such library.
        AttributeError: it has no such entry.
    """
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    return ctypes.cast(library.torch_parallel_for, ctypes.c_void_p).value or 0


_threads = "torch's thread pool"
# Why the kernel runs on one thread; None if it runs on torch's.
single_threaded: str | None = None
if _cpu is not None:
    try:
        _cpu.use_pool(_torch_parallel_for())
    except (OSError, AttributeError) as error:
        single_threaded = f"torch {torch.__version__} exports no torch_parallel_for ({error})"
        _threads = f"one thread, because {single_threaded}"
        _cpu.use_pool(0)
    if wanted := os.environ.get(LEVEL):
        use_level(wanted)
