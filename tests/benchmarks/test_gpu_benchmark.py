"""The benchmark of GPUs without a GPU: each part runs on the CPU, on small tensors."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner


@pytest.fixture
def parts(load):
    """benchmarks/gpu/parts.py."""
    return load("gpu.parts")


@pytest.fixture
def cpu(load):
    """The device that the parts run on here."""
    return load("gpu.device").Device("cpu")


@pytest.fixture
def kept(load, monkeypatch, tmp_path):
    """A copy of the kept rows and of the page, which are written instead of those of the documentation."""
    record = load("record")
    for name in ("RECORD", "PAGE"):
        original = getattr(record, name)
        copy = tmp_path / original.name
        copy.write_text(original.read_text())
        monkeypatch.setattr(record, name, copy)
    return record


def made(parts, *rows, error=None, seconds=60.0, name="masks"):
    """A part under the name of a real one, with these rows, and then perhaps an error."""

    def make(device):
        """Is it so?"""
        yield from rows
        if error is not None:
            raise error

    make.__name__ = name
    return parts.Part(make, seconds)


def test_the_parts_take_less_than_eight_minutes(parts):
    """The shares of all parts leave time for starting Python."""
    assert sum(part.seconds for part in parts.PARTS) <= 470


def test_every_part_runs(parts, cpu):
    """Each part has rows; those that compare results find no difference between the CPU and itself."""
    for part in parts.PARTS:
        rows = list(part.rows(cpu))

        assert rows, part.name
        different = [row.case for row in rows if ("differ" in row.case or "error" in row.case) and row.met != "yes"]
        assert different == [], part.name


def test_unequal_values_are_counted(load):
    """Elements that differ miss the target; NaN is equal to NaN, but to no number."""
    here = torch.tensor([1.0, torch.nan, torch.nan, 0.0])
    there = torch.tensor([1.0, torch.nan, 0.0, 1.0])

    row = load("gpu.device").different("case", iter([(here, there), (here, here)]))

    assert (row.ours, row.theirs, row.met) == ("2", "of 8", "NO")


def test_targets_are_judged(load):
    """Faster and smaller are better by the ratio; what is counted is compared itself."""
    device = load("gpu.device")

    assert device.faster("", 2.0, 2.3, ">= 1.15").met == "yes"
    assert device.faster("", 2.0, 2.2, ">= 1.15").met == "NO"
    assert device.smaller("", 100, 99, ">= 1.0").met == "NO"
    assert (device.counted("", 1, 2, "<= 1").met, device.counted("", 2, 2, "<= 1").met) == ("yes", "NO")


def test_a_part_that_fails_does_not_stop_the_rest(parts, cpu, load, capsys):
    """Its rows so far, the rest of the parts and the number of missed targets are printed, and its error at once."""
    row, missed = (
        load("side_by_side").Row("first", "1 us", "2 us", 2.0, ">= 1"),
        load("gpu.device").faster("slow", 2, 1, ">= 1"),
    )
    broken = made(parts, row, error=ValueError("broken"), name="values")

    with pytest.raises(click.ClickException, match="incomplete: values"):
        parts.run(cpu, [broken, made(parts, missed)], record=False)

    output, errors = capsys.readouterr()
    assert "ValueError: broken" in errors
    assert "| first | 1 us | 2 us | 2 | >= 1 | yes |" in output
    assert "| slow | 2 s | 1 s | 0.5 | >= 1 | NO |" in output
    assert "| values is incomplete: ValueError, see the error output |" in output
    assert "targets missed: 1" in output


def test_a_part_ends_with_its_time(parts, cpu, load, capsys, monkeypatch):
    """A part that has used its share, and what others have saved, begins no other row; the next part runs."""
    row, now = load("side_by_side").Row("row", "", "", 1.0), [0.0]
    monkeypatch.setattr(parts, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def slow(device):
        for _ in range(5):
            now[0] += 4
            yield row

    with pytest.raises(click.ClickException, match="incomplete: slow"):
        parts.run(cpu, [made(parts, row, seconds=2), parts.Part(slow, 4), made(parts, row)], record=False)

    output, errors = capsys.readouterr()
    assert "no time is left" in errors
    assert output.count("| row |") == 1 + 2 + 1


def test_complete_parts_are_recorded(parts, cpu, load, kept):
    """The page gets a section with the question, the machine and the rows; a part that failed keeps its old ones."""
    row = load("side_by_side").Row("first", "1 us", "2 us", 2.0, ">= 1")

    with pytest.raises(click.ClickException):
        parts.run(cpu, [made(parts, row), made(parts, row, error=ValueError(), name="values")], record=True)

    record, page = json.loads(kept.RECORD.read_text()), kept.PAGE.read_text()
    assert record["gpu.masks"]["rows"] == [
        {"case": "first", "ours": "1 us", "theirs": "2 us", "ratio": 2.0, "target": ">= 1"}
    ]
    assert "gpu.values" not in record
    assert "## On a GPU: are masks and noise those of the CPU?\n" in page
    assert f"On {record['gpu.masks']['machine']}:\n\n| case |" in page
    assert "| first | 1 us | 2 us | 2 | >= 1 | yes |" in page
    assert "not been measured" not in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(load, monkeypatch):
    """It says what it needs, and fails."""
    file = load("record").DOCS.parent / "benchmarks" / "gpu" / "__main__.py"
    monkeypatch.setattr(sys, "path", [str(file.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("gpu_main", file)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)

    result = CliRunner().invoke(command.main, ["--only", "masks"])

    assert (result.exit_code, result.output) == (1, "Error: this needs a GPU and a build of torch for it\n")
