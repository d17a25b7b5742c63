"""Numbers with units as short text."""

from __future__ import annotations

_BYTES = ("B", "kB", "MB", "GB", "TB")


def in_bytes(count: float) -> str:
    """Format bytes with a decimal unit and three digits.

    Example:
        >>> in_bytes(8), in_bytes(4_194_304)
        ('8 B', '4.19 MB')
    """
    unit = 0
    while count >= 999.5 and unit < len(_BYTES) - 1:
        count /= 1000
        unit += 1
    return f"{count:.3g} {_BYTES[unit]}"


def in_seconds(seconds: float) -> str:
    """Format seconds as s, ms or us with three digits.

    Example:
        >>> in_seconds(0.0123), in_seconds(2)
        ('12.3 ms', '2 s')
    """
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError("the last unit fits every number")


def in_percent(low: float, high: float) -> str:
    """Format an interval of fractions in percent, with the digits of its lower end.

    Example:
        >>> in_percent(0.112, 0.134), in_percent(0.0012, 0.00124), in_percent(0.02, 0.031)
        ('11-13 %', '0.12 %', '2-3.1 %')
    """
    first, last = f"{100 * low:.2g}", f"{100 * high:.2g}"
    return f"{first} %" if first == last else f"{first}-{last} %"


def counted(number: int, noun: str) -> str:
    """Put a number before a noun, in the plural unless it is 1.

    Example:
        >>> counted(1, "finding"), counted(2, "finding")
        ('1 finding', '2 findings')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_count(count: int) -> str:
    """Format an integer with separated thousands.

    Example:
        >>> in_count(1234567)
        '1,234,567'
    """
    return f"{count:,}"
