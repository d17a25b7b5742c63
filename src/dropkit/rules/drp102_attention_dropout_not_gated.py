"""Attention whose dropout stays on in evaluation.

Predictions of a model that was trained with attention dropout differ from call to call, without a warning.
`F.scaled_dot_product_attention(q, k, v, dropout_p=p)` drops whenever `p` is not zero: it has no training flag, so
`model.eval()` does not reach it. The same holds for `flash_attn_func` and `memory_efficient_attention`.
`F.multi_head_attention_forward` has a flag, which is true by default.

Pass zero outside of training: `dropout_p=(self.p if self.training else 0.0)`. The rate of a dropout layer
(`self.attn_drop.p`) does not follow the mode either.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ATTENTION, ATTENTION_BY_LAST_NAME, DROPOUT_MODULES, MULTI_HEAD
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.edits import fix, pass_training, replace
from dropkit.lint.semantic.expressions import argument, given, is_off, last_part, literal, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import alternatives
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import (
    depends_on_mode,
    flags,
    follows_mode,
    is_flag,
    is_in_one_mode_method,
    readers_of_training,
)
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended, violations_in_eval
from dropkit.trace import Form, Trace

_TITLE = "Drop only if self.training"
# Functions of other libraries and of this file that are known by their last name: what they call the rate.
_RATE_BY_LAST_NAME = {last_part(name): rate for name, (_, rate) in ATTENTION.items()}
# What a configuration is called where a method gets it as an argument.
_CONFIGURATIONS = frozenset({"config", "cfg", "conf", "args", "hparams", "opt", "params"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    names = sorted({*_RATE_BY_LAST_NAME, *ATTENTION_BY_LAST_NAME, last_part(MULTI_HEAD)})
    named = {call: name for name in names for call in source.calls.get(name, [])}
    # A function that is kept in an attribute has another name there.
    kept = {dropout.call: last_part(dropout.name) for dropout in dropout_calls(source, DropoutForm.ATTENTION)}
    for call, name in (named | kept).items():
        owner = source.module(call)
        violation = _judge(source, call, owner, name) if owner is not None else None
        if violation is not None and not is_in_one_mode_method(source, call) and not depends_on_mode(source, call):
            yield from unless_intended(source, violation)


def _judge(source: SourceFile, call: ast.Call, owner: ClassDefinition, name: str) -> Violation | None:
    """A call whose rate is a number that does not follow the mode, and that has no flag, or a true one."""
    dropout = dropout_call(source, call)
    p = dropout.p if dropout is not None else _rate_by_name(source, call, owner, name)
    if p is None or is_off(p) or follows_mode(source, p):
        return None
    if dropout is not None and dropout.name == MULTI_HEAD:
        drops = literal(dropout.training) is True or (dropout.training is None and not unpacks(call))
        return Violation(call, fix=pass_training(source, dropout, _TITLE)) if drops else None
    is_gated = dropout is not None and dropout.training is not None and literal(dropout.training) is not True
    # A rate outside of the call, in a `partial`, is set once and where the mode is not known.
    is_here = any(argument is p for argument in given(call))
    if is_gated or (is_here and not _is_rate(source, owner, p)):
        return None
    value = source.substitute(p)
    layer = self_attribute(value.value) if isinstance(value, ast.Attribute) and value.attr == "p" else None
    message = f"self.{layer}.p is the same under model.eval()" if layer is not None else None
    return Violation(call, message, _fix(source, owner, p) if is_here else None)


def _rate_by_name(source: SourceFile, call: ast.Call, owner: ClassDefinition, name: str) -> ast.expr | None:
    """The rate of a function that is named like a known one and does not ask for the mode itself."""
    if name in ATTENTION_BY_LAST_NAME and owner.method(name) not in readers_of_training(source):
        return argument(call, None, ATTENTION_BY_LAST_NAME[name])
    # A copy or a wrapper under the known name: imported, or not bound in this file at all.
    is_unbound = isinstance(call.func, ast.Name) and not source.bindings(call.func)
    if name in _RATE_BY_LAST_NAME and (is_unbound or "." in (source.called(call) or "")):
        return argument(call, None, _RATE_BY_LAST_NAME[name])
    return None


def _is_rate(source: SourceFile, owner: ClassDefinition, p: ast.expr | None, depth: int = 0) -> bool:
    """Whether `p` is a rate that somebody set once: a number, an attribute of self or of a configuration."""
    match p:
        case ast.Constant(value=value):
            return isinstance(value, (int, float)) and value != 0
        case ast.IfExp():
            return any(_is_rate(source, owner, branch, depth) for branch in alternatives(source, p))
        case ast.BoolOp(values=values):
            return any(_is_rate(source, owner, value, depth) for value in values)
        case ast.Call(func=ast.Name(id="float"), args=[inner]):
            return _is_rate(source, owner, inner, depth)
        case ast.Name() if depth < 2:
            values = source.values(p)
            is_known = len(values) <= MOST and None not in values
            return is_known and any(_is_rate(source, owner, value, depth + 1) for value in values)
        case ast.Attribute():
            return _is_set_once(source, owner, p)
        case _:
            return False


def _is_set_once(source: SourceFile, owner: ClassDefinition, p: ast.Attribute) -> bool:
    root: ast.expr = p
    while isinstance(root, ast.Attribute):
        if self_attribute(root) is not None:
            return _ignores_mode(source, owner, root.attr, is_rate=root is p)
        root = root.value
    return isinstance(root, ast.Name) and root.id in _CONFIGURATIONS


@cached_per_file
def _ignores_mode(source: SourceFile, owner: ClassDefinition, attribute: str, is_rate: bool) -> bool:
    """Whether `self.attribute` is set without regard to the mode, is not always zero, and is no property."""
    writes = owner.all_writes(attribute)
    values = [write.value for write in writes if write.value is not None]
    if (
        owner.method(attribute) is not None
        or is_flag(attribute)
        or any(write.function is not None and write.function.name in ("train", "eval") for write in writes)
        or any("training" in flags(value) for value in values)
    ):
        return False
    is_layer = any(source.called(value) in DROPOUT_MODULES for value in values)
    return not is_rate or (not is_layer and not (values and all(map(is_off, values))))


def _fix(source: SourceFile, owner: ClassDefinition, p: ast.expr) -> Fix | None:
    text, name = source.text.of(p), source.self_name(p)
    if isinstance(p, (ast.IfExp, ast.NamedExpr, ast.Lambda)):
        text = f"({text})"
    edit = replace(source, p, f"({text} if {name}.training else 0.0)") if name is not None else None
    return fix(_TITLE, edit, safe=owner.has_mode)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return violations_in_eval(trace, Form.ATTENTION)


RULE = Rule(
    code="DRP102",
    name="attention-dropout-not-gated",
    message="attention dropout does not follow model.eval()",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `dropout_p=(p if self.training else 0.0)`, or `training=self.training`",
    fix_is_safe=True,
    examples=(
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, p=0.1):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.p = p

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
-        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p)  # DRP102
+        return F.scaled_dot_product_attention(q, k, v, dropout_p=(self.p if self.training else 0.0))


Attention(8).eval()(torch.randn(2, 4, 8))
""",
        ),
    ),
)
