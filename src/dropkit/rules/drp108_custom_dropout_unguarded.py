"""Dropout written by hand that never asks for the mode.

Random zeros are multiplied into the values on every call, so predictions of the model in evaluation change from call to
call and are worse than the model is; nothing warns. A mask drawn with `torch.bernoulli` or `torch.rand` does not see
`model.eval()`, as `nn.Dropout` does: return the input as it is unless `self.training`.

Seen in methods of Modules where neither they nor the methods that call them read a flag of the mode. In samplers,
noise, gates and augmentation that are named so it is information only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePath

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, origins, readers
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.lint.semantic.training_flag import is_flag, mentions_mode, under_mode
from dropkit.rules.rule import (
    Default,
    Example,
    Rule,
    TraceViolation,
    Violation,
    active_in_eval,
    ignores_its_flag,
    severity_in_eval,
    unless_intended,
)
from dropkit.trace import Form, Trace

_DRAWS = ("bernoulli", "bernoulli_", "rand", "rand_like", "uniform_", "sample")
_UNIFORM = ("torch.rand", "torch.rand_like")
_BERNOULLI = ("torch.distributions.Bernoulli", "torch.distributions.bernoulli.Bernoulli")
# So far around a mask, and so many names of a product, are looked at.
_FARTHEST = 200
_DROPS = re.compile(r"drop|keep|zone_?out", re.IGNORECASE)
# Whoever is named so draws because drawing is the point.
_SAMPLERS = Vocabulary(
    r"vae|sampl(?:e|er|ers|ing)|gumbel|diffusion|noise|noisy|policy|actor|agent|rbm|boltzmann|augment\w*|spec ?aug\w*"
    r"|concrete|gate|gated|gating|router|routing|binar\w*|quanti[sz]\w*|spik\w*|poisson|masked ?lm?|pretrain\w*"
    r"|corrupt\w*|perturb\w*|generat\w*|explor\w*|denois\w*|ensembl\w*"
)
# Names that scale a mask; any other that it is multiplied with holds values.
_SCALE = Vocabulary(
    r"prob\w*|\w*rates?|keep\w*|scal(?:e|ed|ing)|gamma|\w*drop\w*|p|q|eps|numel|math|np|numpy|torch|len|float"
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in _DRAWS:
        for call in source.calls.get(name, []):
            function = source.function(call)
            if function is None or function.method.owner is None or not function.method.owner.is_module:
                continue
            if not _is_drop(source, call, function.method) or not _falls_on_values(source, call):
                continue
            if not _asks(source, call, function.method, function.method.owner):
                hit = Violation(call)
                yield from unless_intended(
                    source, hit.as_information() if _is_sampler(source, function.method) else hit
                )


def _is_drop(source: SourceFile, call: ast.Call, method: FunctionDefinition) -> bool:
    """Whether `call` draws coins, and names around it say that they are for dropping."""
    assert method.owner is not None
    if not _is_coin(source, call):
        return False
    said = f"{method.owner.name} {method.name} {source.text.of(source.statement(call))}"
    return _DROPS.search(said) is not None


def _is_sampler(source: SourceFile, method: FunctionDefinition) -> bool:
    """Whether the file, the class or the method says that it draws because drawing is the point."""
    assert method.owner is not None
    return any(_SAMPLERS.has(name) for name in (PurePath(source.path).stem, method.owner.name, method.name))


def _is_coin(source: SourceFile, call: ast.Call) -> bool:
    name, callee = source.called(call), call.func
    if name == "torch.bernoulli" or name in _UNIFORM:
        return name == "torch.bernoulli" or _is_cut(source, call)
    if not isinstance(callee, ast.Attribute) or name is not None:
        return False
    if callee.attr == "sample":
        return any(one and source.called(one) in _BERNOULLI for one in origins(source, callee.value) or ())
    return callee.attr in ("bernoulli", "bernoulli_") or (callee.attr == "uniform_" and _is_cut(source, call))


def _is_cut(source: SourceFile, draw: ast.expr) -> bool:
    """Whether uniform numbers are made zeros and ones: compared with a rate, or rounded down."""
    pending: list[ast.expr] = [draw]
    for one in pending:
        end = _end(source, one, lambda _, above: True if _cuts(above) is not None else None)
        if end is not None and _cuts(end):
            return True
        if isinstance(end, ast.Assign):
            names = [target.id for target in end.targets if isinstance(target, ast.Name)]
            pending += [read for name in names for read in readers(source, end, name) if read not in pending]
        if len(pending) > MOST:
            return False
    return False


def _cuts(node: ast.AST) -> bool | None:
    """Whether `node` makes few values of many; None where what stands around it may."""
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
    return (isinstance(node, ast.Call) and _last(node) in ("floor", "floor_", "lt", "gt", "le", "ge")) or None


def _end(source: SourceFile, node: ast.AST, ends: Callable[[ast.AST, ast.AST], bool | None]) -> ast.AST | None:
    """The first node around `node` for which `ends(node below, node)`, or its statement; None if that is far off."""
    below = node
    for above in islice(source.parents(node), _FARTHEST):
        if ends(below, above) or isinstance(above, ast.stmt):
            return above
        below = above
    return None


def _falls_on_values(source: SourceFile, mask: ast.expr) -> bool:
    """Whether `mask`, or what is made of it, is multiplied with something or fills it with zero."""
    seen: set[str] = set()
    pending: list[ast.expr] = [mask]
    for one in pending:
        met = _end(source, one, lambda below, above: _applies(below, above, seen))
        if not isinstance(met, (ast.Assign, ast.AugAssign)):
            if met is not None and not isinstance(met, ast.stmt):
                return True
        elif isinstance(met, ast.AugAssign):
            if isinstance(met.op, ast.Mult):
                return True
        else:
            for target in met.targets:
                if isinstance(target, ast.Name) and target.id not in seen:
                    seen.add(target.id)
                    pending += readers(source, met, target.id)
        if len(pending) > MOST:
            return False
    return False


def _applies(below: ast.AST, above: ast.AST, seen: set[str]) -> bool:
    """Whether `above` multiplies something with the mask `below`, or fills it with zero where the mask says so."""
    if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Mult):
        return _holds_values(above.right if below is above.left else above.left, seen)
    return isinstance(above, ast.Call) and _multiplies(above, below, seen)


def _multiplies(call: ast.Call, mask: ast.AST, seen: set[str]) -> bool:
    """Whether `call` is `torch.mul(x, mask)`, `x.masked_fill(mask, 0)` or `torch.where(mask, x, 0)`."""
    last = _last(call)
    if last in ("mul", "mul_", "multiply"):
        others = [one for one in call.args if one is not mask]
        if mask is not call.func and isinstance(call.func, ast.Attribute):
            others.append(call.func.value)
        return any(_holds_values(one, seen) for one in others)
    if last in ("masked_fill", "masked_fill_") and len(call.args) == 2 and mask is call.args[0]:
        return _is_zero(call.args[1])
    if last == "where" and len(call.args) == 3 and mask is call.args[0]:
        return _is_zero(call.args[1]) or _is_zero(call.args[2])
    return False


def _is_zero(expression: ast.expr) -> bool:
    if isinstance(expression, ast.Call):
        return _last(expression) in ("zeros_like", "zeros")
    return isinstance(expression, ast.Constant) and expression.value == 0


def _holds_values(expression: ast.expr, seen: set[str]) -> bool:
    """Whether a name in `expression` is neither the mask's nor that of a rate."""
    return any(
        one.id not in seen and one.id != "self" and not _SCALE.has(one.id)
        if isinstance(one, ast.Name)
        else isinstance(one, ast.Attribute) and one.attr in ("weight", "data")
        for one in islice(ast.walk(expression), _FARTHEST)
    )


