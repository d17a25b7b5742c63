"""The tutorials run, and what they assert holds."""

import re
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("[!R]*.md"))


@pytest.mark.long
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, torchvision, monkeypatch):
    """All cells of a page run in order, in one namespace."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)

    names = {}
    for cell in cells:
        exec(compile(cell, str(page), "exec"), names)

    assert cells
