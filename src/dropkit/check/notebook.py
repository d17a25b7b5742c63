"""Notebooks: the code cells one after the other as one text, findings and edits taken back to their cells."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dropkit.facts.finding import Edit, Finding, Span
from dropkit.facts.text import Text

_MAGIC = re.compile(r"^(\s*)([%!?]|[\w.]+\?)")


class NotANotebook(ValueError):
    """The file is not a notebook of the format that Jupyter writes."""


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook and its code. `first` holds, for each cell, the line of `text` that it begins at."""

    document: dict[str, Any]
    original: bytes
    cells: tuple[int, ...]
    first: tuple[int, ...]
    text: Text

    @classmethod
    def parse(cls, data: bytes) -> Notebook:
        """Read a notebook.

        Raises:
            NotANotebook: it is not JSON, or has no list of cells.
        """
        try:
            document = json.loads(data)
            cells = [(i, cell) for i, cell in enumerate(document["cells"]) if cell["cell_type"] == "code"]
            sources = ["".join(cell["source"]) for _, cell in cells]
        except (ValueError, KeyError, TypeError) as error:
            raise NotANotebook(f"not a notebook: {error}") from error
        lines: list[str] = []
        first: list[int] = []
        for source in sources:
            first.append(len(lines) + 1)
            lines.extend(_without_magic(source))
        code = "\n".join(lines) + "\n"
        return cls(document, data, tuple(i for i, _ in cells), tuple(first), Text(code.encode()))

    def place(self, finding: Finding) -> Finding:
        """The finding with its cell, from 1 over all cells, and lines counted in it."""
        index = bisect_right(self.first, finding.span.line) - 1
        shift = self.first[index] - 1
        span = finding.span
        span = Span(span.line - shift, span.column, span.end_line - shift, span.end_column)
        placed = replace(finding, span=span, cell=self.cells[index] + 1)
        return _moved(placed, -self.text.starts[self.first[index] - 1])

    def unplace(self, finding: Finding) -> Finding:
        """The finding with its edits counted in `text` again."""
        index = self.cells.index((finding.cell or 1) - 1)
        return _moved(finding, self.text.starts[self.first[index] - 1])

    def cell_text(self, cell: int) -> Text:
        """The source of a cell, from 1."""
        return Text("".join(self.document["cells"][cell - 1]["source"]).encode())

    def edited(self, edits: Sequence[Edit]) -> bytes | None:
        """The file after edits of `text`; None where writing it would change more than those."""
        indent = _indent(self.original)
        if _dump(self.document, indent, self.original) != self.original:
            return None
        document = json.loads(self.original)
        for index, cell in enumerate(self.cells):
            begin = self.text.starts[self.first[index] - 1]
            source = self.cell_text(cell + 1)
            end = begin + len(source.utf8)
            mine = [
                replace(e, start=e.start - begin, end=e.end - begin) for e in edits if begin <= e.start <= e.end <= end
            ]
            if mine:
                new = source.edited(mine).utf8.decode()
                old = document["cells"][cell]["source"]
                document["cells"][cell]["source"] = new if isinstance(old, str) else new.splitlines(keepends=True)
        return _dump(document, indent, self.original)


def _moved(finding: Finding, by: int) -> Finding:
    if finding.fix is None:
        return finding
    edits = tuple(replace(edit, start=edit.start + by, end=edit.end + by) for edit in finding.fix.edits)
    return replace(finding, fix=replace(finding.fix, edits=edits))


def _without_magic(source: str) -> list[str]:
    """Lines of a cell with what only IPython understands turned into as many characters of nothing."""
    lines = source.split("\n")
    if lines[0].startswith("%%") and not lines[0].startswith(("%%time", "%%capture")):
        return ["#" * len(line) for line in lines]
    blank: list[str] = []
    for line in lines:
        match = _MAGIC.match(line)
        # An expression in its place keeps a block that holds nothing else.
        blank.append(
            line if match is None else match[1] + ("0#" + line[len(match[1]) + 2 :])[: len(line) - len(match[1])]
        )
    return blank


def _indent(data: bytes) -> int | None:
    match = re.match(rb"\{\r?\n( +)", data)
    return len(match[1]) if match else None


def _dump(document: Any, indent: int | None, like: bytes) -> bytes:
    end = "\n" if like.endswith(b"\n") else ""
    for ascii_only in (False, True):
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only) + end
        if not ascii_only and not any(byte > 127 for byte in like) and not text.isascii():
            continue
        return text.encode()
    return b""
