"""What the examples of docstrings, of the README and of docs/ need in order to run as tests."""

import doctest
from collections.abc import Iterator

import pytest
import torch
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import dropkit

# Scripts, which print and exit when imported, and files that import others' trainers: tests of their own run them.
collect_ignore_glob = ["examples/*", "src/dropkit/callbacks/*"]

_python = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(torch=torch, dropkit=dropkit)


def _page(document: Document) -> Iterator[Region]:
    """One test a page: its blocks build on each other, and pytest-xdist would spread them over processes."""
    blocks = Document(document.text, document.path)
    for block in _python(document):
        blocks.add(block)
    if blocks.regions:
        yield Region(0, document.end, blocks, _run)


def _run(page: Example) -> None:
    try:
        for block in page.parsed.examples():
            block.evaluate()
    finally:
        dropkit.uninstall()


pytest_collect_file = Sybil(parsers=[_page], patterns=["README.md", "docs/*.md"]).pytest()
