"""Escape foreign text (file names, source) for terminals and for readers of UTF-8."""

from __future__ import annotations

from dropkit.lint.semantic.pattern import pattern

# Control characters, and characters that reorder text: they could hide or fake output.
_UNPRINTABLE = pattern("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replace every character that a terminal would obey instead of show."""
    return _UNPRINTABLE.sub("\ufffd", utf8(text))


def utf8(text: str) -> str:
    """Escape the bytes of file names that are not UTF-8, as `\\udcff`: they cannot be encoded."""
    return text.encode(errors="backslashreplace").decode()
