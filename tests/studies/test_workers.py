"""Trials run in one process or in several, which may die."""

import os
import signal
import time

import pytest

from dropkit.studies import workers
from dropkit.studies.setting import BASELINE
from dropkit.studies.trial import Outcome, Trial
from dropkit.studies.workers import run

TRIALS = [Trial("net", BASELINE, seed) for seed in range(8)]


def train(trial):
    return Outcome(trial, {"error": trial.seed / 8}, {}, 0.1)


def outcomes(train, processes, trials=TRIALS):
    found = []
    run(trials, train, processes, found.append)
    return sorted(found, key=lambda outcome: outcome.trial.seed)


def fails(trial):
    if trial.seed == 3:
        raise RuntimeError("out of luck")
    return train(trial)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_exception_is_the_failure_of_its_trial(processes):
    """The others are not affected, and each has one outcome."""
    found = outcomes(fails, processes)

    assert [outcome.failure for outcome in found] == [None] * 3 + ["RuntimeError: out of luck"] + [None] * 4
    assert [outcome.trial for outcome in found] == TRIALS


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_trials_can_be_added_by_outcomes(processes):
    """They run as well, after those that wait."""
    found = []

    def on_outcome(outcome):
        found.append(outcome.trial.seed)
        return [Trial("net", BASELINE, outcome.trial.seed + 2)] if outcome.trial.seed < 4 else []

    run(TRIALS[:2], train, processes, on_outcome)

    assert sorted(found) == [0, 1, 2, 3, 4, 5]


def test_a_request_to_stop_is_no_failure():
    """Ctrl-C in a trial ends the run."""

    def interrupted(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(interrupted, 1)


def dies(trial):
    # Beside the others, which take longer.
    time.sleep(0.2 if trial.seed == 0 else 0.6)
    if trial.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(trial)


@pytest.mark.long
def test_a_trial_that_ends_its_process_is_given_up_and_no_other(monkeypatch):
    """It is tried again some times; trials that ran beside it are not blamed."""
    monkeypatch.setattr(workers, "MAX_DEATHS", 1)

    found = outcomes(dies, 2, TRIALS[:4])

    assert [outcome.failure for outcome in found] == ["its process ended 2 times", None, None, None]
    assert [outcome.trial for outcome in found] == TRIALS[:4]


@pytest.mark.slow
def test_an_exception_of_the_caller_ends_the_run():
    """As where the disk is full; no worker is left."""

    def on_outcome(outcome):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(TRIALS, train, 2, on_outcome)
