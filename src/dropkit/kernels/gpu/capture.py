"""Loading kernels while a CUDA graph is captured.

During a capture CUDA refuses calls that might wait for the device, such as those that load a kernel, and the capture
fails. Programs therefore run beforehand what they capture. But then keys are drawn on the host, and in the capture on
the device, so that a call in it needs a kernel of its own. It is loaded in a mode in which the thread may make such
calls, as PyTorch's allocator does for the memory that it asks for.

Source: NVIDIA, CUDA Driver API, `cuThreadExchangeStreamCaptureMode`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from dropkit.torch_private import current_gpu

# CU_STREAM_CAPTURE_MODE_RELAXED, and hipStreamCaptureModeRelaxed.
RELAXED = 2


def is_captured(device: torch.device) -> bool:
    """Whether what is launched on a GPU becomes a part of a graph now, instead of running."""
    if device.index != current_gpu():
        with torch.cuda.device(device):
            return torch.cuda.is_current_stream_capturing()
    return torch.cuda.is_current_stream_capturing()


@contextmanager
def loading() -> Generator[None]:
    """Let kernels be loaded in a block, even if the current stream is captured."""
    is_captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    exchange = _exchange() if is_captured else None
    if exchange is None:
        yield
        return
    mode = ctypes.c_int(RELAXED)
    exchange(ctypes.byref(mode))
    try:
        yield
    finally:
        exchange(ctypes.byref(mode))


@cache
def _exchange() -> Callable[[Any], int] | None:
    """The driver's function that swaps the mode of this thread with one in memory; None where it is not found."""
    names = ("amdhip64.so", "hip") if torch.version.hip else ("cuda.so.1", "cu")
    try:
        return getattr(ctypes.CDLL(f"lib{names[0]}"), f"{names[1]}ThreadExchangeStreamCaptureMode")
    except (OSError, AttributeError):
        return None
