"""What the callbacks share: an audit that speaks once, and stops the run if it was asked to."""

from __future__ import annotations

from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.facts.finding import Severity


class BadDropout(RuntimeError):
    """The audit of the first batch found errors, and the callback was made with `stop=True`."""


class FirstBatch:
    """One audit, and what is to be done about it. `report` is None until then."""

    report: Report | None = None

    def __init__(self, auditor: Auditor, stop: bool, quiet: bool) -> None:
        self._auditor, self._stop, self._quiet = auditor, stop, quiet

    def audit(self, model: nn.Module, args: Any, kwargs: Any, is_first_rank: bool) -> None:
        """Audit, print what was seen, and raise if errors are to stop the run.

        Raises:
            BadDropout: a finding is an error, and that was to stop the run.
        """
        self.report = report = self._auditor.audit(model, *args, **kwargs)
        if is_first_rank and not self._quiet:
            print(report)
        errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
        if self._stop and errors:
            raise BadDropout("\n".join(map(str, errors)))
