"""Every benchmark can be imported, and docs/benchmarks.md describes it with its own words."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if "def rows()" in file.read_text())


@pytest.fixture
def load(monkeypatch):
    """A function that imports a file of benchmarks/, which is forgotten after the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == FOLDER:
            del sys.modules[name]


@pytest.fixture
def runner(load):
    """benchmarks/__main__.py, which is imported under its own name."""
    spec = importlib.util.spec_from_file_location("benchmarks_main", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_is_listed(runner):
    """`make bench` runs each file that has rows."""
    assert sorted(runner.BENCHMARKS) == NAMES


def test_the_page_is_what_the_record_says(load, runner):
    """Each section has the question and the explanation of the docstring, the rows that were kept, and the machine."""
    kept = json.loads(runner.RECORD.read_text())

    assert runner.page(kept) == runner.PAGE.read_text()


def test_the_bytes_saved_for_backward_are_those_of_a_key(load):
    """The benchmark counts 8 bytes, where torch saves a mask."""
    row = load("forward_backward").saved_bytes()

    assert (row.ours, row.met) == ("8 B", "yes")
