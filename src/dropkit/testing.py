"""Dropout in tests: one line that fails with what is wrong and how to read about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.diagnostics import Severity

__all__ = ["assert_dropout_ok"]


def assert_dropout_ok(
    model: nn.Module, *inputs: Any, ignore: Sequence[str] = (), severity: str = "warning", **kwargs: Any
) -> Report:
    """Fail unless an audit of `model(*inputs, **kwargs)` finds nothing; see `dropkit.audit`.

    Args:
        model: any module.
        *inputs: what it takes.
        ignore: codes of findings that are meant, such as "DRP407", or beginnings of them.
        severity: the least that fails: "error", "warning" or "info".
        **kwargs: what it takes by name.

    Returns:
        The report, for further questions.

    Raises:
        AssertionError: something was found; the message lists it.
        ValueError: `severity` or a code of `ignore` is not one.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Dropout(0.1))
        >>> dropkit.testing.assert_dropout_ok(model, torch.randn(5, 4))
        Traceback (most recent call last):
        AssertionError: dropout of Sequential:
          2 (called at ...): DRP304 warning: a second dropout on what 1 has just dropped from
        `dropkit explain DRP304` says what happens and why; ignore=("DRP304",) passes it over
    """
    names = [one.value for one in Severity]
    if severity not in names:
        raise ValueError(f"severity must be one of {', '.join(names)}, got {severity!r}")
    report = Auditor(ignore=ignore).audit(model, *inputs, **kwargs)
    wrong = [finding for finding in report.findings if finding.severity.rank <= Severity(severity).rank]
    if report.stopped is not None and not wrong:
        raise AssertionError(f"dropout of {report.model}: the audit stopped in {report.stopped}")
    if wrong:
        code = wrong[0].code
        lines = "\n".join(f"  {finding}" for finding in wrong)
        raise AssertionError(
            f"dropout of {report.model}:\n{lines}\n"
            f'`dropkit explain {code}` says what happens and why; ignore=("{code}",) passes it over'
        )
    return report
