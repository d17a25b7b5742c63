"""The documentation of the layers is written from their records and docstrings."""

import runpy
from pathlib import Path

import pytest

from dropkit.nn import COMPOSED, LAYERS

FOLDER = Path(__file__).parents[2] / "docs" / "layers"


def test_the_pages_are_those_of_the_layers():
    """`make pages` writes them."""
    pages = runpy.run_path(str(FOLDER.parent / "write_layers.py"))["pages"]()

    files = [*FOLDER.glob("*.md"), *FOLDER.glob("*.svg")]
    assert {file.name: file.read_text(encoding="utf-8") for file in files} == pages


@pytest.mark.parametrize("record", [*LAYERS, *COMPOSED], ids=lambda record: record.name)
def test_every_layer_says_where_it_is_put(record):
    """The table "which dropout where" has a cell for it."""
    assert record.where
    assert not record.where.endswith(".")
