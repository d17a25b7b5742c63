"""Argument validation: raise ValueError with a uniform message."""

from __future__ import annotations

from collections.abc import Iterable
from operator import eq, index
from typing import Any


def check(argument: str, holds: bool, wanted: str, value: object) -> None:
    """Raise unless the condition on an argument holds.

    Raises:
        ValueError: "<argument> must be <wanted>, got <value>".
    """
    if not holds:
        raise ValueError(f"{argument} must be {wanted}, got {value}")


def positive_int(argument: str, value: Any) -> int:
    """Return `value` as an int of at least 1; integers of NumPy are accepted.

    Raises:
        ValueError: "<argument> must be an integer of at least 1, got <value>".
    """
    fits = hasattr(value, "__index__") and not isinstance(value, bool) and index(value) >= 1
    check(argument, fits, "an integer of at least 1", value)
    return index(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean <one of `known`>?" for the end of a message, or nothing if none is near."""
    from difflib import SequenceMatcher, get_close_matches

    # Of equally similar ones that with the most characters in place: DRP1O1 is DRP101 rather than DRP411.
    near = max(
        get_close_matches(word, list(known), 20),
        key=lambda name: (SequenceMatcher(None, name, word).ratio(), sum(map(eq, name, word))),
        default=None,
    )
    return "" if near is None else f"; did you mean {near}?"
