"""The schedule of a training loop's model, which the callbacks for all libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from dropkit.arguments import check
from dropkit.patch.rate_sites import Choice
from dropkit.schedules import RateSchedule


class SchedulesRates:
    """The part that the callbacks of all libraries share: a `RateSchedule` that is made when the model is known.

    Attributes:
        schedule: None before the training.
    """

    def __init__(
        self,
        rate: Callable[[int], float],
        *,
        sites: Choice = None,
        relative: bool = True,
        convert: bool = True,
        interval: Literal["step", "epoch"] = "step",
    ) -> None:
        check("interval", interval in ("step", "epoch"), "step or epoch", interval)
        self.schedule: RateSchedule | None = None
        self._interval = interval
        self._options: dict[str, Any] = {"rate": rate, "sites": sites, "relative": relative, "convert": convert}
        self._model: nn.Module | None = None

    def _begin(self, model: nn.Module) -> None:
        """Make the schedule, unless the model is the one of the training before: its rates have moved."""
        if self._model is not model:
            self.schedule, self._model = RateSchedule(model, **self._options), model

    def _set_step(self, step: int, interval: str) -> None:
        """Set the rates of a step, if the schedule counts in this interval."""
        if self.schedule is not None and interval == self._interval:
            self.schedule.set_step(step)
