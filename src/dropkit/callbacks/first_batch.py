"""The audit of the first batch, which all callbacks share."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.diagnostics import Severity


class BadDropout(RuntimeError):
    """The audit found errors, and the callback has `stop=True`."""


class FirstBatch:
    """An audit that is done once.

    Attributes:
        report: None before the audit, or if it failed.
        is_done: whether the audit was done or has failed.
    """

    def __init__(self, auditor: Auditor, stop: bool, quiet: bool) -> None:
        self.report: Report | None = None
        self.is_done: bool = False
        self._auditor, self._stop, self._quiet = auditor, stop, quiet

    def audit(self, model: nn.Module, args: Any, kwargs: Any, is_first_rank: bool) -> None:
        """Audit the model and print the report. An audit that fails is a warning.

        Raises:
            BadDropout: a finding is an error, and errors stop the run.
        """
        self.is_done = True
        try:
            self.report = report = self._auditor.audit(model, *args, **kwargs)
        except Exception as error:
            # A diagnosis must not end a training that would otherwise run.
            warnings.warn(f"the dropout of {type(model).__name__} was not audited: {error}", stacklevel=2)
            return
        if is_first_rank and not self._quiet:
            print(report)
        errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
        if self._stop and errors:
            raise BadDropout("\n".join(map(str, errors)))
