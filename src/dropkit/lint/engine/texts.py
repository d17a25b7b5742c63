"""Read the texts that findings refer to: files, or cells of notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from dropkit import files
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.check_file import open_notebook
from dropkit.lint.semantic.source_text import Text


def texts_of(findings: Iterable[Diagnostic], contents: Mapping[str, bytes]) -> dict[tuple[str, int | None], Text]:
    """The text for each (path, cell) with findings, from `contents` or read again; empty where that fails.

    Each file is read once. It may have changed since it was checked.
    """
    texts: dict[tuple[str, int | None], Text] = {}
    for path, cells in _cells_by_path(findings).items():
        text_of: Callable[[int | None], Text] = _no_text
        with suppress(OSError, ValueError, LookupError, TypeError):
            text_of = _reader(path, contents[path] if path in contents else files.read(path))
        for cell in cells:
            texts[path, cell] = _no_text(cell)
            with suppress(ValueError, LookupError, TypeError):
                texts[path, cell] = text_of(cell)
    return texts


def _cells_by_path(findings: Iterable[Diagnostic]) -> dict[str, dict[int | None, None]]:
    """The cells with findings, None for a file that is no notebook, each once and in order."""
    cells: dict[str, dict[int | None, None]] = {}
    for finding in findings:
        cells.setdefault(finding.path, {})[finding.cell] = None
    return cells


def _reader(path: str, data: bytes) -> Callable[[int | None], Text]:
    """Parse a file, and return a function from a cell to its text."""
    notebook = open_notebook(path, data)
    if notebook is not None:
        return lambda cell: _no_text(cell) if cell is None else notebook.cell_text(cell)
    text = Text.decode(data)
    return lambda _: text


def _no_text(_: int | None) -> Text:
    return Text(b"")
