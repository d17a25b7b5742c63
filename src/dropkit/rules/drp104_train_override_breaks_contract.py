"""A `train` or `eval` method that does not reach the children of its module.

Dropout of some layers stays on after `model.eval()`. `Module.train(mode)` sets the mode of the module and of all its
children; `eval()` calls it. An override that does not pass the call on leaves the children in their mode. Call
`super().train(mode)`, and `return self`.

Methods with another meaning are not reported: those that take something other than a mode (`train(self, loader)`), and
those that train, yield or return something else. A method that only returns self is not reported either: it keeps a
frozen model as it is. DRP110 has overrides that only return nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.edits import fix, insert_before
from dropkit.lint.semantic.expressions import has_docstring
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.train_overrides import Override, leaves_children, overrides, return_self, unless_no_module
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, active_in_eval, severity_in_eval
from dropkit.trace import Form, Phase, Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    for override in overrides(source):
        if leaves_children(override):
            head, given = source.text.head(override.node), unless_no_module(override)
            message = f"{override.node.name}() does not reach the children of the module"
            yield Violation(head, message, _fix(override), given=given)


def _fix(override: Override) -> Fix | None:
    """Call super first, and return self; this changes training."""
    source, node = override.source, override.node
    own = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
    first = int(has_docstring(node.body))
    if first == len(node.body) or (node.name == "train" and len(own) < 2):
        return None
    mode = own[1] if node.name == "train" else ""
    call = insert_before(source, node.body[first], f"super().{node.name}({mode})")
    return fix(f"Call super().{node.name}", *return_self(override), call)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in active_in_eval(trace):
        worst = severity_in_eval(site) or Severity.ERROR
        if site.form is Form.REGISTERED and site.flag_in_eval:
            yield TraceViolation(site, "in training mode after model.eval()", worst)
        elif site.form is Form.REGISTERED and any(visit.training for visit in site.visits_in(Phase.EVAL)):
            yield TraceViolation(site, "set to training mode by the forward, while the model evaluates", worst)


RULE = Rule(
    code="DRP104",
    name="train-override-breaks-contract",
    message="train() does not reach the children of the module",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="call `super().train(mode)` and return self",
    examples=(
        Example(
            """
import torch
from torch import nn


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def train(self, mode=True):  # DRP104
+        super().train(mode)
        self.training = mode
        self.norm.eval()
        return self

    def forward(self, x):
        return self.drop(self.norm(x))


model = Frozen()
model.eval()
model(torch.randn(4, 8))
""",
        ),
    ),
)
