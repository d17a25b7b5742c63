"""Hand-written dropout that does not follow the mode.

Predictions in evaluation differ from call to call and are worse than the model is, without a warning. A mask drawn with
`torch.bernoulli` or `torch.rand` does not see `model.eval()`, as `nn.Dropout` does. Return the input unchanged unless
`self.training`.

Reported in methods of Modules where neither they nor the methods that call them read a flag of the mode. Samplers,
noise, gates and augmentation are recognised by their names, and reported with severity info.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePath

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, origins, readers
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_names import mentions_mask
from dropkit.lint.semantic.expressions import literal
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
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

_RANDOM = ("bernoulli", "bernoulli_", "rand", "rand_like", "uniform_", "sample")
_UNIFORM = ("torch.rand", "torch.rand_like")
_BERNOULLI = ("torch.distributions.Bernoulli", "torch.distributions.bernoulli.Bernoulli")
# Nodes around a mask, and in a factor, that are looked at.
_FARTHEST = 200
# Classes, methods and files of these names are random by design.
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
    for name in _RANDOM:
        for call in source.calls.get(name, []):
            function = source.function(call)
            if function is None or function.method.owner is None or not function.method.owner.is_module:
                continue
            if not _is_drop(source, call, function.method) or not _is_applied(source, call):
                continue
            if not _asks(source, call, function.method, function.method.owner):
                violation = Violation(call)
                is_sampler = _is_sampler(source, function.method)
                yield from unless_intended(source, violation.as_information() if is_sampler else violation)


def _is_drop(source: SourceFile, call: ast.Call, method: FunctionDefinition) -> bool:
    """Whether `call` draws a mask, and names around it say that the mask is for dropping."""
    assert method.owner is not None
    text = f"{method.owner.name} {method.name} {source.text.of(source.statement(call))}"
    return _is_mask(source, call) and mentions_mask(text)


def _is_sampler(source: SourceFile, method: FunctionDefinition) -> bool:
    """Whether the name of the file, the class or the method says that it is random by design."""
    assert method.owner is not None
    return any(_SAMPLERS.has(name) for name in (PurePath(source.path).stem, method.owner.name, method.name))


def _is_mask(source: SourceFile, call: ast.Call) -> bool:
    name, callee = source.called(call), call.func
    if name == "torch.bernoulli" or name in _UNIFORM:
        return name == "torch.bernoulli" or _is_cut(source, call)
    if not isinstance(callee, ast.Attribute) or name is not None:
        return False
    if callee.attr == "sample":
        return any(origin and source.called(origin) in _BERNOULLI for origin in origins(source, callee.value))
    return callee.attr in ("bernoulli", "bernoulli_") or (callee.attr == "uniform_" and _is_cut(source, call))


def _is_cut(source: SourceFile, draw: ast.expr) -> bool:
    """Whether uniform numbers become zeros and ones: compared with a rate, or rounded down."""
    pending: list[ast.expr] = [draw]
    for value in pending:
        end = _end(source, value, lambda _, parent: True if _cuts(source, parent) is not None else None)
        if end is not None and _cuts(source, end):
            return True
        if isinstance(end, ast.Assign):
            names = [target.id for target in end.targets if isinstance(target, ast.Name)]
            pending += [read for name in names for read in readers(source, end, name) if read not in pending]
        if len(pending) > MOST:
            return False
    return False


def _cuts(source: SourceFile, node: ast.AST) -> bool | None:
    """Whether `node` compares or rounds; None if a node around it may."""
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
    return source.is_call_of(node, "floor", "floor_", "lt", "gt", "le", "ge") or None


def _end(source: SourceFile, node: ast.AST, ends: Callable[[ast.AST, ast.AST], bool | None]) -> ast.AST | None:
    """The first node around `node` for which `ends(child, parent)`, or its statement; None if that is far off."""
    child = node
    for parent in islice(source.parents(node), _FARTHEST):
        if ends(child, parent) or isinstance(parent, ast.stmt):
            return parent
        child = parent
    return None


def _is_applied(source: SourceFile, mask: ast.expr) -> bool:
    """Whether `mask`, or a value made from it, multiplies values or fills them with zero."""
    seen: set[str] = set()
    pending: list[ast.expr] = [mask]
    for value in pending:
        end = _end(source, value, lambda child, parent: _applies(source, child, parent, seen))
        if not isinstance(end, (ast.Assign, ast.AugAssign)):
            if end is not None and not isinstance(end, ast.stmt):
                return True
        elif isinstance(end, ast.AugAssign):
            if isinstance(end.op, ast.Mult):
                return True
        else:
            for target in end.targets:
                if isinstance(target, ast.Name) and target.id not in seen:
                    seen.add(target.id)
                    pending += readers(source, end, target.id)
        if len(pending) > MOST:
            return False
    return False


def _applies(source: SourceFile, mask: ast.AST, parent: ast.AST, seen: set[str]) -> bool:
    """Whether `parent` multiplies values with `mask`, or fills them with zero by it."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult):
        return _has_values(parent.right if mask is parent.left else parent.left, seen)
    return isinstance(parent, ast.Call) and _multiplies(source, parent, mask, seen)


