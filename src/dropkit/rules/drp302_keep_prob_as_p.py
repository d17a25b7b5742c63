"""The probability to keep, given as the probability to drop.

TensorFlow 1 counted what stays (`keep_prob=0.9`), torch counts what goes (`p=0.1`). Code carried over without `1 -`
drops nine tenths where one tenth was meant: training is slow and ends badly, and evaluation looks right. Write
`nn.Dropout(1 - keep_prob)`.

A name is all there is to see: one that says keep but holds the rate to drop is better renamed. A constant of 0.9 or
more is only worth a look: some published models have it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.dropout_calls import rates
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.lint.semantic.test_context import is_trial
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_KEEP = re.compile(r"keep(?!_?(dim|train|alive))|retain_?(p|rate)|survival|survive", re.IGNORECASE)
_DROP = re.compile(r"drop", re.IGNORECASE)
# A rate from here on is worth a look.
_HIGH = 0.9


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call, rate in rates(source):
        if isinstance(rate, ast.Constant) and isinstance(rate.value, float) and _HIGH <= rate.value < 1:
            if not is_trial(source, call):
                message = f"a rate of {rate.value:g} drops nearly everything: is it what to keep?"
                yield Violation(rate, message, severity=Severity.INFO)
            continue
        if _says_keep(source.substitute(rate)) and not _holds_drop(source, source.substitute(rate)):
            yield Violation(
                rate, fix=Fix("Pass 1 - keep", (replace(source, rate, f"1 - {source.text.of(rate)}"),), safe=False)
            )


def _says_keep(rate: ast.expr) -> bool:
    name = _name(rate)
    return name is not None and _KEEP.search(name) is not None


def _name(rate: ast.expr) -> str | None:
    """What a rate is called: `keep_prob`, `self.keep_prob`, `config["keep_prob"]`."""
    match rate:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case _:
            return None


def _holds_drop(source: SourceFile, rate: ast.expr) -> bool:
    """Whether what the name is set to is a rate to drop after all: `1 - keep_prob`, or by default a small number."""
    values = _values(source, rate)
    for _ in range(3):
        if len(values) > MOST or any(_is_drop(source, value) for value in values):
            return True  # or set in so many places that it is not known
        values = list(dict.fromkeys(inner for value in values for inner in _values(source, value)))
    return False


@cached_per_file
def _is_drop(_: SourceFile, value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, (int, float)) and value.value < 0.5
    names = [_name(one) or "" for one in ast.walk(value) if isinstance(one, ast.expr)]
    says_keep = any(_KEEP.search(name) for name in names)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub):
        return says_keep
    # keep = drop_rate: called keep, and is not.
    return not says_keep and any(_DROP.search(name) for name in names)


def _values(source: SourceFile, rate: ast.expr) -> list[ast.expr]:
    """What a name, an attribute of self or an option is set to in this file."""
    attribute, owner = self_attribute(rate), source.owner(rate)
    if attribute is not None and owner is not None:
        found = owner.values(attribute)
    elif isinstance(rate, ast.Name):
        bindings = source.bindings(rate)
        found = [binding.value or source.default(binding.statement) for binding in bindings[: MOST + 1]]
    else:
        found = [_options(source).get(_name(rate) or "")]
    return [value for value in found if value is not None]


@cached_per_file
def _options(source: SourceFile) -> dict[str, ast.expr | None]:
    """The defaults of `parser.add_argument("--keep-prob", default=0.1)` in this file."""
    found: dict[str, ast.expr | None] = {}
    for call in source.calls.get("add_argument", []):
        for one in call.args:
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                found[one.value.lstrip("-").replace("-", "_")] = argument(call, None, "default")
    return found


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        if site.p is not None and not isinstance(site.p, bool) and _HIGH <= site.p < 1 and site.was_active(Phase.TRAIN):
            yield TraceViolation(site, f"drops {site.p:.0%}: is this the probability to keep?", Severity.INFO)


RULE = Rule(
    code="DRP302",
    name="keep-prob-as-p",
    message="a probability to keep is given as the one to drop",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `1 - keep_prob`",
    examples=(
        Example(
            bad="""
import torch
from torch import nn


def classifier(keep_prob=0.9):
    return nn.Sequential(
        nn.Linear(8, 8),
        nn.Dropout(keep_prob),  # DRP302
        nn.Linear(8, 2),
    )


classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


def classifier(keep_prob=0.9):
    return nn.Sequential(
        nn.Linear(8, 8),
        nn.Dropout(1 - keep_prob),
        nn.Linear(8, 2),
    )


classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
