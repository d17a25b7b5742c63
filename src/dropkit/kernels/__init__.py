"""The kernels, best first: a device uses the first that supports it, and falling back to the reference warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels import cpu, gpu, reference
from dropkit.kernels.mask import Mask

FLOATS = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})

Drop = Callable[[Tensor, Tensor, Mask, "Tensor | None"], None]


class SlowKernelWarning(UserWarning):
    """A device uses a slower kernel than dropkit has for it, or the reference."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation of the mask specification.

    Attributes:
        name: what `dropkit kernels` calls it.
        devices: the device types that it was written for; None for any.
        missing: why it cannot run in this process; None if it can.
        detail: a function that says what is particular to this machine, such as the instruction set in use.
        drop: `drop(output, input, mask, add)` writes every element of `output`, which may be `input` itself. `add`, a
            tensor like `input` or None, is added to the result, which is rounded before and after, as by two calls.
    """

    name: str
    devices: frozenset[str] | None
    missing: str | None
    detail: Callable[[], str]
    drop: Drop

    def supports(self, device: str) -> bool:
        return self.missing is None and (self.devices is None or device in self.devices)


def _write_nothing(*_: Any) -> None:
    """The kernel of the meta device, where tensors have no memory."""


# One kernel for each kind of device. The fused kernels of GPUs are in `kernels/gpu/fused.py`.
KERNELS = (
    Kernel("cpu", frozenset({"cpu"}), cpu.missing, cpu.detail, cpu.drop),
    Kernel("gpu", frozenset({"cuda"}), gpu.missing, gpu.detail, gpu.drop),
    Kernel("meta", frozenset({"meta"}), None, lambda: "shapes only", _write_nothing),
    Kernel("reference", None, None, reference.detail, reference.drop),
)


@lru_cache
def kernel_for(device: str) -> Kernel:
    """The best kernel for a device type; warns once if that is the reference."""
    kernel = next(kernel for kernel in KERNELS if kernel.supports(device))
    if kernel.name == "reference":
        reason = why_slow(device)
        warnings.warn(f"dropkit runs its slow reference kernel on {device}: {reason}", SlowKernelWarning, stacklevel=2)
    return kernel


def why_slow(device: str) -> str | None:
    """Why a device type has no better kernel than the reference; None if it has one."""
    candidates = [kernel for kernel in KERNELS if kernel.devices is not None and device in kernel.devices]
    if any(kernel.supports(device) for kernel in candidates):
        return None
    return (
        "; ".join(kernel.missing for kernel in candidates if kernel.missing) or "no kernel was written for this device"
    )


def _drop_on_one_thread(*arguments: Any) -> None:
    """The CPU kernel where it cannot use torch's thread pool: its first call warns."""
    global _drop_on_cpu
    _drop_on_cpu = cpu.run
    text = f"dropkit's CPU kernel runs on one thread: {cpu.single_threaded}"
    warnings.warn(text, SlowKernelWarning, stacklevel=3)
    cpu.run(*arguments)


# A CPU call skips looking its kernel up, which takes 0.3 us.
_drop_on_cpu: Callable[..., None] | None = None
if cpu.missing is None:
    _drop_on_cpu = cpu.run if cpu.single_threaded is None else _drop_on_one_thread


def drop(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """Write every element of `output`, which is like `input`, by the best kernel of its device."""
    run = _drop_on_cpu if _drop_on_cpu is not None and input.is_cpu else kernel_for(input.device.type).drop
    run(output, input, mask, add)


def dropped(input: Tensor, mask: Mask) -> Tensor:
    """A tensor after dropout, as a new one."""
    output = torch.empty_like(input)
    drop(output, input, mask)
    return output


# The same for a contiguous tensor in the memory of a CPU or of a GPU that torch calls "cuda".
dropped_on_cpu: Callable[[Tensor, Mask], Tensor] = cpu.dropped if _drop_on_cpu is cpu.run else dropped
dropped_on_gpu: Callable[[Tensor, Mask], Tensor] = gpu.dropped if gpu.missing is None else dropped


def dropped_plain(input: Tensor, mask: Mask) -> Tensor:
    """The same for either."""
    return (dropped_on_cpu if input.is_cpu else dropped_on_gpu)(input, mask)
