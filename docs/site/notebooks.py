"""Tutorials: pages of Markdown that are notebooks, executed when the site is built."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

# A cell that takes longer than this, in seconds, is an error.
TIMEOUT = 120
ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / "src"), str(ROOT / "tests")]
# torchvision's wheel does not import beside a build of torch without CUDA, and timm and transformers import it.
SETUP = "from helpers.torchvision_import import import_torchvision\nimport_torchvision();"


def execute(source: str) -> Any:
    """The page as a notebook, with what its cells print and draw. An error in a cell is one of the build."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SETUP), *_cells(source)])
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
    # Without the kernel's warning that it listens on this machine, unencrypted.
    options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": folder}}, **options).execute()
    del notebook.cells[0]
    return notebook


def markdown(notebook: Any) -> str:
    """The notebook as a page, with pictures inside of it."""
    return "\n\n".join(part for cell in notebook.cells for part in _cell(cell))


def to_file(notebook: Any) -> str:
    """The notebook as Jupyter saves it."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(notebook)


def _cells(source: str) -> list[Any]:
    """The cells of a page: its blocks of Python, and the text between them."""
    kinds = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell)
    parts = re.split(r"^```python\n(.*?)^```$", source, flags=re.DOTALL | re.MULTILINE)
    return [kinds[index % 2](part.strip()) for index, part in enumerate(parts) if part.strip()]


def _cell(cell: Any) -> list[str]:
    if cell.cell_type != "code":
        return [cell.source]
    # What goes to stderr are progress bars and remarks on the machine.
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    shown = [_shown(output) for output in cell.outputs if output.output_type != "stream"]
    return [f"```python\n{cell.source}\n```", *([_block(printed)] if printed else []), *shown]


def _shown(output: Any) -> str:
    if "image/png" in output.data:
        return f"![](data:image/png;base64,{''.join(output.data['image/png'].split())})"
    return _block(output.data["text/plain"])


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
