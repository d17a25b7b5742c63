"""Run the examples of docstrings, of the README and of docs/ as tests."""

import doctest
from collections.abc import Iterator

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import dropkit

# Scripts, which print and exit when imported, and modules that import Lightning, Transformers or MkDocs: they have
# tests of their own.
collect_ignore_glob = ["docs/site/*", "examples/*", "src/dropkit/callbacks/*"]

_python = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest, doctest_namespace: dict[str, object]) -> None:
    """Give docstrings the names `torch` and `dropkit`. Other tests may run where torch is not installed."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        doctest_namespace.update(torch=torch, dropkit=dropkit)


def _parse_page(document: Document) -> Iterator[Region]:
    """Yield one test per page: its code blocks build on each other, so that one process must run them all."""
    blocks = Document(document.text, document.path)
    for block in _python(document):
        blocks.add(block)
    if blocks.regions:
        yield Region(0, document.end, blocks, _run_page)


def _run_page(page: Example) -> None:
    try:
        for block in page.parsed.examples():
            block.evaluate()
    finally:
        dropkit.uninstall()


pytest_collect_file = Sybil(parsers=[_parse_page], patterns=["README.md", "docs/*.md"]).pytest()
