"""torch's default generators: of the CPU, and of the accelerator if this process has used it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _used_accelerator() -> tuple[str, Any] | None:
    """The type of the accelerator and its module in torch; None if there is none, or it was not used yet."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return None
    module: Any = torch.get_device_module(device)
    is_initialized = getattr(module, "is_initialized", None)
    return None if is_initialized is not None and not is_initialized() else (device.type, module)


def fingerprints() -> dict[str, int]:
    """A number for each type of device, equal for equal states of its default generator on the current device."""
    states = {"cpu": torch.get_rng_state()}
    used = _used_accelerator()
    if used is not None:
        states[used[0]] = used[1].get_rng_state()
    return {device: _fingerprint(state) for device, state in states.items()}


def _fingerprint(state: Tensor) -> int:
    """A sum modulo 2**64 of the state's words, each with a factor of its own."""
    words = state.view(torch.int64) if state.numel() % 8 == 0 else state.to(torch.int64)
    factors = torch.arange(1, words.numel() + 1, device="cpu") * 0x9E3779B97F4A7C1 + 1
    return int((words * (factors | 1)).sum())


class States:
    """The states of the default generators now."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._used = _used_accelerator()
        self._of_accelerator: Any = None
        if self._used is not None:
            module = self._used[1]
            get: Any = getattr(module, "get_rng_state_all", None) or module.get_rng_state
            self._of_accelerator = get()

    def restore(self) -> None:
        """Set the generators back."""
        torch.set_rng_state(self._cpu)
        if self._used is not None:
            module = self._used[1]
            put: Any = getattr(module, "set_rng_state_all", None) or module.set_rng_state
            put(self._of_accelerator)
