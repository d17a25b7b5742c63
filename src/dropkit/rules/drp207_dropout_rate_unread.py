"""A dropout rate that is configured or passed, and that nothing reads.

The model trains with another rate, or with none, whatever the configuration says: there is no error, and a sweep over
the rate compares noise. Read the rate where the layers are made, or remove it.

Reported are fields of configuration classes that no file of the project reads, though one reads other fields; local
names that are set to a rate of the configuration and never read; rates that are taken out of `**kwargs` and dropped;
and arguments of functions that calls pass and the function ignores. DRP203 has the arguments of Modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import FactCondition, Severity
from dropkit.lint.semantic.attribute_usage import is_admitted
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import own_key
from dropkit.lint.semantic.settings_fields import unread_fields, uses_settings
from dropkit.lint.semantic.unread_rates import dropped_pops, is_passed, unread_locals, unread_parameters
from dropkit.rules.rule import Example, Rule, Violation, if_short


def check_source(source: SourceFile) -> Iterator[Violation]:
    yield from _fields(source)
    for statement, name in unread_locals(source):
        if not is_in_test(source, statement):
            yield Violation(statement, if_short(f"{name} is set and never read"))
    for statement, name in dropped_pops(source):
        if not is_admitted(source, statement) and not is_in_test(source, statement):
            yield Violation(statement, if_short(f"{name} is taken out and dropped"))
    for function, rate in unread_parameters(source):
        if is_in_test(source, function.node):
            continue
        message = if_short(f"{function.name} takes {rate.arg} and never reads it")
        if is_passed(source, function, rate):
            yield Violation(rate, message)
        elif function.owner is None and function.within is None and _makes_layers(source, function):
            key = own_key(source, function.name)
            yield Violation(rate, message, given=FactCondition(needs=(f"gets:{key}:{rate.arg}",)))


def _fields(source: SourceFile) -> Iterator[Violation]:
    for cls, statement, name in unread_fields(source):
        refuted_by = (f"reads:{name}", f"unpacks:{cls.name}", "unpacks:*")
        needs = () if uses_settings(source) else (f"uses:{cls.name}",)
        yield Violation(statement, if_short(f"no code reads the field {name}"), given=FactCondition(needs, refuted_by))


def _makes_layers(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a function makes layers of torch: any other may share its signature with functions of other files."""
    names = (source.called(call) or "" for call in ast.walk(function.node) if isinstance(call, ast.Call))
    return any(name.startswith("torch.nn.") for name in names)


RULE = Rule(
    code="DRP207",
    name="dropout-rate-unread",
    message="dropout rate is set or passed, and never read",
    severity=Severity.WARNING,
    check_source=check_source,
    examples=(
        Example(
            """
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Config:
    width: int = 8
    dropout: float = 0.1  # DRP207


class Classifier(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.hidden = nn.Linear(config.width, config.width)
+        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.width, 2)

    def forward(self, x):
-        return self.output(torch.relu(self.hidden(x)))
+        return self.output(self.dropout(torch.relu(self.hidden(x))))


Classifier(Config(dropout=0.3))(torch.randn(4, 8))
""",
            unseen="a rate that was not passed on leaves no trace",
        ),
        Example(
            """
import torch
from torch import nn


def make_layer(width, dropout):  # DRP207
-    return nn.Sequential(nn.Linear(width, width), nn.GELU())
+    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))


nn.Sequential(make_layer(8, dropout=0.1), nn.Linear(8, 2))(torch.randn(4, 8))
""",
            unseen="a rate that was not passed on leaves no trace",
        ),
    ),
)
