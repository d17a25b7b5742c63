"""The callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback

from dropkit.auditor import Auditor, Report
from dropkit.callbacks.first_batch import FirstBatch

__all__ = ["DropoutAudit"]


class DropoutAudit(TrainerCallback):
    """Audit the dropout of the model on the first batch that it is trained with, and print the report.

    The audit runs inside the first forward call, with that call's own inputs and precision, and leaves no trace:
    losses, masks and weights of the training are those of a run without it.

    Args:
        ignore: codes of rules that are not asked, or beginnings of them.
        stop: raise `BadDropout` if an error is found.
        quiet: print nothing; the report is the attribute `report`.

    Example:
        ```python
        Trainer(model, arguments, train_dataset=data, callbacks=[DropoutAudit()])
        ```
    """

    def __init__(self, ignore: Sequence[str] = (), stop: bool = False, quiet: bool = False) -> None:
        self._first = FirstBatch(Auditor(call=_as_called, ignore=ignore), stop, quiet)

    @property
    def report(self) -> Report | None:
        """What the audit saw; None before the first batch."""
        return self._first.report

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Wait for the first forward call."""
        if model is None or self._first.done:
            return

        def first(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            hook.remove()
            self._first.audit(module, inputs, named, state.is_world_process_zero)

        hook = model.register_forward_pre_hook(first, with_kwargs=True)


def _as_called(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward call as it was made, however its arguments are packed."""
    return model(*args, **kwargs)
