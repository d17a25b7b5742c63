"""`dropkit tune` and `dropkit worker`: what they print, keep and refuse, and that workers change no outcome."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import click
import pytest
from click.testing import CliRunner

from dropkit.cli import study, tune, worker
from dropkit.cli.actions.sharing import share
from dropkit.cli.actions.study import specification_of
from dropkit.studies import tuning
from dropkit.studies.trial_log import read_outcomes

MODEL = """
import torch
from torch import nn

def make():
    hidden = (nn.Linear(8, 8), nn.ReLU(), nn.Dropout())
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), *hidden, nn.Linear(8, 2))

def examples():
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()
"""
WORK = ("net.py:make", "--data", "net.py:examples", "--seeds", "2", "--epochs", "2", "--samples", "0")
STUDY, TUNE = (*WORK, "--p", "0.3,0.5", "--sizes", "rest,20,40"), (*WORK, "--candidates", "6", "--workers", "1")
STORAGE = "journal:study.journal"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Run in a folder that holds net.py, with workers that ask for news often."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dropkit.cli.actions.sharing.HEARTBEAT", 0.5)
    Path("net.py").write_text(MODEL)


def call(command, *options):
    return CliRunner().invoke(command.command, options, prog_name=command.__name__.rpartition(".")[2])


@contextmanager
def one_worker():
    """Run a worker in a thread, without click's runner, which is for one thread. Two would share torch's generator."""
    codes = []

    def work():
        codes.append(worker.command.main(["--storage", STORAGE, "--wait", "60", "-q"], standalone_mode=False))

    thread = Thread(target=work)
    thread.start()
    yield
    thread.join()
    assert codes == [0]


def outcomes(folder):
    """What each trial measured, apart from time."""
    return {key: replace(outcome, seconds=0) for key, outcome in read_outcomes(folder).items()}


def test_tune_answers():
    """It prints the candidates and the answer, or all of it as JSON; both are those of Python."""
    printed, plain = call(tune, *TUNE), call(tune, *TUNE, "--json")

    values = json.loads(plain.stdout)
    assert printed.exit_code == plain.exit_code
    assert [len(values["candidates"]), values["trials"]] == [7, len(read_outcomes("dropkit-tune"))]
    assert all(sentence in printed.stdout.replace("\n", " ") for sentence in values["sentences"])
    assert max(map(len, printed.stdout.splitlines())) <= 80


def test_interrupted_search_says_how_to_resume(monkeypatch):
    """Ctrl-C keeps the finished trials; the command that it prints gives the undisturbed result."""
    undisturbed = call(tune, *TUNE, "--folder", "undisturbed")
    original = tuning.TrialLog.add

    def interrupt(log, outcome):
        original(log, outcome)
        if len(log.outcomes) == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning.TrialLog, "add", interrupt)
        interrupted = call(tune, *TUNE)
    resumed = call(tune, *TUNE, "--resume")

    assert interrupted.exit_code == 130
    assert interrupted.stderr.startswith(
        "interrupted; finished trials are kept in dropkit-tune; to continue: dropkit tune"
    )
    assert resumed.stdout == undisturbed.stdout


@pytest.mark.parametrize(("command", "options"), [(study, STUDY), (tune, TUNE)], ids=["study", "tune"])
def test_workers_give_the_outcomes_of_one_machine(command, options):
    """With --storage the outcomes are those of a local run, bit for bit."""
    with one_worker():
        shared = call(command, *options, "--storage", STORAGE, "--folder", "shared")
    local = call(command, *options, "--folder", "local", "--workers", "1")

    assert shared.exit_code == local.exit_code
    assert outcomes("shared") == outcomes("local")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda source: source.replace("Linear(8, 8)", "Linear(8, 8, bias=False)"), "models"),
        (lambda source: source.replace("manual_seed(0)", "manual_seed(1)"), "content"),
        (lambda source: source + "\nx = 1\n", "code"),
    ],
    ids=["model", "data", "code"],
)
def test_worker_with_other_files_refuses(change, what):
    """A worker whose model, data or code differs says which, and trains nothing."""
    options = {"targets": ("net.py:make",), "target": "net.py:examples", "size": None, "kinds": None, "p": None,
               "sites": None, "seeds": 2, "metric": None, "storage": STORAGE, "name": None}  # fmt: skip
    share("study", options, specification_of(options)[0], resume=False)
    Path("net.py").write_text(change(MODEL))

    with pytest.raises(click.ClickException, match=f"has other .*{what}.* than this machine"):
        worker.command.main(["--storage", STORAGE], standalone_mode=False)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (tune, ("--sampler", "x"), "--sampler must be tpe or random or cmaes or gp, got 'x'"),
        (tune, ("--candidates", "0"), "--candidates must be an integer of at least 1, got 0"),
        (tune, ("--kind", "batchwise"), "sites must be all"),
        (tune, ("--storage", "x"), "storage must be journal:FILE"),
        (study, ("--storage", "x"), "storage must be journal:FILE"),
        (worker, ("--storage", "x"), "storage must be journal:FILE"),
        (worker, ("--storage", STORAGE, "--wait", "0"), "(none unfinished), got None"),
    ],
)
def test_wrong_options_are_named_in_one_line(command, options, message):
    """Exit code 2; nothing is trained or written."""
    result = call(command, *(() if command is worker else WORK), *options)

    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not list(Path().glob("dropkit-*"))


def test_missing_package_says_its_command(monkeypatch):
    """Without Optuna the error says how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)

    for command, options in ((tune, TUNE), (study, (*STUDY, "--storage", STORAGE)), (worker, ("--storage", STORAGE))):
        result = call(command, *options)
        assert (result.exit_code, 'pip install "dropkit[tune]"' in result.stderr) == (2, True)
