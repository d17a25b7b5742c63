"""Every benchmark can be imported, and docs/benchmarks.md describes it with its own words."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if "def rows()" in file.read_text())


def test_every_benchmark_is_listed(load):
    """`make bench` runs each file that has rows."""
    assert sorted(load("record").BENCHMARKS) == NAMES


def test_the_page_is_what_the_record_says(load):
    """Each section has the question and the explanation of the docstring, the rows that were kept, and the machine."""
    record = load("record")
    kept = json.loads(record.RECORD.read_text())

    assert record.page(kept) == record.PAGE.read_text()


def test_the_bytes_saved_for_backward_are_those_of_a_key(load):
    """The benchmark counts 8 bytes, where torch saves a mask."""
    row = load("forward_backward").saved_bytes()

    assert (row.ours, row.met) == ("8 B", "yes")
