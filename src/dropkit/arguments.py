"""Arguments: what is said of one that is not as wanted."""

from __future__ import annotations


def check(argument: str, holds: bool, wanted: str, came: object) -> None:
    """Raise unless an argument holds what is wanted of it.

    Raises:
        ValueError: "<argument> must be <wanted>, got <came>".
    """
    if not holds:
        raise ValueError(f"{argument} must be {wanted}, got {came}")
