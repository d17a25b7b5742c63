"""Patterns of .gitignore, read as git reads them. No pattern is an error, and none takes more than quadratic time.

Source: git-scm.com, "gitignore"; what it leaves open is as in git's wildmatch.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


# What a name is looked up by: all of it, its beginning or its end; two empty strings stand for any name.
_Key = tuple[str, str]
_ANY_NAME = ("", "")
_BEGINNING = re.compile(r"[^*?\[\\]*")
_END = re.compile(r"[^*?\[\]\\]*\Z")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a line looks for. `segments` are matched against the parts of a path from `depth` on.

    Where `depth` is None there is one segment, and it is matched against the name alone.
    """

    segments: tuple[str, ...]
    only_folders: bool
    depth: int | None

    @property
    def key(self) -> _Key:
        """What the name of a path that matches must have."""
        last = self.segments[-1]
        if _is_any_depth(last):
            return _ANY_NAME
        if _WILD.search(last) is None:
            return "=", last
        beginning, end = _BEGINNING.match(last), _END.search(last)
        if beginning is not None and beginning[0]:
            return "^", beginning[0]
        return ("$", end[0]) if end is not None and end[0] else _ANY_NAME

    def matches(self, parts: Sequence[str], is_folder: bool) -> bool:
        """Whether the path of these parts is meant."""
        if self.only_folders and not is_folder:
            return False
        if self.depth is None:
            return _matches_name(self.segments[0], parts[-1])
        return _matches_path(self.segments, parts, self.depth)


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns of .gitignore files, each in a folder below the one before it. The last that matches decides.

    `found` holds, by what a name must have and by pattern, its number among all lines and whether it ignores. A name
    is compared only with the patterns that it could match: of many lines these are few.
    """

    lines: int = 0
    found: Mapping[_Key, Mapping[Pattern, tuple[int, bool]]] = field(
        default_factory=dict["_Key", "Mapping[Pattern, tuple[int, bool]]"]
    )

    @classmethod
    def parse(cls, data: bytes) -> Patterns:
        """Read the content of one .gitignore, in the folder that paths are counted from."""
        return cls().with_file(data, 0)

    def with_file(self, data: bytes, depth: int) -> Patterns:
        """These patterns and those of a .gitignore `depth` folders below the one that paths are counted from."""
        added: dict[_Key, dict[Pattern, tuple[int, bool]]] = {}
        number = self.lines
        for line in data.removeprefix(b"\xef\xbb\xbf").decode(_BYTES).split("\n"):
            number += 1
            read = _pattern(line.removesuffix("\r"), depth)
            if read is not None:
                pattern, ignores = read
                added.setdefault(pattern.key, {})[pattern] = number, ignores
        grown = {key: {**self.found.get(key, {}), **patterns} for key, patterns in added.items()}
        return Patterns(number, {**self.found, **grown})

    def verdict(self, relative: str, is_folder: bool) -> bool | None:
        """Whether the path is ignored; None where no pattern says."""
        return self.verdict_on([part_of_path(part) for part in relative.split("/")], is_folder)

    def verdict_on(self, parts: Sequence[str], is_folder: bool) -> bool | None:
        """As `verdict`, of a path whose parts are `part_of_path`s."""
        if not self.found:
            return None
        latest, verdict = 0, None
        for key in _keys(parts[-1]):
            for pattern, (number, ignores) in self.found.get(key, {}).items():
                if number > latest and pattern.matches(parts, is_folder):
                    latest, verdict = number, ignores
        return verdict


def part_of_path(name: str) -> str:
    """A name in the form that patterns are compared with: a character for each byte."""
    return os.fsencode(name).decode(_BYTES)


def _keys(name: str) -> Iterator[_Key]:
    yield _ANY_NAME
    yield "=", name
    for at in range(len(name)):
        yield "^", name[: at + 1]
        yield "$", name[at:]


def _pattern(line: str, depth: int) -> tuple[Pattern, bool] | None:
    """What a line looks for, and whether it ignores that; None where it looks for nothing."""
    if line.startswith("#"):
        return None
    line = _without_trailing_spaces(line)
    ignores = not line.startswith("!")
    line = line if ignores else line[1:]
    only_folders = line.endswith("/")
    line = line.removesuffix("/")
    segments = _segments(line.removeprefix("/"))
    if not line or segments is None:
        return None
    by_name = "/" not in line
    # A name at any depth is a name.
    if len(segments) == 2 and _is_any_depth(segments[0]) and not _is_any_depth(segments[1]):
        segments, by_name = segments[1:], True
    return Pattern(segments, only_folders, None if by_name else depth), ignores


def _segments(pattern: str) -> tuple[str, ...] | None:
    """Split a pattern at slashes outside of brackets; None where the pattern matches nothing."""
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


def _matches_path(segments: Sequence[str], parts: Sequence[str], begin: int) -> bool:
    """Match segments and parts one by one; `**` takes as many parts as it must, the last one at least one."""
    at, place, star, mark = 0, begin, -1, 0
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
    """Read a character class, from behind its opening bracket."""
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
