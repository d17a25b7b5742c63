"""Keys drawn on the host: the numbers that `torch.randint` would draw on a GPU, without a launch.

torch's generator of a GPU is a seed and an offset, and the host knows both. A draw of one int64 takes the first two
words of block `offset / 4` of Philox4x32-10 under the seed, and advances the offset by 4. A draw on the device after n
draws here therefore goes on where they ended, and states saved by one restore the other. Each device is asked once
whether its torch does so; if not, keys are drawn there.

A graph that is being captured must not contain numbers of the host, which all replays would share: then nothing is
drawn here.

Source: `random_from_to_kernel` in PyTorch's aten/src/ATen/native/cuda/DistributionTemplates.h; NVIDIA, cuRAND's device
API, `curand_init` and `curand4` of curandStatePhilox4_32_10.
"""

from __future__ import annotations

import threading

import torch
from torch import Generator

from dropkit.kernels import cpu
from dropkit.kernels.gpu.capture import is_captured
from dropkit.kernels.key import HIGHEST, LOWEST
from dropkit.kernels.reference import philox

# What a draw of one element adds to the offset.
_INCREMENT = 4
_WORD = 0xFFFFFFFF

# States from which both ways to draw are compared: words of the counter and of the key beyond the lowest differ from 0.
_COMPARED = ((0, 0), (2**63 + 0x123456789, 8), (0xFEDCBA98, 2**35 + 12))

# Whether the numbers of a device are those computed here, by its index.
_agree: dict[int, bool] = {}
# Two threads must not read the same offset.
_lock = threading.Lock()


def draw(generator: Generator | None, device: torch.device) -> int | None:
    """The key that `torch.randint` would draw on a GPU; None if it has to be drawn there.

    Args:
        generator: the default one of `device` if None.
        device: of the type "cuda", with its index.
    """
    if is_captured(device):
        return None
    index = device.index
    if generator is None:
        generator = torch.cuda.default_generators[index]
    elif generator.device.type != "cuda":
        return None  # torch raises its error
    return _next(generator) if _agree.get(index) or agrees(device) else None


def agrees(device: torch.device) -> bool:
    """Whether this torch draws on `device` what is computed here; compared at the first call, on another generator."""
    if device.index not in _agree:
        try:
            _agree[device.index] = _compare(device)
        except (AttributeError, RuntimeError):
            _agree[device.index] = False
    return _agree[device.index]


def number_at(seed: int, offset: int) -> int:
    """The int64 that `torch.randint(LOWEST, HIGHEST, ())` draws from a generator of a GPU in this state."""
    block = offset // 4
    if cpu.missing is None:
        high, low, _, _ = cpu.philox(seed, block, 0)
    else:
        high, low, _, _ = philox((block & _WORD, block >> 32, 0, 0), seed)
    return (high << 32 | low) % (HIGHEST - LOWEST) + LOWEST


def _next(generator: Generator) -> int:
    # The offset is set by another object for the same state: setting it by the generator itself makes torch initialise
    # the dropout of cuDNN's recurrent layers again, which waits for the device.
    state = generator.graphsafe_get_state()
    with _lock:
        offset = state.get_offset()
        state.set_offset(offset + _INCREMENT)
    return number_at(state.initial_seed(), offset)


def _compare(device: torch.device) -> bool:
    generator, mode = Generator(device), torch.cuda.get_sync_debug_mode()
    # Reading a number waits for the device, which users may have forbidden. Setting the mode makes torch warn once.
    if mode:
        torch.cuda.set_sync_debug_mode("default")
    try:
        for seed, offset in _COMPARED:
            ends: list[tuple[int, int]] = []
            for draw_from in (_next, _draw_on_device):
                generator.manual_seed(seed)
                generator.set_offset(offset)
                ends.append((draw_from(generator), generator.get_offset()))
            if ends[0] != ends[1]:
                return False
        return True
    finally:
        if mode:
            torch.cuda.set_sync_debug_mode(mode)


def _draw_on_device(generator: Generator) -> int:
    drawn = torch.randint(LOWEST, HIGHEST, (), dtype=torch.int64, device=generator.device, generator=generator)
    return int(drawn)
