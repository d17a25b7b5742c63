"""A `train` or `eval` method that returns nothing.

`model = Model().eval()` is None, and fails far from the line at fault. Module's methods return the module; an override
that reaches the children but returns nothing switches modes as it should, so this is information, and a warning where
the file uses what the method returns. Add `return self`. The fix is safe where the method does nothing but switch modes
and set attributes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.attribute_usage import is_empty
from dropkit.lint.semantic.built_models import built
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.edits import fix
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.train_overrides import leaves_children, overrides, return_self, unless_no_module
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    for override in overrides(source):
        node, reaches = override.node, override.passes_on or override.traverses
        is_no_template = reaches or (node.name == "train" and not is_empty(node.body))
        if override.returns_none and is_no_template and not leaves_children(override):
            # A method that does more than switch modes may return nothing for a reason.
            safe = override.owner.is_module and override.only_switches
            used = _classes_of_used_results(source, node.name)
            is_used = any(cls in used for cls in (override.owner, *override.owner.subclasses[:MOST]))
            yield Violation(
                source.text.head(node),
                f"{node.name}() returns None, and its result is used"
                if is_used
                else f"{node.name}() does not return self",
                fix("Return self", *return_self(override), safe=safe),
                given=unless_no_module(override),
                severity=Severity.WARNING if is_used else None,
            )


@cached_per_file
def _classes_of_used_results(source: SourceFile, method: str) -> set[ClassDefinition | None]:
    """The classes of this file that `model` is of where it uses what `model.method()` returns.

    Module's `eval()` returns what `train()` does.
    """
    models = [
        call.func.value
        for name in {"eval", method}
        for call in source.calls.get(name, [])
        if isinstance(call.func, ast.Attribute) and not isinstance(source.parent(call), ast.Expr)
    ]
    return {source.local_class(made.func) for model in models for made in built(source, model)}


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return (TraceViolation(switch.name, f"{switch.kind}: {switch.fault}") for switch in trace.mode_faults)


RULE = Rule(
    code="DRP110",
    name="train-override-returns-nothing",
    message="train() does not return self",
    severity=Severity.INFO,
    check_source=check_source,
    check_trace=check_trace,
    fix="add `return self`",
    fix_is_safe=True,
    examples=(
        Example(
            '''
import torch
from torch import nn


class Frozen(nn.Module):
    """Keeps its normalization as it was trained."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def train(self, mode=True):  # DRP110
        super().train(mode)
        self.norm.eval()
+        return self

    def forward(self, x):
        return self.drop(self.norm(x))


model = Frozen()
model.eval()
model(torch.randn(4, 8))
''',
        ),
    ),
)
