"""Arguments: what is said of one that is not as wanted."""

from __future__ import annotations

from operator import index
from typing import Any


def check(argument: str, holds: bool, wanted: str, came: object) -> None:
    """Raise unless an argument holds what is wanted of it.

    Raises:
        ValueError: "<argument> must be <wanted>, got <came>".
    """
    if not holds:
        raise ValueError(f"{argument} must be {wanted}, got {came}")


def counted(argument: str, value: Any) -> int:
    """A number of things, as an int; NumPy's integers are welcome.

    Raises:
        ValueError: "<argument> must be an integer of at least 1, got <value>".
    """
    fits = hasattr(value, "__index__") and not isinstance(value, bool) and index(value) >= 1
    check(argument, fits, "an integer of at least 1", value)
    return index(value)
