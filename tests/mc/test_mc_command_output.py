"""`dropkit mc`: the table, the lines of JSON and the notes that it writes."""

import json
import re
from dataclasses import replace

import numpy
import pytest
import torch
from helpers.mc_command import ERROR, NO_WEIGHTS, output, program, records, run
from torch import nn

from dropkit import mc
from dropkit.cli.actions import mc_json
from dropkit.mc.summary import Summary
from dropkit.mc.table import table

ONE_SAMPLE = (
    "net.py:net --data net.py:inputs",
    "net.py:net --data net.py:pair",
    "net.py:value --data net.py:inputs --task regression",
    "net.py:value --data net.py:values --task regression",
    "net.py:net --data net.py:label_sets --task multilabel",
)


@pytest.mark.parametrize("weights", [True, False])
def test_missing_weights_are_reported(folder, weights):
    """On stderr, in each record and on the page; not where weights or a checkpoint are given."""
    torch.save(program()["net"]().state_dict(), folder / "weights.pt")
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), folder / "model.pt")
    model = ["net.py:net", "--weights", "weights.pt"] if weights else ["net.py:net"]
    words = "--data", "net.py:inputs", "--jsonl", "records.jsonl", "--html", "page.html"

    result = run(*model, *words)

    note = NO_WEIGHTS.removeprefix("warning: ").rstrip()
    assert result.stderr == ("" if weights else NO_WEIGHTS)
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert {note in line["notes"] for line in lines} == {not weights}
    assert (f"<b>Warning</b> {note}" in (folder / "page.html").read_text()) != weights
    assert result.stdout.startswith("warning: no --weights given") != weights
    assert run("model.pt", "--trust", *words).stderr == ""


def test_the_table_is_plain_in_a_pipe_and_colored_on_demand(folder, monkeypatch):
    """Without a terminal there are no escape codes, with --color always there are, whatever NO_COLOR says."""
    words = "net.py:net", "--data", "net.py:pair"
    plain = output(*words)
    monkeypatch.setenv("NO_COLOR", "1")

    colored = output(*words, "--color", "always")

    assert "\x1b" not in plain
    assert [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", colored).split("\n")] == plain.split("\n")
    assert colored != plain
    assert output(*words, "--color", "never") == plain


def test_notes_are_yellow_and_their_brackets_are_text(monkeypatch):
    """Text in brackets or colons is neither markup nor an emoji; NO_COLOR is left to the caller."""
    monkeypatch.setenv("NO_COLOR", "1")
    prediction = mc.from_samples(torch.full((2, 3, 2), 0.5))
    prediction = replace(prediction, notes=("layer [bold] of [0, 1) :x: dropped",))

    out = table(Summary(prediction, truth=None, report=None, top=1), color=True)

    assert "\x1b[33mnote: layer [bold] of [0, 1) :x: dropped\x1b[0m" in out


def test_no_line_is_wider_than_a_page_or_ends_in_blanks(folder):
    """The table can be pasted anywhere."""
    lines = output("net.py:value", "--data", "net.py:values", "--task", "regression").splitlines()

    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(("top", "rows"), [(0, 0), (1, 1), (99, 12)])
def test_top_is_the_number_of_inputs_shown(folder, top, rows):
    """At most all inputs, the least certain first; with 0 there is no heading either."""
    out = output("net.py:net", "--data", "net.py:inputs", "--top", top)

    assert ("least certain" in out) == (rows > 0)
    uncertainty = [float(line.split()[5]) for line in out.partition("least certain")[2].rstrip().split("\n")[4:]]
    assert len(uncertainty) == rows
    assert uncertainty == sorted(uncertainty, reverse=True)


def test_lines_of_json_go_to_a_file_besides_the_table(folder):
    """One for each input, in order, with the numbers of the prediction."""
    out = output("net.py:net", "--data", "net.py:pair", "--jsonl", "records.jsonl")

    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert ERROR in out
    assert [line["index"] for line in lines] == list(range(12))
    assert lines == records("net.py:net", "--data", "net.py:pair")
    assert all(sum(line["mean"]) == pytest.approx(1) for line in lines)
    assert all(line["label"] == numpy.argmax(line["mean"]) for line in lines)


def test_prints_of_user_code_do_not_mix_with_the_json(folder):
    """They go to standard error."""
    result = run("net.py:Loud", "--data", "net.py:loud", "--jsonl", "-")

    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == list(range(12))
    assert "in the data" in result.stderr
    assert "in the model" in result.stderr
    assert "in the model" in output("net.py:Loud", "--data", "net.py:loud")


def test_nan_is_null_and_noted(folder):
    """JSON has no NaN; such an input has no label, and a note counts such inputs."""
    words = "net.py:Broken", "--data", "net.py:inputs", "--batch-size", 4

    lines, out = records(*words), output(*words)

    assert [line["index"] for line in lines if line["mean"] == [None] * 3] == [0, 4, 8]
    assert [line["index"] for line in lines if line["label"] is None] == [0, 4, 8]
    assert "note: the mean is not a finite number for 3 of 12 inputs" in out
    assert re.search(r"entropy +nats +nan +nan +\S+\n", out)


def test_one_sample_has_no_standard_error(folder):
    """Nothing that compares samples is shown, not as nan either, and a note says what is missing."""
    for words in ONE_SAMPLE:
        lines = records(*words.split(), "--samples", 1)
        out = output(*words.split(), "--samples", 1, "--html", "page.html", "--json", "all.json")
        page = (folder / "page.html").read_text()

        assert lines[0]["standard_error"] == {}
        assert not {"variance", "mutual_information", "variation_ratio"} & lines[0].keys()
        assert "a single sample does not tell how much samples differ" in out
        assert "nan" not in out
        assert ">nan" not in page
        assert "mutual information<" not in page
        assert json.loads((folder / "all.json").read_text())["notes"]


def test_large_tensors_are_left_out_of_records(folder):
    """Those of more than a thousand numbers are null, labels included."""
    prediction = mc.from_samples(torch.full((2, 3, mc_json.MOST_NUMBERS + 1, 2), 0.5))

    lines = [*mc_json.records(Summary(prediction, prediction.label, None, 0))]

    assert all(lines[0][name] is None for name in ("mean", "label", "truth", "entropy"))
    assert records("net.py:Wide", "--data", "net.py:inputs")[0]["mean"] is None
