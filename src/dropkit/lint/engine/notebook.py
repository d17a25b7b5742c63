"""Read Jupyter notebooks: join their code cells to one text, and map findings and edits back to cells.

Cells that cannot be parsed are left out of the text, so that the others are checked.
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
from dropkit.lint.semantic.source_text import Text, Unreadable


class NotANotebook(Unreadable):
    """The file is not a Jupyter notebook."""


class UnknownLayout(ValueError):
    """The file cannot be written back without other changes than the edits."""


@dataclass(frozen=True, slots=True)
class UnreadCell:
    """A code cell that could not be read, and why. Cells count from 1, over all kinds; `line` counts in the cell."""

    cell: int
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"cell {self.cell}{line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook and its code. The cell with number `cells[i]` begins at byte `begins[i]` of `text`."""

    document: dict[str, Any]
    original: bytes
    cells: tuple[int, ...]
    begins: tuple[int, ...]
    text: Text
    unread: tuple[UnreadCell, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Notebook:
        """Read a notebook.

        Raises:
            NotANotebook: `data` is not JSON, or has no list of cells.
        """
        try:
            document = _load(data)
        except RecursionError as error:
            raise NotANotebook("not a notebook: nested too deeply") from error
        except ValueError as error:
            raise NotANotebook(f"not a notebook: {error}") from error
        if not isinstance(_field(document, "cells"), list):
            raise NotANotebook("not a notebook: it has no list of cells")
        code = _code(document)
        notebook = cls._join(document, data, code)
        try:
            notebook.text.parse()
            return notebook
        except Unreadable:
            # Parse each cell by itself, to leave out those that are wrong.
            return cls._join(document, data, {number: _parsed(number, source) for number, source in code.items()})

    @classmethod
    def _join(cls, document: dict[str, Any], data: bytes, code: Mapping[int, bytes | UnreadCell]) -> Notebook:
        sources = {number: source + b"\n" for number, source in code.items() if isinstance(source, bytes)}
        ends = list(accumulate(map(len, sources.values()), initial=0))
        unread = tuple(cell for cell in code.values() if isinstance(cell, UnreadCell))
        return cls(document, data, tuple(sources), tuple(ends[:-1]), Text(b"".join(sources.values())), unread)

    def to_cell(self, finding: Diagnostic) -> Diagnostic:
        """Map a finding in `text` to its cell: lines and edits count in the cell."""
        span = finding.span
        index = bisect_right(self.begins, self.text.starts[span.line - 1]) - 1
        shift = self.text.position(self.begins[index])[0] - 1
        span = Span(span.line - shift, span.column, span.end_line - shift, span.end_column)
        return _moved(replace(finding, span=span, cell=self.cells[index]), -self.begins[index])

    def from_cell(self, finding: Diagnostic) -> Diagnostic:
        """Map the edits of a finding in a cell back to `text`."""
        return _moved(finding, self.begins[bisect_left(self.cells, finding.cell or 1)])

    def cell_text(self, cell: int) -> Text:
        """The source of a cell."""
        return Text("".join(self.document["cells"][cell - 1]["source"]).encode())

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """Return the content of the file after edits of `text`.

        Raises:
            UnknownLayout: writing it would change more than the edits do.
        """
        write = _writer(self.document, self.original)
        document = _load(self.original)
        by_cell: dict[int, list[Edit]] = {}
        for edit in edits:
            index = bisect_right(self.begins, edit.start) - 1
            begin = self.begins[index]
            moved = replace(edit, start=edit.start - begin, end=edit.end - begin)
            by_cell.setdefault(self.cells[index], []).append(moved)
        for number, cell_edits in by_cell.items():
            new = self.cell_text(number).edited(cell_edits).utf8.decode()
            cell = document["cells"][number - 1]
            cell["source"] = new if isinstance(cell["source"], str) else new.splitlines(keepends=True)
        return write(document)


def _load(data: bytes) -> Any:
    return json.loads(data, parse_int=_number)


def _field(value: Any, name: str) -> Any:
    """The field of a JSON object; None if it has no such field, or is not an object."""
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _number(digits: str) -> int | float:
    """Read an integer, or the nearest float if it has more digits than Python reads."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _code(document: dict[str, Any]) -> dict[int, bytes | UnreadCell]:
    """The source of each code cell, without IPython syntax, by number; nothing if the notebook is not Python."""
    if not _is_python(_field(document, "metadata")):
        return {}
    sources = ((number, _source(number, cell)) for number, cell in enumerate(document["cells"], 1))
    return {number: source for number, source in sources if source is not None}


def _is_python(metadata: Any) -> bool:
    """Whether the language of the kernel is Python, which is the default."""
    for section, name in (("language_info", "name"), ("kernelspec", "language")):
        language = _field(_field(metadata, section), name)
        if isinstance(language, str):
            return "python" in language.lower()
    return True


def _source(number: int, cell: Any) -> bytes | UnreadCell | None:
    kind, source = _field(cell, "cell_type"), _field(cell, "source")
    if not isinstance(kind, str):
        return UnreadCell(number, "has no cell_type")
    if kind != "code":
        return None
    parts = [source] if isinstance(source, str) else source
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in cast("list[Any]", parts)):
        return UnreadCell(number, "its source must be text")
    try:
        return without_magic("".join(cast("list[str]", parts))).encode()
    except UnicodeEncodeError:
        return UnreadCell(number, "holds half of a surrogate pair, which is not a character")


def _parsed(number: int, source: bytes | UnreadCell) -> bytes | UnreadCell:
    if isinstance(source, bytes):
        try:
            Text(source).parse()
        except Unreadable as error:
            return UnreadCell(number, error.reason, error.line)
    return source


def _moved(finding: Diagnostic, by: int) -> Diagnostic:
    if finding.fix is None:
        return finding
    edits = tuple(replace(edit, start=edit.start + by, end=edit.end + by) for edit in finding.fix.edits)
    return replace(finding, fix=replace(finding.fix, edits=edits))


def _writer(document: Any, original: bytes) -> Callable[[Any], bytes]:
    """Return a function that writes notebooks with the layout of `original`: indent, separators, line ends, escapes.

    Raises:
        UnknownLayout: the layout is not uniform.
    """
    match = re.match(rb"\{(\r?\n)([ \t]*)", original)
    newline, indent = (None, None) if match is None else (match[1].decode(), match[2].decode())
    end = original[len(original.rstrip()) :]

    def write(document: Any, ascii_only: bool, separators: tuple[str, str] | None) -> bytes:
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
        # JSON strings contain no line feeds: all of these are layout.
        return text.replace("\n", newline or "\n").encode() + end

    for ascii_only in (original.isascii(), not original.isascii()):
        for separators in (None, (",", ":")):
            with suppress(UnicodeEncodeError, RecursionError):
                if write(document, ascii_only, separators) == original:
                    return partial(write, ascii_only=ascii_only, separators=separators)
    raise UnknownLayout("its JSON is not formatted as Jupyter formats it; open and save it in Jupyter first")