def _asks(source: SourceFile, call: ast.Call, method: FunctionDefinition, owner: ClassDefinition) -> bool:
    """Whether the method, one that calls it, or whoever holds an object of the class asks for the mode."""
    return under_mode(source, call) or _callers_ask(source, owner, method)


@cached_per_file
def _callers_ask(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    family = [*owner.mro, *owner.subclasses]
    asked = {method: None, **{one.methods[method.name]: None for one in family if method.name in one.methods}}
    pending = list(asked)
    for one in pending:
        # With so many callers it is not known.
        if _reads_mode(source, one) or len(pending) > MOST:
            return True
        for caller in _callers(source, owner, one.name):
            if caller not in asked:
                asked[caller] = None
                pending.append(caller)
    return any(_holder_asks(source, one) for one in family)


@cached_per_file
def _callers(source: SourceFile, owner: ClassDefinition, name: str) -> list[FunctionDefinition]:
    """The methods of a class and its relatives that call `self.name`, and those that stand for them in relatives."""
    family = [*owner.mro, *owner.subclasses]
    found: dict[FunctionDefinition, None] = {}
    for one in family:
        for call in one.own_calls.get(name, []):
            caller = source.function(call)
            if caller is not None:
                found[caller.method] = None
    for caller in list(found):
        found.update({one.methods[caller.name]: None for one in family if caller.name in one.methods})
    return list(found)


@cached_per_file
def _reads_mode(source: SourceFile, function: FunctionDefinition) -> bool:
    if any(is_flag(parameter.arg) for parameter in function.parameters) or function in _readers_of_mode(source):
        return True
    tests = (one.test for one in ast.walk(function.node) if isinstance(one, (ast.If, ast.IfExp, ast.While)))
    return any(mentions_mode(source, test) for test in tests)


@cached_per_file
def _readers_of_mode(source: SourceFile) -> set[FunctionDefinition]:
    """The methods that name `training` of anything."""
    nodes = source.attributes.get("training", [])
    return {function.method for node in nodes if (function := source.function(node)) is not None}


@cached_per_file
def _holder_asks(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether `self.drop`, set to an object of `owner`, is called under a condition on the mode."""
    for built in source.calls.get(owner.name, []):
        statement = source.statement(built)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        names = [target.attr for target in targets if isinstance(target, ast.Attribute)]
        if any(_is_called_under_mode(source, name) for name in names):
            return True
    return False


@cached_per_file
def _is_called_under_mode(source: SourceFile, name: str) -> bool:
    return any(under_mode(source, call) for call in source.calls.get(name, []))


def _last(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in active_in_eval(trace):
        if site.form is Form.MASK or (site.form is Form.REGISTERED and ignores_its_flag(site, by_hand=True)):
            yield TraceViolation(site, severity=severity_in_eval(site))


RULE = Rule(
    code="DRP108",
    name="custom-dropout-unguarded",
    message="hand-written dropout does not follow model.eval()",
    severity=Severity.WARNING,
    default=Default.PREVIEW,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class RowDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        keep = torch.rand(x.shape[0], 1) >= self.p  # DRP108
        return x * keep / (1 - self.p)


RowDropout(0.5).eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class RowDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        keep = torch.rand(x.shape[0], 1) >= self.p
        return x * keep / (1 - self.p)


RowDropout(0.5).eval()(torch.randn(4, 8))
""",
        ),
    ),
)
