"""DropoutAudit and DropoutSchedule for the Trainer of Hugging Face transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.callbacks.first_batch import FirstBatch
from dropkit.callbacks.rate_schedule import SchedulesRates
from dropkit.extras import needed_for
from dropkit.public_names import public_names

with needed_for("dropkit.callbacks.transformers", "transformers"):
    from transformers import TrainerCallback

__all__ = ["DropoutAudit", "DropoutSchedule"]


class DropoutAudit(TrainerCallback):
    """Audit the dropout of the model on its first training batch, and print the report.

    The audit runs inside the first forward call, with its inputs and precision. Losses, masks and weights of the
    training are the same as without it.

    Args:
        ignore: codes of rules to skip, or prefixes of codes.
        stop: raise `BadDropout` if there is a finding of severity error.
        quiet: do not print the report; it is the attribute `report`.

    Example:
        ```python
        Trainer(model, arguments, train_dataset=data, callbacks=[DropoutAudit()])
        ```
    """

    def __init__(self, ignore: Sequence[str] = (), stop: bool = False, quiet: bool = False) -> None:
        self._first = FirstBatch(Auditor(call=_as_called, ignore=ignore), stop, quiet)

    @property
    def report(self) -> Report | None:
        """The report; None before the first batch."""
        return self._first.report

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Audit in the first forward call."""
        if model is None or self._first.is_done:
            return

        def audit(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hook.remove()
            self._first.audit(module, args, kwargs, state.is_world_process_zero)

        hook = model.register_forward_pre_hook(audit, with_kwargs=True)


class DropoutSchedule(SchedulesRates, TrainerCallback):
    """Move the dropout rates of the model; see `dropkit.schedules.RateSchedule`.

    The rates follow from the Trainer's own count of steps, which its checkpoints hold. So a training that continues has
    the rates that the first one would have had, if its model is made with the rates from before the training.

    Args:
        rate: from the step to a factor or a rate.
        sites, relative, convert: as for `RateSchedule`.
        interval: what a step is: "step" for a step of the optimizer, "epoch" for an epoch.

    Example:
        ```python
        Trainer(model, arguments, train_dataset=data, callbacks=[DropoutSchedule(Linear(steps=1000))])
        ```
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Find the sites in the model."""
        self._begin(model)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the rates of the epoch."""
        # The Trainer adds up fractions of an epoch, so a whole number may lack the last bits.
        self._set_step(math.floor((state.epoch or 0) + 1e-6), "epoch")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the rates of the step."""
        self._set_step(state.global_step, "step")


def _as_called(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Make the call as the Trainer did, without rearranging its arguments."""
    return model(*args, **kwargs)


def __dir__() -> list[str]:
    return public_names(globals())
