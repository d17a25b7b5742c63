"""Read comments and names around a line of source: they may silence a rule, or say that dropout stays active."""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache

from dropkit.lint.semantic.always_on import is_marked_always_on, is_named_always_on
from dropkit.lint.semantic.model import SourceFile, read
from dropkit.lint.semantic.noqa import Comments
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.trace import Place


def silences(place: Place, code: str) -> bool:
    """Whether a comment on the line, or one for the whole file, silences a rule."""
    text = _text(place.file)
    return text is not None and Comments(text).silences(code, (place.line,))


def marks_always_on(place: Place) -> bool:
    """Whether a marker comment says that dropout on this line stays active in evaluation mode."""
    return any(is_marked_always_on(source, call) for source, call in _calls(place))


def names_always_on(place: Place) -> bool:
    """Whether names, docstrings or other comments around the line say that dropout stays active."""
    return any(is_named_always_on(source, call) for source, call in _calls(place))


def _calls(place: Place) -> list[tuple[SourceFile, ast.Call]]:
    """Return the calls on a line."""
    source = _source(place.file)
    if source is None:
        return []
    all_calls = (call for calls in source.calls.values() for call in calls)
    return [(source, call) for call in all_calls if call.lineno <= place.line <= (call.end_lineno or call.lineno)]


def _text(file: str) -> Text | None:
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    return Text("".join(lines).encode("utf-8", "surrogatepass")) if lines else None


def _source(file: str) -> SourceFile | None:
    text = _text(file)
    return None if text is None else _parse(file, text.utf8)


@lru_cache(maxsize=16)
def _parse(file: str, source: bytes) -> SourceFile | None:
    try:
        return read(file, Text(source))
    except Unreadable:
        return None
