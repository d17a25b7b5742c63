"""Match paths against .gitignore files as git does. No pattern is an error, and matching takes quadratic time at most.

Source: git-scm.com, "gitignore"; details that it leaves open follow git's wildmatch.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

_WILD = re.compile(r"[*?\[\\]")
# git compares bytes, so that `?` matches one byte: each byte becomes one character.
_BYTES = "latin-1"
_MATCHES_NOTHING = "(?!)"
# The longest file name on common file systems: a longer segment of a pattern matches nothing.
_MAX_NAME = 255
_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": r"\x21-\x7e", "lower": "a-z", "print": r"\x20-\x7e", "punct": r"!-/:-@\[-`{-~", "space": r" \t\n\r\f\v",
    "upper": "A-Z", "xdigit": "0-9A-Fa-f",
}  # fmt: skip

# An index key: the whole name ("=", name), a prefix ("^", ...), a suffix ("$", ...), or any name.
_Key = tuple[str, str]
_ANY_NAME = ("", "")
_LITERAL_PREFIX = re.compile(r"[^*?\[\\]*")
_LITERAL_SUFFIX = re.compile(r"[^*?\[\]\\]*\Z")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. `segments` are matched against the parts of a path from `depth` on.

    If `depth` is None there is one segment, which is matched against the name alone.
    """

    segments: tuple[str, ...]
    only_folders: bool
    depth: int | None

    @property
    def key(self) -> _Key:
        """The index key that every matching name has."""
        last = self.segments[-1]
        if _is_any_depth(last):
            return _ANY_NAME
        if _WILD.search(last) is None:
            return "=", last
        prefix, suffix = _LITERAL_PREFIX.match(last), _LITERAL_SUFFIX.search(last)
        if prefix is not None and prefix[0]:
            return "^", prefix[0]
        return ("$", suffix[0]) if suffix is not None and suffix[0] else _ANY_NAME

    def matches(self, parts: Sequence[str], is_folder: bool) -> bool:
        """Whether the path with these parts matches."""
        if self.only_folders and not is_folder:
            return False
        if self.depth is None:
            return _matches_name(self.segments[0], parts[-1])
        return _matches_path(self.segments, parts, self.depth)


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns of nested .gitignore files, outermost first. The last matching pattern decides.

    `index` maps a key and a pattern to its line number, over all files, and to whether it ignores or un-ignores: a
    name is matched only against the few patterns with a key of its own.
    """

    lines: int = 0
    index: Mapping[_Key, Mapping[Pattern, tuple[int, bool]]] = field(
        default_factory=dict["_Key", "Mapping[Pattern, tuple[int, bool]]"]
    )

    def with_file(self, data: bytes, depth: int) -> Patterns:
        """Add the patterns of a .gitignore that lies `depth` folders below the one that paths are relative to."""
        added: dict[_Key, dict[Pattern, tuple[int, bool]]] = {}
        number = self.lines
        for line in data.removeprefix(b"\xef\xbb\xbf").decode(_BYTES).split("\n"):
            number += 1
            parsed = _parse_line(line.removesuffix("\r"), depth)
            if parsed is not None:
                pattern, ignores = parsed
                added.setdefault(pattern.key, {})[pattern] = number, ignores
        merged = {key: {**self.index.get(key, {}), **patterns} for key, patterns in added.items()}
        return Patterns(number, {**self.index, **merged})

    def ignores(self, parts: Sequence[str], is_folder: bool) -> bool | None:
        """Whether a path is ignored, of which each part is as of `part_of_path`; None if no pattern matches."""
        if not self.index:
            return None
        last, result = 0, None
        for key in _keys(parts[-1]):
            for pattern, (number, ignores) in self.index.get(key, {}).items():
                if number > last and pattern.matches(parts, is_folder):
                    last, result = number, ignores
        return result


def part_of_path(name: str) -> str:
    """Encode a name for matching: one character for each byte."""
    return os.fsencode(name).decode(_BYTES)


def _keys(name: str) -> Iterator[_Key]:
    yield _ANY_NAME
    yield "=", name
    for at in range(len(name)):
        yield "^", name[: at + 1]
        yield "$", name[at:]


def _parse_line(line: str, depth: int) -> tuple[Pattern, bool] | None:
    """The pattern of a line, and whether it ignores or un-ignores; None if the line matches nothing."""
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
    # `**/name` is the same as `name`.
    if len(segments) == 2 and _is_any_depth(segments[0]) and not _is_any_depth(segments[1]):
        segments, by_name = segments[1:], True
    return Pattern(segments, only_folders, None if by_name else depth), ignores


def _segments(pattern: str) -> tuple[str, ...] | None:
    """Split a pattern at slashes outside of brackets; None if the pattern matches nothing."""
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
    """Match segments against parts; `**` matches as few parts as possible, and at least one at the end."""
    # After a mismatch the last `**` matches one more part; `star` is its index, `star_end` the part after it.
    at, part, star, star_end = 0, begin, -1, 0
    while part < len(parts):
        if at < len(segments) and _is_any_depth(segments[at]):
            if at == len(segments) - 1:
                return True
            star, star_end, at = at, part, at + 1
        elif at < len(segments) and _matches_name(segments[at], parts[part]):
            at, part = at + 1, part + 1
        elif star >= 0:
            star_end += 1
            at, part = star + 1, star_end
        else:
            return False
    return at == len(segments)


def _is_any_depth(segment: str) -> bool:
    return len(segment) > 1 and not segment.strip("*")


def _matches_name(segment: str, name: str) -> bool:
    return segment == name if _WILD.search(segment) is None else _expression(segment).match(name) is not None


@cache
def _expression(segment: str) -> re.Pattern[str]:
    """Translate a segment to a regular expression that does not backtrack over stars."""
    # The tokens between stars.
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(segment):
        if segment[at] == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append([])
            at += 1
            continue
        token, at = _token(segment, at)
        pieces[-1].append(token or _MATCHES_NOTHING)
    if sum(map(len, pieces)) > _MAX_NAME:
        return re.compile(_MATCHES_NOTHING)
    first, *rest = map("".join, pieces)
    if not rest:
        return re.compile(rf"{first}\Z", re.DOTALL)
    *middle, last = rest
    # A look-ahead is not retried once it has matched: each piece stays at the first place where it fits.
    middle = [f"(?=(.*?{piece}))\\{number}" for number, piece in enumerate(filter(None, middle), 1)]
    return re.compile(rf"{first}{''.join(middle)}.*{last}\Z", re.DOTALL)


def _token(segment: str, at: int) -> tuple[str | None, int]:
    """A regular expression for one character, or None if nothing matches; and where the next token begins."""
    character = segment[at]
    if character == "?":
        return ".", at + 1
    if character == "\\":
        return (re.escape(segment[at + 1]), at + 2) if at + 1 < len(segment) else (None, at + 1)
    if character == "[":
        return _bracket(segment, at + 1)
    return re.escape(character), at + 1


def _bracket(segment: str, at: int) -> tuple[str | None, int]:
    """As `_token`, for a character class; `at` is behind its opening bracket."""
    negated = segment[at : at + 1] in ("!", "^")
    at += negated
    items: list[str] = []
    begin = at
    low: str | None = None
    while at < len(segment) and (segment[at] != "]" or at == begin):
        # A named class, [:alpha:], ends at the first bracket.
        end = segment.find("]", at + 2) if segment.startswith("[:", at) else -1
        if end > at + 2 and segment[end - 1] == ":":
            if segment[at + 2 : end - 1] not in _CLASSES:
                return None, at
            items.append(_CLASSES[segment[at + 2 : end - 1]])
            at, low = end + 1, None
            continue
        is_range = segment[at] == "-" and low is not None and segment[at + 1 : at + 2] not in ("", "]")
        at += is_range
        at += segment[at] == "\\"
        if at >= len(segment):
            return None, at
        character = segment[at]
        if is_range and low is not None:
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
