"""The generators of Python and of NumPy, which some models draw from: kept, seeded, and watched."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


def state() -> tuple[Any, ...]:
    """Of both; NumPy's only if that is loaded. Equal as long as nothing is drawn."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return random.getstate(), None
    name, key, *rest = numpy.random.get_state()
    return random.getstate(), (name, tuple(key.tolist()), *rest)


@contextmanager
def kept(seed: int | None = None) -> Generator[Callable[[], bool]]:
    """For the length of a `with` block they go a way of their own, from this seed if there is one.

    Yields:
        What tells whether anything was drawn from them.
    """
    before = state()
    if seed is not None:
        random.seed(seed)
        if before[1] is not None:
            sys.modules["numpy"].random.seed(seed % 2**32)
    begun = before if seed is None else state()
    try:
        yield lambda: state() != begun
    finally:
        random.setstate(before[0])
        if before[1] is not None:
            sys.modules["numpy"].random.set_state(before[1])
