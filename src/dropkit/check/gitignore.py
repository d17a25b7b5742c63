"""Patterns of .gitignore, read as git reads them. No pattern is an error, and none takes more than quadratic time.

Source: git-scm.com, "gitignore"; what it leaves open is as in git's wildmatch.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

_WILD = re.compile(r"[*?\[\\]")
# git compares bytes: a question mark is one of them.
_BYTES = "latin-1"
_NOTHING = "(?!)"
# Names are no longer on any common file system, so that a segment which asks for more matches none.
_LONGEST_NAME = 255
_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": r"\x21-\x7e", "lower": "a-z", "print": r"\x20-\x7e", "punct": r"!-/:-@\[-`{-~", "space": r" \t\n\r\f\v",
    "upper": "A-Z", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line. `segments` are matched against the parts of a path, or one of them against the name alone."""

    segments: tuple[str, ...]
    ignores: bool
    only_folders: bool
    by_name: bool

    def matches(self, parts: Sequence[str], is_folder: bool) -> bool:
        """Whether the path of these parts, counted from the folder of the .gitignore, is meant."""
        if self.only_folders and not is_folder:
            return False
        return _matches_name(self.segments[0], parts[-1]) if self.by_name else _matches_path(self.segments, parts)


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns of one .gitignore, the last of which that matches decides."""

    patterns: tuple[Pattern, ...]

    @classmethod
    def parse(cls, data: bytes) -> Patterns:
        """Read the content of a .gitignore."""
        lines = data.removeprefix(b"\xef\xbb\xbf").decode(_BYTES).split("\n")
        return cls(tuple(one for line in lines if (one := _pattern(line.removesuffix("\r"))) is not None))

    def verdict(self, relative: str, is_folder: bool) -> bool | None:
        """Whether the path is ignored; None where no pattern says."""
        parts = os.fsencode(relative).decode(_BYTES).split("/")
        for pattern in reversed(self.patterns):
            if pattern.matches(parts, is_folder):
                return pattern.ignores
        return None


def _pattern(line: str) -> Pattern | None:
    if line.startswith("#"):
        return None
    line = _without_trailing_spaces(line)
    ignores = not line.startswith("!")
    line = line if ignores else line[1:]
    only_folders = line.endswith("/")
    line = line.removesuffix("/")
    segments = _segments(line.removeprefix("/"))
    return None if not line or segments is None else Pattern(segments, ignores, only_folders, by_name="/" not in line)


def _segments(pattern: str) -> tuple[str, ...] | None:
    """What stands between slashes, those in brackets left out; None where the pattern matches nothing."""
    segments: list[str] = []
    begin = at = 0
    while at < len(pattern):
        escaped = pattern.startswith("\\/", at)
        if escaped or pattern[at] == "/":
            segments.append(pattern[begin:at])
            begin = at = at + 1 + escaped
            continue
        token, at = ("*", at + 1) if pattern[at] == "*" else _token(pattern, at)
        if token is None:
            return None
    return (*segments, pattern[begin:])


def _without_trailing_spaces(line: str) -> str:
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and bare != line else bare


def _matches_path(segments: Sequence[str], parts: Sequence[str]) -> bool:
    """Match segments and parts one by one; `**` takes as many parts as it must, the last one at least one."""
    at, place, star, mark = 0, 0, -1, 0
    while place < len(parts):
        if at < len(segments) and _is_any_depth(segments[at]):
            if at == len(segments) - 1:
                return True
            star, mark, at = at, place, at + 1
        elif at < len(segments) and _matches_name(segments[at], parts[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            # Only the last `**` need take more: what the ones before it took was the least.
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return at == len(segments)


def _is_any_depth(segment: str) -> bool:
    return len(segment) > 1 and not segment.strip("*")


def _matches_name(segment: str, name: str) -> bool:
    return segment == name if _WILD.search(segment) is None else _expression(segment).match(name) is not None


@cache
def _expression(segment: str) -> re.Pattern[str]:
    """A segment as a regular expression that does not backtrack over stars."""
    parts: list[list[str]] = [[]]
    at = 0
    while at < len(segment):
        if segment[at] == "*":
            if parts[-1] or len(parts) == 1:
                parts.append([])
            at += 1
            continue
        token, at = _token(segment, at)
        parts[-1].append(token or _NOTHING)
    if sum(map(len, parts)) > _LONGEST_NAME:
        return re.compile(_NOTHING)
    first, *rest = ("".join(part) for part in parts)
    if not rest:
        return re.compile(rf"{first}\Z", re.DOTALL)
    *middle, last = rest
    # A look-ahead is not entered again once it held: each piece between stars stays at the first place that it fits.
    middle = [f"(?=(.*?{piece}))\\{number}" for number, piece in enumerate((p for p in middle if p), 1)]
    return re.compile(rf"{first}{''.join(middle)}.*{last}\Z", re.DOTALL)


def _token(segment: str, at: int) -> tuple[str | None, int]:
    """One character of a name, as a regular expression, and where the next one begins; None for what never matches."""
    character = segment[at]
    if character == "?":
        return ".", at + 1
    if character == "\\":
        return (re.escape(segment[at + 1]), at + 2) if at + 1 < len(segment) else (None, at + 1)
    if character == "[":
        return _bracket(segment, at + 1)
    return re.escape(character), at + 1


def _bracket(segment: str, at: int) -> tuple[str | None, int]:
    """What stands in brackets, from behind the first of them."""
    negated = segment[at : at + 1] in ("!", "^")
    at += negated
    items: list[str] = []
    begin = at
    low: str | None = None
    while at < len(segment) and (segment[at] != "]" or at == begin):
        # A class ends at the first bracket, or is none.
        end = segment.find("]", at + 2) if segment.startswith("[:", at) else -1
        if end > at + 2 and segment[end - 1] == ":":
            if segment[at + 2 : end - 1] not in _CLASSES:
                return None, at
            items.append(_CLASSES[segment[at + 2 : end - 1]])
            at, low = end + 1, None
            continue
        ranged = segment[at] == "-" and low is not None and segment[at + 1 : at + 2] not in ("", "]")
        at += ranged
        at += segment[at] == "\\"
        if at >= len(segment):
            return None, at
        character = segment[at]
        if ranged and low is not None:
            if low <= character:
                items.append(f"{re.escape(low)}-{re.escape(character)}")
            low = None
        else:
            items.append(re.escape(character))
            low = character
        at += 1
    if at >= len(segment):
        return None, at
    return f"[{'^' if negated else ''}{''.join(items)}]", at + 1
