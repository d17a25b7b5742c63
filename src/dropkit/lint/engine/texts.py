"""Read the texts that findings refer to: files, or cells of notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from dropkit import files
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.check_file import open_notebook
from dropkit.lint.semantic.source_text import Text
from dropkit.lint.semantic.syntax_tree import grouped


def texts_of(findings: Iterable[Diagnostic], contents: Mapping[str, bytes]) -> dict[tuple[str, int | None], Text]:
    """The text for each (path, cell) with findings, from `contents` or read again; empty where that fails.

    Each file is read once. It may have changed since it was checked.
    """
    texts: dict[tuple[str, int | None], Text] = {}
    for path, cells in grouped((finding.path, finding.cell) for finding in findings).items():
        texts.update({(path, cell): Text(b"") for cell in cells})
        with suppress(OSError, ValueError, LookupError, TypeError):
            data = contents[path] if path in contents else files.read(path)
            notebook = open_notebook(path, data)
            text = Text.decode(data if notebook is None else b"")
            for cell in dict.fromkeys(cells):
                with suppress(ValueError, LookupError, TypeError):
                    texts[path, cell] = text if notebook is None or cell is None else notebook.cell_text(cell)
    return texts
