"""Attention whose dropout stays on in evaluation.

`F.scaled_dot_product_attention(q, k, v, dropout_p=p)` drops whenever `p` is not zero: it has no flag for the mode, and
`model.eval()` changes no number. So do `flash_attn_func` and `memory_efficient_attention`. The evaluation of a model
trained with attention dropout then differs from call to call, without a warning. `F.multi_head_attention_forward` has
a flag, which is true unless given.

Pass zero outside of training: `dropout_p=(self.p if self.training else 0.0)`. Reading the rate of a dropout layer
(`self.attn_drop.p`) does not bring its mode along.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import (
    ATTENTION,
    ATTENTION_BY_LAST_NAME,
    DROPOUT_MODULES,
    MULTI_HEAD,
    MULTI_HEAD_P,
    MULTI_HEAD_TRAINING,
)
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, alternatives
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.edits import add_argument, replace
from dropkit.lint.semantic.expressions import argument, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile, once
from dropkit.lint.semantic.training_flag import (
    called_under_mode,
    flags,
    follows_mode,
    is_flag,
    serves_one_mode,
    under_mode,
)
from dropkit.rules._stays_on import active_in_eval, severity, unless_meant
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Form, Trace

_ARGUMENT = {name.rsplit(".", 1)[1]: argument for name, (_, argument) in ATTENTION.items()}
_LAST = frozenset({*_ARGUMENT, *ATTENTION_BY_LAST_NAME, "multi_head_attention_forward"})
# What a configuration is called where a method gets it as an argument.
_CONFIGURATIONS = frozenset({"config", "cfg", "conf", "args", "hparams", "opt", "params"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in _LAST & set(source.calls) | _renamed(source):
        for call in source.calls.get(name, []):
            owner = source.owner(call)
            if owner is None or not owner.is_module:
                continue
            hit = _multi_head(source, call) if source.called(call) == MULTI_HEAD else _kernel(source, call, owner, name)
            if hit is not None and not _excused(source, call):
                yield from unless_meant(source, hit)


def _renamed(source: SourceFile) -> set[str]:
    """What this file calls such a function, where it imports one `as` something else."""
    bindings = ((name, one) for name, all_of_it in source.names.items() for one in all_of_it)
    return {
        name
        for name, one in bindings
        if (isinstance(one.value, ast.Attribute) and one.value.attr in _LAST)
        or (one.imported is not None and one.imported.rsplit(".", 1)[-1] in _LAST)
    }


def _kernel(source: SourceFile, call: ast.Call, owner: ClassDefinition, name: str) -> Violation | None:
    known = ATTENTION.get(source.called(call) or "")
    if known is None and name in ATTENTION_BY_LAST_NAME and not _gates_itself(source, owner, name):
        known = (None, ATTENTION_BY_LAST_NAME[name])
    elif known is None and name in _ARGUMENT and _comes_from_elsewhere(source, call):
        known = (None, _ARGUMENT[name])
    p = argument(call, *known) if known is not None else None
    if p is None or follows_mode(source, p) or not _is_rate(source, owner, p):
        return None
    message = None
    value = source.substitute(p)
    if isinstance(value, ast.Attribute) and value.attr == "p" and self_attribute(value.value) is not None:
        message = f"self.{self_attribute(value.value)}.p is the same under model.eval()"
    return Violation(call, message, _fix(source, call, _gated(source, call, p)))


def _multi_head(source: SourceFile, call: ast.Call) -> Violation | None:
    p = argument(call, MULTI_HEAD_P, "dropout_p")
    flag = argument(call, MULTI_HEAD_TRAINING, "training")
    if p is None or _is_zero(p) or follows_mode(source, p) or (flag is None and unpacks(call)):
        return None
    if flag is None:
        return Violation(
            call, fix=_fix(source, call, add_argument(source, call, f"training={source.self_name(call)}.training"))
        )
    if isinstance(flag, ast.Constant) and flag.value is True:
        return Violation(call, fix=_fix(source, call, replace(source, flag, f"{source.self_name(call)}.training")))
    return None


def _excused(source: SourceFile, call: ast.Call) -> bool:
    function = source.function(call)
    twin = function is not None and serves_one_mode(function.method.name)
    return twin or under_mode(source, call) or called_under_mode(source, call)


def _is_rate(source: SourceFile, owner: ClassDefinition, p: ast.expr, depth: int = 0) -> bool:
    """Whether `p` is a rate that somebody set once: a number, an attribute of self or of a configuration."""
    match p:
        case ast.Constant(value=value):
            return isinstance(value, (int, float)) and value != 0
        case ast.IfExp():
            branches = alternatives(source, p)
            return any(_is_rate(source, owner, one, depth) for one in branches if one is not None)
        case ast.BoolOp(values=values):
            return any(_is_rate(source, owner, one, depth) for one in values)
        case ast.Call(func=ast.Name(id="float"), args=[inner]):
            return _is_rate(source, owner, inner, depth)
        case ast.Name():
            bindings = source.bindings(p)
            values = [one.value if not one.derived else None for one in bindings[:MOST]]
            return (
                depth < 2
                and len(bindings) <= MOST
                and None not in values
                and any(_is_rate(source, owner, one, depth + 1) for one in values if one is not None)
            )
        case ast.Attribute():
            return _is_own(source, owner, p)
        case _:
            return False


def _is_own(source: SourceFile, owner: ClassDefinition, p: ast.Attribute) -> bool:
    root: ast.expr = p
    while isinstance(root, ast.Attribute):
        if self_attribute(root) is not None:
            return _stays(source, owner, root.attr, whole=root is p)
        root = root.value
    return isinstance(root, ast.Name) and root.id in _CONFIGURATIONS


@once
def _stays(source: SourceFile, owner: ClassDefinition, attribute: str, whole: bool) -> bool:
    """Whether `self.attribute` is set once, is not always zero, and no property or method answers for it."""
    if owner.method(attribute) is not None or is_flag(attribute):
        return False
    writes = owner.all_writes(attribute)
    if any(write.function is not None and write.function.name in ("train", "eval") for write in writes):
        return False
    values = [write.value for write in writes if write.value is not None]
    if any("training" in flags(value) for value in values):
        return False
    if not whole:
        return True
    made = any(source.called(value) in DROPOUT_MODULES for value in values)
    return not made and not (values and all(_is_zero(value) for value in values))


def _comes_from_elsewhere(source: SourceFile, call: ast.Call) -> bool:
    """Whether the function is a copy or a wrapper under the known name: imported, or not bound in this file at all."""
    unbound = isinstance(call.func, ast.Name) and not source.bindings(call.func)
    return unbound or "." in (source.called(call) or "")


@once
def _gates_itself(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    """Whether a method of that name in this file asks for the mode."""
    method = owner.method(name)
    reads = source.attributes.get("training", []) if method is not None else []
    return any((function := source.function(one)) is not None and function.method is method for one in reads)


def _is_zero(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and not value.value


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
    return (
        TraceViolation(site, severity=severity(site)) for site in active_in_eval(trace) if site.form is Form.ATTENTION
    )


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
