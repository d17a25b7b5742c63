"""What the callbacks share: an audit that speaks once, and stops the run if it was asked to."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.diagnostics import Severity


class BadDropout(RuntimeError):
    """The audit of the first batch found errors, and the callback was made with `stop=True`."""


class FirstBatch:
    """One audit, and what is to be done about it. `report` is None until then, and `done` false."""

    def __init__(self, auditor: Auditor, stop: bool, quiet: bool) -> None:
        self.report: Report | None = None
        self.done = False
        self._auditor, self._stop, self._quiet = auditor, stop, quiet

    def audit(self, model: nn.Module, args: Any, kwargs: Any, is_first_rank: bool) -> None:
        """Audit, print what was seen, and raise if errors are to stop the run. An audit that fails only warns.

        Raises:
            BadDropout: a finding is an error, and that was to stop the run.
        """
        self.done = True
        try:
            self.report = report = self._auditor.audit(model, *args, **kwargs)
        except Exception as error:
            # A training that would run is not ended by who only looks on.
            warnings.warn(f"the dropout of {type(model).__name__} was not audited: {error}", stacklevel=2)
            return
        if is_first_rank and not self._quiet:
            print(report)
        errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
        if self._stop and errors:
            raise BadDropout("\n".join(map(str, errors)))
