"""`dropkit worker`: train trials of a study that another machine coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit.cli import study, tune
from dropkit.cli.model_loading import Failed
from dropkit.cli.sharing import FORMS, code, restored, storage_errors
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.cli.study_options import Command, option
from dropkit.report.units import counted
from dropkit.studies.shared_study import SharedStudy
from dropkit.studies.trial import Outcome
from dropkit.studies.workers import Train

# What makes a specification, and the function that trains a trial, from the options of a command.
_PREPARE: dict[str, Callable[[Mapping[str, Any]], tuple[dict[str, Any], Train]]] = {
    "study": study.specification_of,
    "tune": tune.specification_of,
}
_RUN, _OUTPUT = "Where it runs", "Output"


@click.command(cls=Command)
@option(_RUN, "--storage", metavar="URL", required=True, help=f"That of the coordinator: {FORMS}.")
@option(_RUN, "--study", "name", metavar="NAME", help="Its name. [default: the only one that is not finished]")
@option(
    _RUN,
    "--wait",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="End after so long without a trial, also where the coordinator has not started.",
)
@option(_OUTPUT, "--quiet", "-q", is_flag=True, help="Print no line for each trial.")
@click.pass_context
def command(context: click.Context, storage: str, name: str | None, wait: float, quiet: bool) -> None:
    """Train trials of a study or a search that `dropkit study` or `dropkit tune` started with --storage.

    Start as many workers as there are processors, in a folder with the same files as the coordinator's: models and data
    are read from there, and a worker that finds other ones ends. A worker may be ended at any time: its trial is
    trained by another one. It ends by itself once the study is finished.

    Exit code: 0 the study is finished or there was nothing to do, 2 error, 130 Ctrl-C, 143 SIGTERM.
    """
    context.exit(_work(storage, name, wait, quiet))


def _work(storage: str, name: str | None, wait: float, quiet: bool) -> int:
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
    options = restored(work["options"])
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
