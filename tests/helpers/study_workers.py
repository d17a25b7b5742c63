"""Processes that share a study: workers and coordinators that tests may kill."""

from __future__ import annotations

import hashlib
import os
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna

from dropkit.studies import Outcome, Setting, Trial, journal
from dropkit.studies.shared_study import SharedStudy
from dropkit.studies.trial_log import TrialLog
from dropkit.studies.workers import run

# In seconds. A trial takes several heartbeats, and dead workers are noticed within a second.
HEARTBEAT = 0.1
# What a study of these tests is, and what its workers need.
SPECIFICATION, WORK = {"data": "none"}, {"model": "none"}

_context: Any = get_context("forkserver")
_context.set_forkserver_preload(["pytest", "torch._dynamo", "torch.distributed.tensor", "dropkit.nn", __name__])


def trials(count: int) -> list[Trial]:
    """The trials of a study."""
    return [Trial("model", Setting("dropout", 0.5), seed) for seed in range(count)]


def train(trial: Trial, rounds: int = 20_000) -> Outcome:
    """Compute numbers that follow from the trial alone, for some hundredths of a second."""
    digest = trial.key.encode()
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    values = [byte / 255 for byte in digest]
    return Outcome(trial, {"test_error": values[0]}, {"loss": tuple(values[1:4])}, values[4])


def start(function: Any, *arguments: Any) -> Any:
    """Start a process that calls a function of this module."""
    is_parent = function is coordinate_here  # which daemons cannot be
    process = _context.Process(target=_call, args=(function.__name__, arguments), daemon=not is_parent)
    process.start()
    return process


def work(url: str) -> None:
    """Be a worker."""
    SharedStudy.join(url, wait=60).train_trials(train, wait=60)


def coordinate(url: str, folder: str, count: int) -> None:
    """Be a coordinator that keeps outcomes in a folder."""
    study = SharedStudy.create(url, "study", SPECIFICATION, WORK, resume=True, heartbeat=HEARTBEAT)
    with TrialLog(folder, SPECIFICATION, resume=True) as log:
        study.run([trial for trial in trials(count) if trial.key not in log.outcomes], train, 1, log.add)
    Path(folder, "finished").touch()


def coordinate_here(folder: str, count: int) -> None:
    """Be a coordinator with two workers on this machine, whose standard error goes to a file."""
    with open(Path(folder, "stderr"), "ab") as file:
        os.dup2(file.fileno(), 2)
    with TrialLog(folder, SPECIFICATION, resume=True) as log:
        run([trial for trial in trials(count) if trial.key not in log.outcomes], train, 2, log.add)
    Path(folder, "finished").touch()


def serve(url: str, port: int) -> None:
    """Be a gRPC proxy of a storage."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(url), host="127.0.0.1", port=port)


def _call(name: str, arguments: tuple[Any, ...]) -> None:
    journal.GRACE = 3  # a killed process may hold the lock of the journal
    globals()[name](*arguments)
