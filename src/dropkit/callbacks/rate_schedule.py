"""The schedule of a training loop's model, which the callbacks for all libraries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from dropkit.arguments import check
from dropkit.patch.rate_sites import Choice
from dropkit.schedules import RateSchedule


class ModelSchedule:
    """A `RateSchedule` that is made when the model is known.

    Attributes:
        interval: what a step is.
        sites: what was chosen.
        schedule: None before the training.
    """

    def __init__(
        self,
        rate: Callable[[int], float],
        sites: Choice,
        relative: bool,
        convert: bool,
        interval: Literal["step", "epoch"],
    ) -> None:
        check("interval", interval in ("step", "epoch"), "step or epoch", interval)
        self.interval, self.sites = interval, sites
        self.schedule: RateSchedule | None = None
        self._options: dict[str, Any] = {"rate": rate, "sites": sites, "relative": relative, "convert": convert}
        self._model: nn.Module | None = None
        self._state: Mapping[str, Any] | None = None

    def begin(self, model: nn.Module) -> None:
        """Make the schedule, unless the model is the one of the training before: its rates have moved."""
        if self._model is not model:
            self.schedule, self._model = RateSchedule(model, **self._options), model
        if self._state is not None and self.schedule is not None:
            self.schedule.load_state_dict(self._state)
            self._state = None

    def set_step(self, step: int, interval: str) -> None:
        """Set the rates of a step, if the schedule counts in this interval."""
        if self.schedule is not None and interval == self.interval:
            self.schedule.set_step(step)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.schedule is None else self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state of a checkpoint until `begin`."""
        self._state = state or None
