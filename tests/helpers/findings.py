"""Findings and results to print."""

from dropkit.diagnostics import Diagnostic, Edit, Fix, Severity, Span
from dropkit.lint.engine.result import CheckResult
from dropkit.lint.formats import FORMATS
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

SOURCE = """import torch.nn.functional as F


def forward(x):
\ty = "\N{SLIGHTLY SMILING FACE}日本"; x = F.dropout(x)
\tx = F.dropout(
\t\tx,
\t)
\treturn x
"""


RULE = RULES[0]


def finding(text, needle, path="model.py", cell=None, severity=Severity.ERROR, safe=True, fixed=True):
    """A finding that spans `needle`; its fix puts `, 0.1` before the last character."""
    start = text.utf8.index(needle.encode())
    end = start + len(needle.encode())
    edit = Edit(end - 1, end - 1, ", 0.1")
    fix = Fix("Give a rate", (edit,), safe=safe, changes_training=safe) if fixed else None
    span = Span(*text.position(start), *text.position(end))
    return Diagnostic(RULE.code, RULE.message, severity, path, span, fix, cell=cell)


def result_with(source=SOURCE, needle="F.dropout(x)", notes=(), fixed=(), **options):
    text = Text(source.encode())
    one = finding(text, needle, **options)
    return CheckResult((one,), notes, 3, fixed, {(one.path, one.cell): text})


def shown(name, given, color=False):
    return FORMATS[name](given, color)
