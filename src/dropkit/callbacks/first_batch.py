"""What the callbacks share: an audit that speaks once, and stops the run if it was asked to."""

from __future__ import annotations

from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.facts.finding import Severity


class BadDropout(RuntimeError):
    """The audit of the first batch found errors, and the callback was made with `stop=True`."""


def audited(auditor: Auditor, model: nn.Module, args: Any, kwargs: Any, stop: bool, speak: bool) -> Report:
    """Audit, print what was seen, and raise if errors are to stop the run.

    Raises:
        BadDropout: `stop`, and a finding is an error.
    """
    report = auditor.audit(model, *args, **kwargs)
    if speak:
        print(report)
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    if stop and errors:
        raise BadDropout("\n".join(map(str, errors)))
    return report
