"""DropoutAudit and DropoutSchedule for Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dropkit.auditor import Auditor, Report
from dropkit.callbacks.first_batch import FirstBatch
from dropkit.callbacks.rate_schedule import SchedulesRates
from dropkit.extras import needed_for
from dropkit.public_names import public_names

with needed_for("dropkit.callbacks.lightning", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["DropoutAudit", "DropoutSchedule"]

_LOGGING = ("log", "log_dict")


class DropoutAudit(Callback):
    """Audit the dropout of the model on its first training batch, and print the report.

    The audit runs `training_step` in training and in evaluation mode, without its logging, and leaves the module
    unchanged. A module with manual optimization needs `call`.

    Args:
        call: function of the module and the batch to run; `module.training_step(batch, 0)` if None.
        ignore: codes of rules to skip, or prefixes of codes.
        stop: raise `BadDropout` if there is a finding of severity error.
        quiet: do not print the report; it is the attribute `report`.

    Raises:
        ValueError: at the first batch, if the module has manual optimization and `call` is None.

    Example:
        ```python
        Trainer(callbacks=[DropoutAudit()])
        ```
    """

    def __init__(
        self,
        call: Callable[[Any, Any], Any] | None = None,
        ignore: Sequence[str] = (),
        stop: bool = False,
        quiet: bool = False,
    ) -> None:
        self._call = call
        self._first = FirstBatch(Auditor(call=call or _training_step, ignore=ignore), stop, quiet)

    @property
    def report(self) -> Report | None:
        """The report; None before the first batch."""
        return self._first.report

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Audit the first batch."""
        if self._first.is_done:
            return
        if self._call is None and not pl_module.automatic_optimization:
            raise ValueError(
                "call must be given for a module with manual optimization: its training_step is not run twice"
            )
        with _unlogged(pl_module):
            self._first.audit(pl_module, (batch,), {}, trainer.is_global_zero)


class DropoutSchedule(SchedulesRates, Callback):
    """Move the dropout rates of the model; see `dropkit.schedules.RateSchedule`.

    A training that continues from a checkpoint has the rates that the first one would have had.

    Args:
        rate: from the step to a factor or a rate.
        sites, relative, convert: as for `RateSchedule`.
        interval: what a step is: "step" for a training batch, "epoch" for an epoch.

    Example:
        ```python
        Trainer(max_epochs=90, callbacks=[DropoutSchedule(Early(steps=20), interval="epoch")])
        ```
    """

    # Of a checkpoint, until the training begins.
    _state: Mapping[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """Tells several of these callbacks in one checkpoint apart, by their sites."""
        sites = self._options["sites"]
        arguments = {"sites": None if callable(sites) else sites}
        return f"{type(self).__qualname__}{arguments}"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sites in the model, which is complete now."""
        self._begin(pl_module)
        if self._state and self.schedule is not None:
            self.schedule.load_state_dict(self._state)
            self._state = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the rates of the epoch."""
        self._set_step(trainer.current_epoch, "epoch")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the rates of the batch."""
        self._set_step(trainer.fit_loop.total_batch_idx, "step")

    def state_dict(self) -> dict[str, Any]:
        """The schedule's part of a checkpoint."""
        return {} if self.schedule is None else self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the schedule's part of a checkpoint until the training begins."""
        self._state = state_dict


def _training_step(module: Any, batch: Any) -> Any:
    """Call `training_step` with or without the batch index, as Lightning allows."""
    takes_index = len(inspect.signature(module.training_step).parameters) > 1
    return module.training_step(batch, 0) if takes_index else module.training_step(batch)


@contextmanager
def _unlogged(module: LightningModule) -> Generator[None]:
    """Disable logging: what the audit computes is no metric of the training."""

    def do_nothing(*args: Any, **kwargs: Any) -> None:
        pass

    before = {name: vars(module)[name] for name in _LOGGING if name in vars(module)}
    vars(module).update(dict.fromkeys(_LOGGING, do_nothing))
    try:
        yield
    finally:
        for name in _LOGGING:
            del vars(module)[name]
        vars(module).update(before)


def __dir__() -> list[str]:
    return public_names(globals())
