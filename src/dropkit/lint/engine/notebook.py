"""Notebooks: the code cells one after the other as one text, findings and edits taken back to their cells.

A cell that is not Python is left out of the text, and the others are read.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, cast

from dropkit.diagnostics import Diagnostic, Edit, Span
from dropkit.lint.engine.ipython import without_magic
from dropkit.lint.semantic.parsing import Unreadable, parse
from dropkit.lint.semantic.source_text import Text


class NotANotebook(ValueError):
    """The file is not a notebook of the format that Jupyter writes."""


class OddLayout(ValueError):
    """The file cannot be written so that only what is edited changes."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A code cell, from 1 over all cells, that could not be read, and why; `line` counts in it."""

    cell: int
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"cell {self.cell}{line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook and its code. `begins` holds, for each of `cells` (from 1), the byte of `text` that it begins at."""

    document: dict[str, Any]
    original: bytes
    cells: tuple[int, ...]
    begins: tuple[int, ...]
    text: Text
    unread: tuple[Unread, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Notebook:
        """Read a notebook.

        Raises:
            NotANotebook: it is not JSON, or has no list of cells.
        """
        try:
            document = _loaded(data)
        except RecursionError as error:
            raise NotANotebook("not a notebook: nested too deeply") from error
        except ValueError as error:
            raise NotANotebook(f"not a notebook: {error}") from error
        if not isinstance(_held(document, "cells"), list):
            raise NotANotebook("not a notebook: it has no list of cells")
        code = _code(document)
        joined = cls._joined(document, data, code)
        try:
            parse(joined.text)
            return joined
        except Unreadable:
            # Something is wrong somewhere: each cell is looked at by itself.
            return cls._joined(document, data, {number: _parsed(number, source) for number, source in code.items()})

    @classmethod
    def _joined(cls, document: dict[str, Any], data: bytes, code: Mapping[int, bytes | Unread]) -> Notebook:
        sources = {number: source + b"\n" for number, source in code.items() if isinstance(source, bytes)}
        ends = list(accumulate(map(len, sources.values()), initial=0))
        unread = tuple(one for one in code.values() if isinstance(one, Unread))
        return cls(document, data, tuple(sources), tuple(ends[:-1]), Text(b"".join(sources.values())), unread)

    def place(self, finding: Diagnostic) -> Diagnostic:
        """The finding with its cell, from 1 over all cells, and lines counted in it."""
        span = finding.span
        index = bisect_right(self.begins, self.text.starts[span.line - 1]) - 1
        shift = self.text.position(self.begins[index])[0] - 1
        span = Span(span.line - shift, span.column, span.end_line - shift, span.end_column)
        return _moved(replace(finding, span=span, cell=self.cells[index]), -self.begins[index])

    def unplace(self, finding: Diagnostic) -> Diagnostic:
        """The finding with its edits counted in `text` again."""
        return _moved(finding, self.begins[bisect_left(self.cells, finding.cell or 1)])

    def cell_text(self, cell: int) -> Text:
        """The source of a cell, from 1."""
        return Text("".join(self.document["cells"][cell - 1]["source"]).encode())

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The file after edits of `text`.

        Raises:
            OddLayout: writing it would change more than those.
        """
        write = _writer(self.document, self.original)
        document = _loaded(self.original)
        by_cell: dict[int, list[Edit]] = {}
        for edit in edits:
            index = bisect_right(self.begins, edit.start) - 1
            begin = self.begins[index]
            moved = replace(edit, start=edit.start - begin, end=edit.end - begin)
            by_cell.setdefault(self.cells[index], []).append(moved)
        for cell, mine in by_cell.items():
            new = self.cell_text(cell).edited(mine).utf8.decode()
            held = document["cells"][cell - 1]
            held["source"] = new if isinstance(held["source"], str) else new.splitlines(keepends=True)
        return write(document)


def _loaded(data: bytes) -> Any:
    return json.loads(data, parse_int=_number)


def _held(value: Any, name: str) -> Any:
    """What a JSON object holds by this name; None where it does not, or is no object."""
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _number(digits: str) -> int | float:
    """An integer; of more digits than Python reads, what is nearest."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _code(document: dict[str, Any]) -> dict[int, bytes | Unread]:
    """The source of each Python cell, without IPython syntax."""
    if not _is_python(_held(document, "metadata")):
        return {}
    sources = ((number, _source(number, cell)) for number, cell in enumerate(document["cells"], 1))
    return {number: source for number, source in sources if source is not None}


def _is_python(metadata: Any) -> bool:
    """Whether the kernel runs Python; where nothing is said of it, it does."""
    for about, name in (("language_info", "name"), ("kernelspec", "language")):
        language = _held(_held(metadata, about), name)
        if isinstance(language, str):
            return "python" in language.lower()
    return True


def _source(number: int, cell: Any) -> bytes | Unread | None:
    kind, source = _held(cell, "cell_type"), _held(cell, "source")
    if not isinstance(kind, str):
        return Unread(number, "has no cell_type")
    if kind != "code":
        return None
    parts = [source] if isinstance(source, str) else source
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in cast("list[Any]", parts)):
        return Unread(number, "its source must be text")
    try:
        return without_magic("".join(cast("list[str]", parts))).encode()
    except UnicodeEncodeError:
        return Unread(number, "holds half of a surrogate pair, which is no character")


def _parsed(number: int, source: bytes | Unread) -> bytes | Unread:
    if isinstance(source, bytes):
        try:
            parse(Text(source))
        except Unreadable as error:
            return Unread(number, error.reason, error.line)
    return source


def _moved(finding: Diagnostic, by: int) -> Diagnostic:
    if finding.fix is None:
        return finding
    edits = tuple(replace(edit, start=edit.start + by, end=edit.end + by) for edit in finding.fix.edits)
    return replace(finding, fix=replace(finding.fix, edits=edits))


def _writer(document: Any, original: bytes) -> Callable[[Any], bytes]:
    """What writes a notebook in the style of this one: indent, separators, line ends, characters beyond ASCII.

    Raises:
        OddLayout: it has none that is the same from beginning to end.
    """
    match = re.match(rb"\{(\r?\n)([ \t]*)", original)
    newline, indent = (None, None) if match is None else (match[1].decode(), match[2].decode())
    end = original[len(original.rstrip()) :]

    def write(document: Any, ascii_only: bool, separators: tuple[str, str] | None) -> bytes:
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
        # Within the strings of JSON line feeds are escaped.
        return text.replace("\n", newline or "\n").encode() + end

    for ascii_only in (original.isascii(), not original.isascii()):
        for separators in (None, (",", ":")):
            with suppress(UnicodeEncodeError, RecursionError):
                if write(document, ascii_only, separators) == original:
                    return partial(write, ascii_only=ascii_only, separators=separators)
    raise OddLayout("its JSON is not laid out as Jupyter lays it out; saving it in Jupyter first makes it so")
