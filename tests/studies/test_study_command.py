"""`dropkit study`: what it prints, keeps and refuses, its exit codes, and how it goes on after any end."""

import json
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from dropkit.cli import signals
from dropkit.cli.study import command
from dropkit.studies import trial_log, workers
from dropkit.studies.result import load
from dropkit.studies.setting import BASELINE

MODEL = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))

def fails():
    return nn.Linear(3, 2)

def examples():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()

def noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(120, 4, generator=generator), torch.randint(2, (120,), generator=generator)
"""
STUDY = (
    "net.py:make",
    "--data",
    "net.py:examples",
    "--p",
    "0.5",
    "--seeds",
    "3",
    "--epochs",
    "10",
    "--samples",
    "2",
    "--learning-rate",
    "0.1",
)
TRIALS = 2 * 3


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Run in a folder that holds net.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)


@pytest.fixture(autouse=True)
def _no_reports(request, monkeypatch):
    """Write no page and plots, which takes seconds, but where they are tested."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(
            "dropkit.cli.actions.study.write_reports", lambda result, folder: [Path(folder, "page.html")]
        )


def study(*options, workers=1):
    return CliRunner().invoke(command, [*STUDY, "--workers", str(workers), *options])


def results(folder="dropkit-study"):
    """What each trial measured, apart from time."""
    return {outcome.trial: replace(outcome, seconds=0) for outcome in load(folder).outcomes}


def lines(folder="dropkit-study"):
    with open(f"{folder}/{trial_log.TRIALS}") as file:
        return [json.loads(line) for line in file]


