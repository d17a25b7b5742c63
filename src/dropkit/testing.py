"""assert_dropout_ok: audit a model in a test, and fail with the findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dropkit.auditor import Auditor, Report
from dropkit.diagnostics import Severity
from dropkit.public_names import public_names

__all__ = ["assert_dropout_ok"]


def assert_dropout_ok(
    model: nn.Module, *inputs: Any, ignore: Sequence[str] = (), severity: str = "warning", **kwargs: Any
) -> Report:
    """Fail if an audit of `model(*inputs, **kwargs)` has findings; see `dropkit.audit`.

    Args:
        model: any module.
        *inputs: arguments of the model.
        ignore: codes of rules to skip, such as "DRP407", or prefixes of codes.
        severity: minimum severity that fails: "error", "warning" or "info".
        **kwargs: keyword arguments of the model.

    Returns:
        The report.

    Raises:
        AssertionError: there are findings; the message lists them.
        ValueError: `severity` or a code in `ignore` does not exist.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Dropout(0.1))
        >>> dropkit.testing.assert_dropout_ok(model, torch.randn(5, 4))
        Traceback (most recent call last):
        AssertionError: dropout of Sequential:
          2 (called at ...): DRP304 warning: a second dropout on what 1 has just dropped from
        `dropkit explain DRP304` explains it; ignore=("DRP304",) skips it
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    names = [known.value for known in Severity]
    if severity not in names:
        raise ValueError(f"severity must be one of {', '.join(names)}, got {severity!r}")
    report = Auditor(ignore=ignore).audit(model, *inputs, **kwargs)
    failures = [finding for finding in report.findings if finding.severity.rank <= Severity(severity).rank]
    if report.stopped is not None and not failures:
        raise AssertionError(f"dropout of {report.model}: the audit stopped in {report.stopped}")
    if failures:
        code = failures[0].code
        lines = "\n".join(f"  {finding}" for finding in failures)
        raise AssertionError(
            f'dropout of {report.model}:\n{lines}\n`dropkit explain {code}` explains it; ignore=("{code}",) skips it'
        )
    return report


def __dir__() -> list[str]:
    return public_names(globals())
