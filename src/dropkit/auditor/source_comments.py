"""What the program itself says of a line that an audit points at: that it is silent, or that dropout is to stay on."""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache

from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noqa import Comments
from dropkit.lint.semantic.parsing import Unreadable, read
from dropkit.lint.semantic.source_text import Text
from dropkit.lint.semantic.training_flag import named_around, on_purpose
from dropkit.trace import Place


def silences(place: Place, code: str) -> bool:
    """Whether a comment on the line, or one for its file, silences a rule."""
    text = _text(place.file)
    return text is not None and Comments(text).silences(code, (place.line,))


def means_it(place: Place) -> bool:
    """Whether a docstring, a comment beside the line or a marker says that dropout stays on."""
    return any(on_purpose(module, call) for module, call in _calls(place))


def is_named_so(place: Place) -> bool:
    """Whether the name of a function or class around the line says so."""
    return any(named_around(module, call) for module, call in _calls(place))


def _calls(place: Place) -> list[tuple[SourceFile, ast.Call]]:
    """The calls on a line."""
    module = _module(place.file)
    if module is None:
        return []
    calls = (call for found in module.calls.values() for call in found)
    return [(module, call) for call in calls if call.lineno <= place.line <= (call.end_lineno or call.lineno)]


def _text(file: str) -> Text | None:
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    return Text("".join(lines).encode("utf-8", "surrogatepass")) if lines else None


def _module(file: str) -> SourceFile | None:
    text = _text(file)
    return None if text is None else _parsed(file, text.utf8)


@lru_cache(maxsize=16)
def _parsed(file: str, source: bytes) -> SourceFile | None:
    try:
        return read(file, Text(source))
    except Unreadable:
        return None