@pytest.mark.slow
def test_the_command_answers():
    """A study prints its table, an answer and the page's path, nothing on stderr; its folder keeps everything."""
    result = study()

    words = " ".join(result.stdout.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert "make: " in words
    assert result.stdout.splitlines()[-1].startswith("dropkit-study/page.html; beside it error.png")
    assert Path("dropkit-study/page.html").read_text().startswith("<!doctype html>")
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert len(lines()) == TRIALS
    assert load("dropkit-study").plan.provenance["command"].startswith("dropkit study net.py:make --data ")


def test_with_json_the_command_prints_nothing_else():
    """The whole output is one object, with the folder."""
    result = study("--json")

    output = json.loads(result.stdout)

    assert (result.exit_code, result.stderr, output["folder"]) == (0, "", "dropkit-study")
    assert [row["kind"] for row in output["rows"]] == ["none", "dropout"]
    assert len(output["trials"]) == TRIALS


def test_a_model_near_chance_has_no_answer():
    """Labels that are noise end with exit code 1."""
    result = study("--data", "net.py:noise")

    assert result.exit_code == 1
    assert "near chance" in " ".join(result.stdout.split())


def test_failed_trials_are_told_by_the_exit_code():
    """NaN is a failure, and no number of the table."""
    result = study("--learning-rate", "1e30")

    assert result.exit_code == 1
    assert "failed" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kinds", "a"], "--kinds must be dropout, dropout2d, batchwise, always-on, or the name of a layer"),
        (["--p", "half"], "--p must be numbers separated by commas, got 'half'"),
        (["--p", "0.5,1.5"], "--p must be in [0, 1], got 1.5"),
        (["--p", "nan"], "--p must be in [0, 1], got nan"),
        (["--seeds", "0"], "--seeds must be an integer of at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be an integer of at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be an integer of at least 1, got 0"),
        (["--optimizer", "adam"], "--optimizer must be sgd or adamw, got 'adam'"),
        (["--learning-rate", "nan"], "--learning-rate must be positive, got nan"),
        (["--sizes", "10,10"], "--sizes must be three numbers of examples, or fractions"),
        (["--sizes", "300,20,20"], "sizes must be at most the 300 examples there are, got 300 + 20 + 20"),
        (["--workers", "0"], "--workers must be an integer of at least 1, got 0"),
        (["--sites", "9"], "--sites must be"),
        (["--folder", ""], "must be a path"),
        (["--data", "nothing.npz"], "--data nothing.npz: "),
        (["--data", "net.py:nothing"], "net.py has no nothing"),
        (["missing.py:make"], "file not found: missing.py"),
        (["transformer"], "must be FILE.py:NAME or package.module:NAME, got 'transformer'"),
        (["net.py:fails"], "the model could not be trained: RuntimeError: "),
        (["cnn"], "MODEL must be FILE.py:NAME, or one of those that fit the data (mlp), got cnn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_values_are_refused_before_training(options, message, tmp_path):
    """The last line names the option, what is wanted and what came; no folder is made."""
    result = study(*options)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("net.py", "__pycache__")] == []


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    """Before anything is trained."""
    monkeypatch.setitem(sys.modules, "loky", None)

    result = study()

    assert result.exit_code == 2
    assert 'dropkit study needs loky: pip install "dropkit[study]"' in result.stderr


# Folders


def test_each_study_has_a_folder_of_its_own():
    """The default folder is the first that is free, and --resume continues the last one."""
    study()
    study("--epochs", "2")
    again = study("--epochs", "2", "--resume")

    assert again.exit_code == 0
    assert len(lines()) == len(lines("dropkit-study-2")) == TRIALS


def test_finished_trials_are_not_overwritten():
    """A folder with trials is refused without --resume, and one with another study in any case."""
    study("--folder", "a")

    same, other = study("--folder", "a"), study("--folder", "a", "--epochs", "2", "--resume")

    assert (same.exit_code, other.exit_code) == (2, 2)
    assert "a holds 6 finished trials of this study; resume it, or take another folder" in same.stderr
    assert "a holds a study with another recipe" in other.stderr
    assert len(lines("a")) == TRIALS


def test_a_folder_has_one_coordinator():
    """A second process that would continue the same study is refused."""
    study("--folder", "a")
    plan = load("a").plan

    with trial_log.TrialLog("a", plan.to_dict(), resume=True):
        result = study("--folder", "a", "--resume")

    assert result.exit_code == 2
    assert "another process runs a study in a" in result.stderr


# Ends


@pytest.fixture
def undisturbed():
    """The results of a study that nothing disturbed."""
    study("--folder", "undisturbed")
    return results("undisturbed")


class Stopping:
    """Train, and stop after some trials."""

    def __init__(self, stop, after):
        self.stop, self.left, self.attempt = stop, after, workers.attempt

    def __call__(self, train, trial):
        if self.left == 0:
            self.stop()
        self.left -= 1
        return self.attempt(train, trial)


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_study_that_is_stopped_can_be_resumed(number, code, reason, as_json, monkeypatch, undisturbed):
    """The exit code says what stopped it, the message how to go on, and the results are those of one run."""
    # A shell that runs the tests in the background makes them ignore Ctrl-C.
    before = {it: signal.signal(it, signal.default_int_handler) for it in (signal.SIGINT, signal.SIGTERM)}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(workers, "attempt", Stopping(lambda: signal.raise_signal(number), 2))
            stopped = study("--folder", "a", *as_json)
        handler = signal.getsignal(signal.SIGTERM)
    finally:
        for it, old in before.items():
            signal.signal(it, old)
    there = len(lines("a"))
    resumed = study("--folder", "a", "--resume")

    assert handler is signal.default_int_handler
    assert (stopped.exit_code, there, resumed.exit_code) == (code, 2, 0)
    assert stopped.stderr.startswith(f"{reason}; 2 of {TRIALS} trials are finished and kept in a; to continue: dropkit")
    assert stopped.stderr.rstrip().endswith("--resume")
    assert not as_json or json.loads(stopped.stdout)["ended_early"] == reason
    assert results("a") == undisturbed
    assert len(lines("a")) == TRIALS


@pytest.mark.parametrize("spare", [0, 1, 300], ids=lambda spare: f"{spare} bytes left")
def test_a_full_disk_costs_no_finished_trial(spare, undisturbed):
    """The error says so in one line, the folder holds whole lines only, and the study can be resumed."""
    path = f"undisturbed/{trial_log.TRIALS}"
    with open(path) as file:
        size = len(file.readline()) + len(file.readline())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The specification has to fit as well.
    with open("undisturbed/study.json") as file:
        assert len(file.read()) < size + spare

    resource.setrlimit(resource.RLIMIT_FSIZE, (size + spare, before[1]))
    try:
        full = study("--folder", "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    there = len(lines("a"))
    resumed = study("--folder", "a", "--resume")

    assert (full.exit_code, resumed.exit_code) == (2, 0)
    assert "could not write to a: " in full.stderr
    assert 1 <= there < TRIALS
    assert results("a") == undisturbed


def test_sigterm_outside_of_the_main_thread_is_left_alone():
    """Only the main thread can set handlers."""
    from threading import Thread

    before, seen = signal.getsignal(signal.SIGTERM), []

    def use():
        with signals.sigterm_raises():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = Thread(target=use)
    thread.start()
    thread.join()

    assert seen == [before]


# The default study


def test_help_names_every_kind_and_network():
    """The help lists what can be given."""
    text = " ".join(CliRunner().invoke(command, ["--help"]).stdout.split())

    assert all(word in text for word in ["cnn", "mlp", "gru", "dropout2d", "batchwise", "always-on", "csv:FILE:TARGET"])


def test_digits_are_the_default():
    """Without MODEL and --data networks are trained on digits, with all kinds."""
    options = ["--seeds", "1", "--epochs", "1", "--p", "0.5", "--samples", "0", "--workers", "1"]
    result = CliRunner().invoke(command, options)

    rows = load("dropkit-study").rows
    assert result.exit_code == 1
    assert "an interval needs at least 2 seeds" in " ".join(result.stdout.split())
    assert next(row.setting for row in rows if row.model == "cnn") == BASELINE
    assert [row.setting.kind for row in rows if row.model == "mlp"] == ["none", "dropout", "batchwise", "always-on"]


@pytest.mark.slow
def test_dropout_lowers_the_error_of_the_mlp():
    """The default study on a smaller grid: dropout is recommended, and dropout in evaluation raises the error."""
    options = ["mlp", "--kinds", "dropout,always-on", "--p", "0.5", "--samples", "0", "--workers", "1"]
    result = CliRunner().invoke(command, options)

    _, dropout, always_on = load("dropkit-study").rows
    assert result.exit_code == 0
    assert "mlp: use dropout p=0.5; it changes the test error by -" in " ".join(result.stdout.split())
    assert dropout.changes["test_error"].high < 0 < always_on.changes["test_error"].low
