"""What `dropkit worker` does: join a study in a storage, and train its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit.cli.actions import study, tune
from dropkit.cli.actions.sharing import code, storage_errors
from dropkit.cli.options import Failed
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.report.units import counted
from dropkit.studies.shared_study import SharedStudy
from dropkit.studies.trial import Outcome
from dropkit.studies.workers import Train

# What makes a specification, and the function that trains a trial, from the options of a command.
_PREPARE: dict[str, Callable[[Mapping[str, Any]], tuple[dict[str, Any], Train]]] = {
    "study": study.specification_of,
    "tune": tune.specification_of,
}


def work(storage: str, name: str | None, wait: float, quiet: bool) -> int:
    """Train trials and say how many; return the exit code."""
    with storage_errors():
        shared = SharedStudy.join(storage, name, wait)
    train = _train(shared)
    try:
        with sigterm_raises():
            done = shared.train_trials(train, wait, (lambda outcome: None) if quiet else _print)
    except KeyboardInterrupt:
        return 128 + SIGINT
    except Terminated:
        return 128 + SIGTERM
    end = "finished" if shared.is_finished else f"no trial for {wait:g} seconds"
    click.echo(f"{shared.name}: {end}; {counted(done, 'trial')} trained here", err=True)
    return 0


def _train(shared: SharedStudy) -> Train:
    """The function that trains a trial, with this machine's models and data.

    Raises:
        Failed: they are not those of the coordinator.
    """
    work = shared.work
    options = work["options"]
    specification, train = _PREPARE[work["command"]](options)
    different = shared.differences(specification)
    if code(options["targets"]) != work["code"]:
        different.append("code")
    if different:
        raise Failed(f"{shared.name} has other {', '.join(different)} than this machine; use the coordinator's files")
    return train


def _print(outcome: Outcome) -> None:
    result = outcome.failure or f"{outcome.seconds:.1f} s"
    click.echo(f"{outcome.trial}: {result}", err=True)
