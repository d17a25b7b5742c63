"""Names that the examples of docstrings and documents take for granted."""

import pytest
import torch

import dropkit


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(torch=torch, dropkit=dropkit)
