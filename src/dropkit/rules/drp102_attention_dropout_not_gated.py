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
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import dropout_call
from dropkit.lint.semantic.edits import add_argument, replace
from dropkit.lint.semantic.expressions import argument, is_off, last_part, literal, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import alternatives
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import depends_on_mode, flags, follows_mode, is_flag, is_in_one_mode_method
from dropkit.rules.rule import (
    Example,
    Rule,
    TraceViolation,
    Violation,
    active_in_eval,
    severity_in_eval,
    unless_intended,
)
from dropkit.trace import Form, Trace

# Functions of other libraries and of this file that are known by their last name: what they call the rate.
_RATE_BY_LAST_NAME = {last_part(name): rate for name, (_, rate) in ATTENTION.items()}
# What a configuration is called where a method gets it as an argument.
_CONFIGURATIONS = frozenset({"config", "cfg", "conf", "args", "hparams", "opt", "params"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in sorted({*_RATE_BY_LAST_NAME, *ATTENTION_BY_LAST_NAME, last_part(MULTI_HEAD)}):
        for call in source.calls.get(name, []):
            owner = source.owner(call)
            if owner is None or not owner.is_module:
                continue
            violation = _multi_head(source, call) or _kernel(source, call, owner, name)
            is_gated = is_in_one_mode_method(source, call) or depends_on_mode(source, call)
            if violation is not None and not is_gated:
                yield from unless_intended(source, violation)


def _kernel(source: SourceFile, call: ast.Call, owner: ClassDefinition, name: str) -> Violation | None:
    """A call whose rate is a number that does not follow the mode."""
    p = _rate(source, call, owner, name)
    if p is None or follows_mode(source, p) or not _is_rate(source, owner, p):
        return None
    message = None
    value = source.substitute(p)
    if isinstance(value, ast.Attribute) and value.attr == "p" and self_attribute(value.value) is not None:
        message = f"self.{self_attribute(value.value)}.p is the same under model.eval()"
    return Violation(call, message, _fix(source, call, _gated(source, call, p)))


def _rate(source: SourceFile, call: ast.Call, owner: ClassDefinition, name: str) -> ast.expr | None:
    """The rate of a function that is known, or that is named like one and does not ask for the mode itself."""
    dropout = dropout_call(source, call)
    if dropout is not None:
        return dropout.p if dropout.name != MULTI_HEAD else None
    if name in ATTENTION_BY_LAST_NAME and not _gates_itself(source, owner, name):
        return argument(call, None, ATTENTION_BY_LAST_NAME[name])
    if name in _RATE_BY_LAST_NAME and _is_from_elsewhere(source, call):
        return argument(call, None, _RATE_BY_LAST_NAME[name])
    return None


def _multi_head(source: SourceFile, call: ast.Call) -> Violation | None:
    dropout = dropout_call(source, call)
    if dropout is None or dropout.name != MULTI_HEAD or dropout.p is None:
        return None
    flag, text = dropout.training, f"{source.self_name(call)}.training"
    if is_off(dropout.p) or follows_mode(source, dropout.p) or (flag is None and unpacks(call)):
        return None
    if flag is None:
        return Violation(call, fix=_fix(source, call, add_argument(source, call, f"training={text}")))
    return Violation(call, fix=_fix(source, call, replace(source, flag, text))) if literal(flag) is True else None


def _is_rate(source: SourceFile, owner: ClassDefinition, p: ast.expr, depth: int = 0) -> bool:
    """Whether `p` is a rate that somebody set once: a number, an attribute of self or of a configuration."""
    match p:
        case ast.Constant(value=value):
            return isinstance(value, (int, float)) and value != 0
        case ast.IfExp():
            branches = alternatives(source, p)
            return any(_is_rate(source, owner, branch, depth) for branch in branches if branch is not None)
        case ast.BoolOp(values=values):
            return any(_is_rate(source, owner, value, depth) for value in values)
        case ast.Call(func=ast.Name(id="float"), args=[inner]):
            return _is_rate(source, owner, inner, depth)
        case ast.Name():
            bindings = source.bindings(p)
            values = [binding.value if not binding.derived else None for binding in bindings[:MOST]]
            return (
                depth < 2
                and len(bindings) <= MOST
                and None not in values
                and any(_is_rate(source, owner, value, depth + 1) for value in values if value is not None)
            )
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
    if owner.method(attribute) is not None or is_flag(attribute):
        return False
    writes = owner.all_writes(attribute)
    if any(write.function is not None and write.function.name in ("train", "eval") for write in writes):
        return False
    values = [write.value for write in writes if write.value is not None]
    if any("training" in flags(value) for value in values):
        return False
    if not is_rate:
        return True
    is_layer = any(source.called(value) in DROPOUT_MODULES for value in values)
    return not is_layer and not (values and all(map(is_off, values)))


def _is_from_elsewhere(source: SourceFile, call: ast.Call) -> bool:
    """Whether the function is a copy or a wrapper under the known name: imported, or not bound in this file at all."""
    is_unbound = isinstance(call.func, ast.Name) and not source.bindings(call.func)
    return is_unbound or "." in (source.called(call) or "")


@cached_per_file
def _gates_itself(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    """Whether a method of that name in this file asks for the mode."""
    method = owner.method(name)
    reads = source.attributes.get("training", []) if method is not None else []
    return any((function := source.function(read)) is not None and function.method is method for read in reads)


def _gated(source: SourceFile, call: ast.Call, p: ast.expr) -> Edit:
    text = source.text.of(p)
    if isinstance(p, (ast.IfExp, ast.NamedExpr, ast.Lambda)):
        text = f"({text})"
    return replace(source, p, f"({text} if {source.self_name(call)}.training else 0.0)")


def _fix(source: SourceFile, call: ast.Call, edit: Edit | None) -> Fix | None:
    owner = source.owner(call)
    if edit is None or owner is None or source.self_name(call) is None:
        return None
    return Fix("Drop only if self.training", (edit,), safe=owner.has_mode)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    sites = (site for site in active_in_eval(trace) if site.form is Form.ATTENTION)
    return (TraceViolation(site, severity=severity_in_eval(site)) for site in sites)


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
            bad="""
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
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p)  # DRP102


Attention(8).eval()(torch.randn(2, 4, 8))
""",
            good="""
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
        return F.scaled_dot_product_attention(q, k, v, dropout_p=(self.p if self.training else 0.0))


Attention(8).eval()(torch.randn(2, 4, 8))
""",
        ),
    ),
)
