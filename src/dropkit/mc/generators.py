"""Fork the random number generators of torch, Python and NumPy for a `with` block, and detect their use."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def fork_torch(seed: int | None = None) -> Generator[None]:
    """Restore torch's generators at the end of a `with` block; inside, they start from `seed` if it is given.

    `torch.manual_seed` would also seed the generators of all devices, even of those that are not in use yet.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        if seed is not None:
            for generator in (torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)):
                generator.manual_seed(seed)
        yield


def python_state() -> tuple[Any, ...]:
    """The states of Python's generator and, if it is loaded, NumPy's. Equal as long as neither is used."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return random.getstate(), None
    name, key, *rest = numpy.random.get_state()
    return random.getstate(), (name, tuple(key.tolist()), *rest)


@contextmanager
def fork_python(seed: int | None = None) -> Generator[Callable[[], bool]]:
    """Restore the generators of Python and NumPy at the end of a `with` block; inside, they start from `seed`.

    Yields:
        A function that returns whether one of them has been used in the block.
    """
    before = python_state()
    if seed is not None:
        random.seed(seed)
        if before[1] is not None:
            sys.modules["numpy"].random.seed(seed % 2**32)
    initial = before if seed is None else python_state()
    try:
        yield lambda: python_state() != initial
    finally:
        random.setstate(before[0])
        if before[1] is not None:
            sys.modules["numpy"].random.set_state(before[1])
