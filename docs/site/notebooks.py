"""Tutorials: pages of Markdown that are notebooks, executed when the site is built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

# A cell that takes longer than this, in seconds, is an error.
TIMEOUT = 120
ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / "src"), str(ROOT / "tests")]
# torchvision's wheel does not import beside a build of torch without CUDA, and timm and transformers import it.
SETUP = "from helpers.torchvision_import import import_torchvision\nimport_torchvision();"


def execute(source: str, folder: Path) -> Any:
    """The page as a notebook, with what its cells print and draw. An error in a cell is one of the build."""
    notebook = jupytext.reads(source, fmt="md")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETUP))
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    del notebook.cells[0]
    return notebook


def markdown(notebook: Any) -> str:
    """The notebook as a page, with pictures inside of it."""
    return "\n\n".join(part for cell in notebook.cells for part in _cell(cell))


def to_file(notebook: Any) -> str:
    """The notebook as Jupyter saves it."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(notebook)


def _cell(cell: Any) -> list[str]:
    if cell.cell_type != "code":
        return [cell.source]
    return [f"```python\n{cell.source}\n```", *(text for output in cell.outputs if (text := _output(output)))]


def _output(output: Any) -> str:
    if output.output_type == "stream":
        # What goes to stderr are progress bars and remarks on the machine.
        return _block(output.text) if output.name == "stdout" else ""
    if "image/png" in output.data:
        return f"![](data:image/png;base64,{''.join(output.data['image/png'].split())})"
    return _block(output.data["text/plain"])


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
