"""A progress bar on standard error, once something takes longer than two seconds."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType

from rich.progress import Progress as Bar

from dropkit.report.console import console, progress_columns

_PATIENCE = 2.0


class Progress:
    """Args:
    total: passes of inputs; None if that is not known.
    wanted: True at once, False never; on a terminal, after two seconds, if None.
    """

    def __init__(self, total: int | None, wanted: bool | None) -> None:
        self._total, self._done = total, 0
        self._after = monotonic() + (0.0 if wanted else _PATIENCE)
        self._allowed = sys.stderr.isatty() if wanted is None else wanted
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        return self

    def advance(self, passes: int) -> None:
        self._done += passes
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
        elif self._allowed and monotonic() > self._after:
            self._bar = Bar(*progress_columns(), console=console(stderr=True), transient=True)
            self._bar.add_task("sampling", total=self._total, completed=self._done)
            self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
