"""Elementwise dropout in the place and under the name of drop path.

No branch is ever skipped: `nn.Dropout` drops single elements, where drop path drops the whole residual branch of a
sample. The published rates of drop path, up to 0.5 in deep layers, then act as strong dropout on every branch, and the
depth is not stochastic. Use `DropPath` (of dropkit or timm) or torchvision's `StochasticDepth`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, readers
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import last_name, names_in
from dropkit.lint.semantic.identifiers import words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_DROP_PATH = re.compile(r"\b(?:drop(?:out)? ?paths?|path drop(?:out)?|stochastic depth)\b")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION):
        is_elementwise = dropout.kind == "Dropout" and not dropout.has_noise_shape and not dropout.has_zero_rate
        if is_elementwise and _is_named(dropout) and _ends_branch(source, dropout.call):
            yield Violation(dropout.call)


def _is_named(dropout: DropoutCall) -> bool:
    """Whether the layer or its rate is named after drop path."""
    rates = [name for layer in dropout.layers if layer.p is not None for name in names_in(layer.p)]
    return any(_DROP_PATH.search(words_of(name)) for name in (last_name(dropout.call), *rates))


def _ends_branch(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result is added to something, by this statement or by those that read its name."""
    match source.parent(call):
        case ast.BinOp(op=ast.Add()) | ast.AugAssign(op=ast.Add()):
            return True
        case ast.BinOp(op=ast.Mult()) as scaled:
            return isinstance(source.parent(scaled), ast.BinOp)
        case ast.Assign(targets=[ast.Name(id=name)]) as statement:
            reads = readers(source, statement, name)
            added = (source.parent(read) for read in reads[:MOST])
            return any(
                isinstance(above, (ast.BinOp, ast.AugAssign)) and isinstance(above.op, ast.Add) for above in added
            )
        case _:
            return False


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        is_named = site.is_module and _DROP_PATH.search(words_of(site.name.rpartition(".")[2])) is not None
        visits = [visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active and visit.mask_shape]
        if is_named and visits and all(visit.mask_shape == visit.shape for visit in visits):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP411",
    name="elementwise-dropout-as-drop-path",
    message="drop path drops elements here, not whole branches",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn
+
+from dropkit.nn import DropPath


class Block(nn.Module):
    def __init__(self, width, drop_path=0.1):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, width)
-        self.drop_path = nn.Dropout(drop_path)
+        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        return x + self.drop_path(self.mlp(self.norm(x)))  # DRP411


Block(8)(torch.randn(4, 8))
""",
        ),
    ),
)
