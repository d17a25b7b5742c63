"""Text of others (names of files, source) on its way out: what a terminal or a reader of UTF-8 could not take."""

from __future__ import annotations

import re

# Control characters would move the cursor, marks of direction would show code in another order than it runs in.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def seen(text: str) -> str:
    """`text` with a replacement character for each one that a terminal would obey instead of show."""
    return _UNSEEN.sub("\ufffd", utf8(text))


def utf8(text: str) -> str:
    """`text` with `\\udcff` for a byte of a file's name that is not UTF-8, which no encoding takes."""
    return text.encode(errors="backslashreplace").decode()
