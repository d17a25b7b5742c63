"""A `# noqa` comment that silences nothing.

What it excused was fixed, was moved to another line, or never was a misuse. The comment tells readers of a bug that is
not there, and will hide a real one that comes to stand on its line. A code is unused if no rule that it stands for
finds anything on the line; for `# ruff: noqa: DRP101`, anything in the file. Codes of other linters are kept. Comments
without codes are not reported, nor is `# dropkit: ignore[DRP101]`: they may be there for other linters, and for audits.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noqa import OWN, UNUSED, Comments, Noqa, names_own_codes, stands_for
from dropkit.lint.semantic.noqa_edits import remove_codes
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, Violation


def check_source(source: SourceFile) -> Iterator[Violation]:
    if not names_own_codes(source.text.utf8):
        return
    for noqa in Comments(source.text).noqa():
        unused = [code for code in noqa.codes if code.startswith(OWN) and _is_unused(source, noqa, code)]
        if unused:
            message = f"nothing here for `noqa: {', '.join(unused)}` to silence"
            place = source.text.node(noqa.start, noqa.end)
            yield Violation(place, message, remove_codes(source.text, noqa, unused))


def _is_unused(source: SourceFile, noqa: Noqa, code: str) -> bool:
    from dropkit.rules import RULES  # imported here: this rule is one of them

    rules = [rule for rule in RULES if stands_for((code,), rule.code)]
    if code in _OTHERS or any(rule.check_source is None and rule.code == code for rule in rules):
        return False  # what flake8 or an audit reports is unknown here
    return not any(noqa.is_for_file or noqa.line in lines for rule in rules for lines in _lines_of(source, rule))


@cached_per_file
def _lines_of(source: SourceFile, rule: Rule) -> list[tuple[int, int]]:
    """The first and last line of each finding of a rule, whether the settings select it or not."""
    return [(finding.span.line, finding.span.end_line) for finding in rule.diagnostics(source)]


# This rule's own code, and that of files that flake8 can read and dropkit cannot.
_OTHERS = (UNUSED, "DRP000")

RULE = Rule(
    code=UNUSED,
    name="unused-noqa",
    message="this `noqa` comment silences nothing",
    severity=Severity.WARNING,
    check_source=check_source,
    fix="remove the comment, or its unused codes",
    fix_is_safe=True,
    examples=(
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def forward(self, x):
-        return F.dropout(x, 0.5, training=self.training)  # noqa: DRP101  # DRP001
+        return F.dropout(x, 0.5, training=self.training)


Classifier()(torch.randn(4, 8))
""",
            unseen="a comment does nothing in a run",
        ),
    ),
)
