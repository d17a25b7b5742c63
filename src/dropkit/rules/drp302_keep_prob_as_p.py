"""The probability of keeping a unit, passed as the probability of dropping it.

Training is slow and ends with a worse model, while evaluation looks right: 90 % of the units are dropped where 10 %
were meant. The rate of TensorFlow 1 was the probability to keep (`keep_prob=0.9`), that of torch is the probability to
drop (`p=0.1`). Write `nn.Dropout(1 - keep_prob)`.

The rule judges by names: rename a variable that says keep but holds the rate to drop. Constants of 0.9 or more are
reported with severity info, since some published models use them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.attribute_usage import is_set_from_outside
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.dropout_calls import rates
from dropkit.lint.semantic.dropout_names import is_keep_rate_name, mentions_dropout
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, literal, self_attribute
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Rates from here on are suspicious.
_HIGH = 0.9


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call, rate in rates(source):
        number, value = literal(rate), _held(source, rate)
        if isinstance(number, float) and _HIGH <= number < 1 and not is_in_test(source, call):
            message = f"a rate of {number:g} drops nearly everything: is it the rate to keep?"
            yield Violation(rate, message, severity=Severity.INFO)
        elif is_keep_rate_name(_name(value)) and not _is_drop_rate(source, value):
            edit = replace(source, rate, f"1 - {source.text.of(rate)}")
            yield Violation(rate, fix=Fix("Pass 1 - keep", (edit,), safe=False))


def _held(source: SourceFile, rate: ast.expr) -> ast.expr:
    """What a local name, or an attribute of self that is set once and to nothing else, was set to; or `rate` itself."""
    attribute, owner = self_attribute(rate), source.owner(rate)
    writes = owner.all_writes(attribute) if attribute is not None and owner is not None else []
    if attribute is None or is_keep_rate_name(attribute) or len(writes) != 1 or is_set_from_outside(source, attribute):
        return source.substitute(rate)
    value = writes[0].value
    return source.substitute(value) if value is not None and not writes[0].derived else rate


def _name(rate: ast.expr) -> str:
    """The name of a rate: `keep_prob`, `self.keep_prob`, `config["keep_prob"]`; empty for any other expression."""
    match rate:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case _:
            return ""


def _is_drop_rate(source: SourceFile, rate: ast.expr) -> bool:
    """Whether a value of the name is a rate to drop, despite its name: `1 - keep_prob`, or a default below 0.5."""
    values = _values(source, rate)
    for _ in range(3):
        if len(values) > MOST or any(_is_drop(source, value) for value in values):
            return True  # too many values count as unknown
        values = list(dict.fromkeys(inner for value in values for inner in _values(source, value)))
    return False


@cached_per_file
def _is_drop(_: SourceFile, value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, (int, float)) and value.value < 0.5
    names = [_name(node) for node in ast.walk(value) if isinstance(node, ast.expr)]
    says_keep = any(map(is_keep_rate_name, names))
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub):
        return says_keep
    # As in keep = drop_rate.
    return not says_keep and any(map(mentions_dropout, names))


def _values(source: SourceFile, rate: ast.expr) -> list[ast.expr]:
    """The values of a name, an attribute of self or a command-line option in this file."""
    attribute, owner = self_attribute(rate), source.owner(rate)
    if attribute is not None and owner is not None:
        values = owner.values(attribute)
    elif isinstance(rate, ast.Name):
        bindings = source.bindings(rate)
        values = [binding.value or source.default(binding.statement) for binding in bindings[: MOST + 1]]
    else:
        values = [_options(source).get(_name(rate))]
    return [value for value in values if value is not None]


@cached_per_file
def _options(source: SourceFile) -> dict[str, ast.expr | None]:
    """The defaults of command-line options in this file: `parser.add_argument("--keep-prob", default=0.1)`."""
    return {
        option.value.lstrip("-").replace("-", "_"): argument(call, None, "default")
        for call in source.calls.get("add_argument", [])
        for option in call.args
        if isinstance(option, ast.Constant) and isinstance(option.value, str)
    }


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        if site.p is not None and not isinstance(site.p, bool) and _HIGH <= site.p < 1 and site.was_active(Phase.TRAIN):
            yield TraceViolation(site, f"drops {site.p:.0%}: is this the probability to keep?", Severity.INFO)


RULE = Rule(
    code="DRP302",
    name="keep-prob-as-p",
    message="the probability to keep is passed as the one to drop",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `1 - keep_prob`",
    examples=(
        Example(
            """
import torch
from torch import nn


def classifier(keep_prob=0.9):
    return nn.Sequential(
        nn.Linear(8, 8),
-        nn.Dropout(keep_prob),  # DRP302
+        nn.Dropout(1 - keep_prob),
        nn.Linear(8, 2),
    )


classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
