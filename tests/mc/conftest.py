"""Fixtures of the tests of Monte Carlo dropout."""

from pathlib import Path

import pytest
from helpers.mc_command import PROGRAM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(PROGRAM)
    return tmp_path
