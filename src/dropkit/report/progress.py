"""A progress bar on standard error, shown once the work takes longer than a moment."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

# In seconds: how long work takes before a bar is worth showing, and between two refreshes.
_DELAY = 2.0
_INTERVAL = 0.1


class Progress:
    """A progress bar that is removed at the end of its `with` block.

    It runs no thread, so that processes can be forked meanwhile: it changes only when `advance` or `update` is called.

    Args:
        description: what is being done.
        total: number of steps; None if unknown.
        visible: True shows the bar at once, False never; None shows it on a terminal, after two seconds.
    """

    def __init__(self, description: str, total: int | None = None, visible: bool | None = None) -> None:
        self._description, self._total, self._done = description, total, 0
        is_terminal = sys.stderr is not None and sys.stderr.isatty()  # None where the shell closed it
        self._visible = is_terminal if visible is None else visible
        self._next_refresh = monotonic() + (0 if visible else _DELAY)
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._refresh()
        return self

    def advance(self, steps: int = 1, description: str | None = None) -> None:
        """Add `steps` to those that are done."""
        self.update(self._done + steps, self._total, description)

    def update(self, done: int, total: int | None, description: str | None = None) -> None:
        """Set how many steps are done, of how many."""
        self._done, self._total = done, total
        self._description = description or self._description
        self._refresh()

    def _refresh(self) -> None:
        if not self._visible or monotonic() < self._next_refresh:
            return
        if self._bar is None:
            self._bar = _bar(self._description, self._total)
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=self._done, total=self._total, description=self._description)
        self._bar.refresh()
        self._next_refresh = monotonic() + _INTERVAL

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(description: str, total: int | None) -> Bar:
    # Imported here: most runs show no bar.
    from rich.progress import Progress as Bar

    from dropkit.report.console import console, progress_columns

    bar = Bar(*progress_columns(), console=console(stderr=True), transient=True, auto_refresh=False)
    bar.add_task(description, total=total)
    return bar
