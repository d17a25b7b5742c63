"""`dropkit worker`: train trials of a study that another machine coordinates."""

from __future__ import annotations

import click

from dropkit.cli.study_options import STORAGE_FORMS, GroupedCommand, option

_RUN, _OUTPUT = "Where it runs", "Output"


@click.command("worker", cls=GroupedCommand)
@option(_RUN, "--storage", metavar="URL", required=True, help=f"That of the coordinator: {STORAGE_FORMS}.")
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
    from dropkit.cli.actions.worker import work

    context.exit(work(storage, name, wait, quiet))