def _multiplies(source: SourceFile, call: ast.Call, mask: ast.AST, seen: set[str]) -> bool:
    """Whether `call` is `torch.mul(x, mask)`, `x.masked_fill(mask, 0)` or `torch.where(mask, x, 0)`."""
    last = source.last_name(call)
    if last in ("mul", "mul_", "multiply"):
        others = [argument for argument in call.args if argument is not mask]
        if mask is not call.func and isinstance(call.func, ast.Attribute):
            others.append(call.func.value)
        return any(_has_values(factor, seen) for factor in others)
    if last in ("masked_fill", "masked_fill_") and len(call.args) == 2 and mask is call.args[0]:
        return _is_zero(source, call.args[1])
    if last == "where" and len(call.args) == 3 and mask is call.args[0]:
        return _is_zero(source, call.args[1]) or _is_zero(source, call.args[2])
    return False


def _is_zero(source: SourceFile, expression: ast.expr) -> bool:
    return literal(expression) == 0 or source.is_call_of(expression, "zeros_like", "zeros")


def _has_values(expression: ast.expr, seen: set[str]) -> bool:
    """Whether `expression` has a name other than those of the mask and of rates."""
    return any(
        node.id not in seen and node.id != "self" and not _SCALE.has(node.id)
        if isinstance(node, ast.Name)
        else isinstance(node, ast.Attribute) and node.attr in ("weight", "data")
        for node in islice(ast.walk(expression), _FARTHEST)
    )


def _asks(source: SourceFile, call: ast.Call, method: FunctionDefinition, owner: ClassDefinition) -> bool:
    """Whether the method, one that calls it, or an owner of an object of the class asks for the mode."""
    return under_mode(source, call) or _callers_ask(source, owner, method)


@cached_per_file
def _callers_ask(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    family = [*owner.mro, *owner.subclasses]
    seen = {method: None, **{cls.methods[method.name]: None for cls in family if method.name in cls.methods}}
    pending = list(seen)
    for function in pending:
        # With so many callers the answer is unknown.
        if _reads_mode(source, function) or len(pending) > MOST:
            return True
        for caller in _callers(source, owner, function.name):
            if caller not in seen:
                seen[caller] = None
                pending.append(caller)
    return any(_holder_asks(source, cls) for cls in family)


@cached_per_file
def _callers(source: SourceFile, owner: ClassDefinition, name: str) -> list[FunctionDefinition]:
    """The methods of a class and its relatives that call `self.name`, and their overrides in relatives."""
    family = [*owner.mro, *owner.subclasses]
    callers: dict[FunctionDefinition, None] = {}
    for cls in family:
        for call in cls.own_calls.get(name, []):
            caller = source.function(call)
            if caller is not None:
                callers[caller.method] = None
    for caller in list(callers):
        callers.update({cls.methods[caller.name]: None for cls in family if caller.name in cls.methods})
    return list(callers)


@cached_per_file
def _reads_mode(source: SourceFile, function: FunctionDefinition) -> bool:
    if any(is_flag(parameter.arg) for parameter in function.parameters) or function in _readers_of_mode(source):
        return True
    tests = (node.test for node in ast.walk(function.node) if isinstance(node, (ast.If, ast.IfExp, ast.While)))
    return any(mentions_mode(source, test) for test in tests)


@cached_per_file
def _readers_of_mode(source: SourceFile) -> set[FunctionDefinition]:
    """The methods that read `training` of any object."""
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
