"""Compilers and exporters: inductor, which torch.compile imports with the first compiled function, and torch.export."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from threading import Thread
from typing import Any

import torch

from dropkit.torch_private.lookup import EXPORT, INDUCTOR, find
from dropkit.torch_private.operators import FUNCTIONAL


def dynamo_is_loaded() -> bool:
    """Whether anything can have been compiled."""
    return "torch._dynamo" in sys.modules


def load_dynamo() -> None:
    """Import what torch imports when a dispatch mode first runs, without keeping the caller's objects alive.

    Exceptions that this import catches refer to the frames that began it, until the garbage collector runs: hence the
    thread, whose frames refer to nothing.
    """
    if not dynamo_is_loaded():
        thread = Thread(target=_import, args=("torch._dynamo",))
        thread.start()
        thread.join()


def _import(name: str) -> None:
    with suppress(ImportError):  # this torch has none
        import_module(name)


def has_compiled() -> bool:
    """Whether anything was compiled in this process; true if that is unknown."""
    module: Any = sys.modules.get("torch._dynamo.utils")
    return module is not None and bool(getattr(module, "counters", {"frames": True}).get("frames"))


def inductor_is_loaded() -> bool:
    """Whether inductor's table of lowerings exists."""
    return "torch._inductor.lowering" in sys.modules


@dataclass(frozen=True, slots=True)
class Inductor:
    """The parts of inductor that write dropkit's calls and operations into code; `V` holds the current graph."""

    ExternKernelOut: Any
    FixedLayout: Any
    Pointwise: Any
    TensorBox: Any
    convert_shape: Any
    fallback_handler: Any
    register_lowering: Any
    V: Any
    ops: Any


@cache
def inductor() -> Inductor | None:
    """Inductor's parts; None if one is missing, so that generated code calls dropkit's operators."""
    otherwise = "compiled code calls dropkit's operators by way of torch's dispatcher"
    names = (
        "torch._inductor.ir:ExternKernelOut", "torch._inductor.ir:FixedLayout", "torch._inductor.ir:Pointwise",
        "torch._inductor.ir:TensorBox", "torch._inductor.ir:convert_shape_to_inductor",
        "torch._inductor.lowering:fallback_handler", "torch._inductor.lowering:register_lowering",
        "torch._inductor.virtualized:V", "torch._inductor.virtualized:ops",
    )  # fmt: skip
    parts = [find(name, INDUCTOR, None, otherwise) for name in names]
    return None if None in parts else Inductor(*parts)


_HAS_EXPORT_FLAG = (
    find("torch.compiler:_is_exporting_flag", EXPORT, None, "torch.compiler.is_exporting is asked", costs=False)
    is not None
)


def is_exporting() -> bool:
    """Whether torch.export runs. torch.compile makes `torch.compiler.is_exporting` true on torch 2.10 and 2.11."""
    compiler: Any = torch.compiler
    return compiler._is_exporting_flag if _HAS_EXPORT_FLAG else compiler.is_exporting()


_infra_mode: Any = find(
    "torch.utils._python_dispatch:_detect_infra_mode",
    EXPORT,
    None,
    "programs that are decomposed under dropkit.install hold dropkit's operators",
    costs=False,
)


def is_functionalized_for_export() -> bool:
    """Whether an exported program is being decomposed, or compiled ahead of time."""
    mode: Any = None if _infra_mode is None or FUNCTIONAL is None else _infra_mode(FUNCTIONAL)
    return mode is not None and getattr(mode, "export", False)
