"""One key for the several masks of a composed layer, each under a key that `random.fold_in` derives from it."""

from __future__ import annotations

from typing import cast

from torch import Generator, Tensor

from dropkit import random
from dropkit.ops import autograd


def draw_key(
    input: Tensor, p: float | Tensor, training: bool, generator: Generator | None, key: Tensor | int | None
) -> Tensor | int | None:
    """The key of a call: the caller's, checked, or a new one; None if the call drops nothing, so that none is drawn.

    Args:
        input: for the device of a new key.
        p: rate of the call.
        generator: where a new key is drawn from; torch's default generator of the input's device if None.

    Raises:
        ValueError: both `generator` and `key` are given, or `key` is out of range.
        TypeError: `key` is neither an int nor an int64 tensor, nor one of torch's keys.
    """
    if key is not None:
        return random.check_key(key, generator, input)
    if not training or (not isinstance(p, Tensor) and p == 0):
        return None
    if isinstance(p, Tensor):
        return cast("Tensor", random.choose_key(None, generator, input, p, by_operator=True))
    if p == 1:
        return 0  # as the operator, which draws nothing either
    if autograd.can_use_fast_path(input):
        return cast("Tensor | int", random.choose_key(None, generator, input, p))
    return random.draw(generator, input.device)


def is_on_host(key: Tensor | int | None) -> bool:
    """Whether the host can compute the mask of a key without waiting for a device."""
    return key.is_cpu if isinstance(key, Tensor) else key is not None
