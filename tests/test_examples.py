"""Every script of examples/ prints what its docstring describes."""

import ast
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def printed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script prints whose name parametrizes the test."""
    runpy.run_path(str(EXAMPLES / request.param), run_name="__main__")
    return capsys.readouterr().out


def example(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("printed", [name], indirect=True)


@example("same_layer_new_mask.py")
def test_a_layer_draws_a_new_mask_at_each_call_in_training(printed):
    """In training no two calls agree; in eval mode all return the input."""
    calls = {"train": [], "eval": []}
    for mode, values in re.findall(r"(train|eval) +(\[.*\])", printed):
        calls[mode].append(tuple(ast.literal_eval(values)))

    assert len(calls["train"]) == len(set(calls["train"])) == 4
    assert {value for call in calls["train"] for value in call} == {0.0, 2.0}
    assert calls["eval"] == [(1.0,) * 8] * 2


@example("active_units.py")
def test_the_share_of_active_units_falls_in_training_alone(printed):
    """Training leaves 1 - p of the active units, eval mode all of them."""
    before, train, eval = (float(share) for share in re.findall(r"\d\.\d+", printed))
    n, p, rounding = before * 100 * 1000, 0.3, 1e-4

    assert 0 < before < 1
    assert abs(train / before - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n) + rounding / before
    assert eval == before


@example("three_layers.py")
def test_dropout_shows_in_the_model_and_changes_no_shape(printed):
    """Both dropouts are in print(model), and each puts out the shape that came in."""
    shapes = re.findall(r"^(\w+) \((\d+), (\d+)\)$", printed, re.MULTILINE)

    assert "(2): Dropout(p=0.5, inplace=False)" in printed
    assert "(5): Dropout(p=0.3, inplace=False)" in printed
    assert shapes == [
        ("input", "32", "784"),
        *((name, "32", "256") for name in ("Linear", "ReLU", "Dropout")),
        *((name, "32", "64") for name in ("Linear", "ReLU", "Dropout")),
        ("Linear", "32", "10"),
    ]


@example("whole_channels.py")
def test_a_channel_is_dropped_as_a_whole(printed):
    """Dropout2d keeps or drops each channel of a 4-d batch as a whole, Dropout single elements of it."""
    channels, elements = (re.findall(r"[#.?]{12}", part) for part in printed.split("Dropout(p=0.5"))

    assert len(channels) == len(elements) == 4
    assert set("".join(channels)) == {"#", "."}
    assert set("".join(elements)) == {"?"}
    assert re.findall(r"in part: (\d+) of 48", printed) == ["0", "48"]


@example("realised_rate.py")
def test_the_realised_rate_is_the_expected_one(printed):
    """The dropped fraction of a million elements is within five standard deviations of p."""
    rows = [tuple(map(float, re.findall(r"\d\.\d+", line))) for line in printed.splitlines()]

    assert [expected for expected, *_ in rows] == [0.1, 0.3, 0.5, 0.7]
    for p, realised, off, bound in rows:
        last_digit = 1e-6  # six digits are printed: a number is off by half of the last, a difference by one
        assert abs(bound - 5 * math.sqrt(p * (1 - p) / 1_000_000)) <= last_digit / 2
        assert abs(abs(realised - p) - off) < 1.5 * last_digit
        assert off < bound


@example("module_and_function.py")
def test_the_function_drops_in_eval_unless_the_flag_is_passed(printed):
    """print(model) shows the module, which stops in eval mode; it does not show the function, which needs the flag."""
    module, function, with_flag = re.split(r"^(?=WithFunction)", printed, flags=re.MULTILINE)
    drops = re.compile(r"(train|eval) .*\b0\.0")

    assert "(dropout): Dropout(p=0.5, inplace=False)" in module
    assert function.startswith("WithFunction()\n")
    assert with_flag.startswith("WithFunctionAndFlag()\n")
    assert drops.findall(module) == ["train"]
    assert drops.findall(function) == ["train", "eval"]
    assert drops.findall(with_flag) == ["train"]


@pytest.mark.slow
def test_a_study_of_a_table_ends_with_an_answer(monkeypatch, capsys, tmp_path):
    """Each setting has a row, and the last sentence is about the network. It takes any table of numbers."""
    table = tmp_path / "table.csv"
    rows = [f"{math.sin(i)},{math.cos(i)},{'up' if math.sin(i) > 0 else 'down'}" for i in range(60)]
    table.write_text("\n".join(["a,b,way", *rows]))
    monkeypatch.setattr(sys, "argv", ["study_own_data.py", str(table), "way"])

    runpy.run_path(str(EXAMPLES / "study_own_data.py"), run_name="__main__")

    text = capsys.readouterr().out
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("dropout ")] == [
        ["dropout", "0.2"],
        ["dropout", "0.5"],
    ]
    assert text.split("\n\n")[-1].startswith("network: ")


@pytest.mark.parametrize(
    ("command", "backward"),
    [(["-m", "dropkit", "run"], "_DropPlainBackward"), ([], "MulBackward0")],
    ids=["dropkit run", "python"],
)
def test_an_unchanged_script_runs_on_dropkit(command, backward):
    """Under `dropkit run` a script that imports torch alone drops with dropkit's kernel and keeps its exit code."""
    script = EXAMPLES / "plain_torch.py"
    assert "dropkit" not in script.read_text().split('"""')[2]

    run = subprocess.run([sys.executable, *command, str(script), "7"], capture_output=True, text=True, check=False)

    assert run.stderr == ""
    assert f"backward runs {backward}\n" in run.stdout
    assert "called as __main__ ['7']" in run.stdout
    assert run.returncode == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data_parallel.py", "tensor_parallel.py"])
def test_the_command_of_an_example_works_as_printed(name):
    """The line with two processes in its docstring prints the losses."""
    (line,) = re.findall(r"^torchrun (.*--nproc-per-node 2 .*)$", (EXAMPLES / name).read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", *line.split()]

    run = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=120, check=False,
                         env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"loss( \d\.\d{8}){4}\n", run.stdout)


def test_every_example_is_tested():
    """No script of examples/ is without a test here."""
    tests = Path(__file__).read_text()

    assert [script.name for script in EXAMPLES.glob("*.py") if f'"{script.name}"' not in tests] == []


@pytest.mark.slow
@example("sklearn_tabular.py")
def test_conformal_intervals_of_a_grid_search_hold_the_true_values(printed):
    """As many as stated, within five standard errors of the held-out rows and the new ones."""
    held, count = map(int, re.search(r"held (\d+) of (\d+)", printed).groups())

    held_out = 113
    assert held / count > 0.9 - 5 * math.sqrt(0.9 * 0.1 * (1 / count + 1 / held_out))
    assert float(re.search(r"score ([\d.]+)", printed)[1]) > 0.9


@pytest.mark.slow
@example("sklearn_text.py")
def test_texts_of_both_topics_are_the_least_certain(printed):
    """The five last of all are the first in the table."""
    table = printed[printed.index("least certain") :].splitlines()

    rows = {int(line.split()[0]) for line in table if re.match(r" *\d", line)}
    assert rows == set(range(120, 125))
    assert "accuracy 1.0" in printed
