"""DropoutAudit for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback

from dropkit.auditor import Auditor, Report
from dropkit.callbacks.first_batch import FirstBatch

__all__ = ["DropoutAudit"]


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


def _as_called(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Make the call as the Trainer did, without rearranging its arguments."""
    return model(*args, **kwargs)
