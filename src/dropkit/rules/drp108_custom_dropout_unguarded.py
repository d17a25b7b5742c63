"""Hand-written dropout that does not follow the mode.

Predictions in evaluation differ from call to call and are worse than the model is, without a warning. A mask drawn with
`torch.bernoulli` or `torch.rand` does not see `model.eval()`, as `nn.Dropout` does. Return the input unchanged unless
`self.training`.

Reported in methods of Modules where neither they nor the methods that call them read a flag of the mode, and in
functions that only such methods call. Samplers, noise, gates and augmentation are recognised by their names, and
reported with severity info.
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
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import (
    is_flag,
    mentions_mode,
    readers_of_training,
    runs_in_both_modes,
    under_mode,
)
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation, unless_intended, violations_in_eval
from dropkit.trace import Form, Trace

_RANDOM = (
    "bernoulli", "bernoulli_", "rand", "rand_like", "uniform_", "uniform", "random", "binomial", "sample",
)  # fmt: skip
_UNIFORM = ("torch.rand", "torch.rand_like", "numpy.random.rand", "numpy.random.random", "numpy.random.uniform")
_MASKS = ("torch.bernoulli", "numpy.random.binomial")
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


# The factor by which dropout scales what it keeps.
_RESCALES = pattern(r"/\s*\(?\s*1(?:\.0?)?\s*-|\bdiv_?\(\s*\(?\s*1(?:\.0?)?\s*-|/\s*(?:self\.)?\w*keep\w*")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in _RANDOM:
        for call in source.calls.get(name, []):
            function, owner = source.function(call), source.owner(call)
            if function is None or not _is_mask(source, call):
                continue
            if owner is None or owner.is_module:
                yield from _judge(source, call, function.method, owner)


def _judge(
    source: SourceFile, call: ast.Call, method: FunctionDefinition, owner: ClassDefinition | None
) -> Iterator[Violation]:
    """Report a mask that is for dropping, by names or the factor 1/(1-p), where nobody asks for the mode."""
    names = f"{owner.name if owner is not None else ''} {method.name}"
    text = f"{names} {source.text.of(source.statement(call))}"
    if not (mentions_mask(text) or _RESCALES.search(source.text.of(method.node))) or not _is_applied(source, call):
        return
    if owner is None:
        if not runs_in_both_modes(source, method.name) or _reads_mode(source, method):
            return
        violation = Violation(call, "a function has no mode: pass training to it")
        yield from unless_intended(source, violation.as_information() if _SAMPLERS.has(method.name) else violation)
    elif not under_mode(source, call) and not _callers_ask(source, owner, method):
        is_sampler = any(_SAMPLERS.has(name) for name in (PurePath(source.path).stem, owner.name, method.name))
        violation = Violation(call)
        yield from unless_intended(source, violation.as_information() if is_sampler else violation)


def _is_mask(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call draws zeros and ones."""
    name, callee = source.called(call), call.func
    if name is not None or not isinstance(callee, ast.Attribute):
        return name in _MASKS or (name in _UNIFORM and _is_cut(source, call))
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
        is_inside = end is not None and not isinstance(end, ast.stmt)
        if is_inside or (isinstance(end, ast.AugAssign) and isinstance(end.op, ast.Mult)):
            return True
        if isinstance(end, ast.Assign):
            new = {target.id: None for target in end.targets if isinstance(target, ast.Name) and target.id not in seen}
            pending += [read for name in new for read in readers(source, end, name)]
            seen.update(new)
        if len(pending) > MOST:
            return False
    return False


def _applies(source: SourceFile, mask: ast.AST, parent: ast.AST, seen: set[str]) -> bool:
    """Whether `parent` multiplies values with `mask`, or fills them with zero by it."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult):
        return _has_values(parent.right if mask is parent.left else parent.left, seen)
    if isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store) and parent.slice is mask:
        statement = source.statement(parent)  # x[mask] = 0
        return isinstance(statement, ast.Assign) and literal(statement.value) == 0
    return isinstance(parent, ast.Call) and _multiplies(source, parent, mask, seen)


def _multiplies(source: SourceFile, call: ast.Call, mask: ast.AST, seen: set[str]) -> bool:
    """Whether `call` is `torch.mul(x, mask)`, `x.masked_fill(mask, 0)` or `torch.where(mask, x, 0)`."""
    match source.last_name(call), call.args:
        case "mul" | "mul_" | "multiply", arguments:
            receiver = [call.func.value] if isinstance(call.func, ast.Attribute) and call.func is not mask else []
            factors = [*arguments, *receiver]
            return any(_has_values(factor, seen) for factor in factors if factor is not mask)
        case "masked_fill" | "masked_fill_", [condition, value]:
            return mask is condition and _is_zero(source, value)
        case "where", [condition, value, other]:
            return mask is condition and (_is_zero(source, value) or _is_zero(source, other))
        case _:
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


@cached_per_file
def _callers_ask(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether the method, one that calls it, or an owner of an object of the class asks for the mode."""
    family = [*owner.mro, *owner.subclasses]
    pending = list(dict.fromkeys([method, *_overrides(family, method.name)]))
    seen = set(pending)
    for function in pending:
        # With so many callers the answer is unknown.
        if _reads_mode(source, function) or len(pending) > MOST:
            return True
        new = [caller for caller in _callers(source, owner, function.name) if caller not in seen]
        pending += new
        seen.update(new)
    return any(_holder_asks(source, cls) for cls in family)


@cached_per_file
def _callers(source: SourceFile, owner: ClassDefinition, name: str) -> list[FunctionDefinition]:
    """The methods of a class and its relatives that call `self.name`, and their overrides in relatives."""
    family = [*owner.mro, *owner.subclasses]
    functions = [source.function(call) for cls in family for call in cls.own_calls.get(name, [])]
    callers = dict.fromkeys(function.method for function in functions if function is not None)
    return list(
        dict.fromkeys([*callers, *(method for caller in callers for method in _overrides(family, caller.name))])
    )


def _overrides(family: list[ClassDefinition], name: str) -> list[FunctionDefinition]:
    return [cls.methods[name] for cls in family if name in cls.methods]


@cached_per_file
def _reads_mode(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a method has a flag of the mode, reads `training` of any object, or has a condition on the mode."""
    if any(is_flag(parameter.arg) for parameter in function.parameters) or function in readers_of_training(source):
        return True
    tests = (node.test for node in ast.walk(function.node) if isinstance(node, (ast.If, ast.IfExp, ast.While)))
    return any(mentions_mode(source, test) for test in tests)


@cached_per_file
def _holder_asks(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether `self.drop`, set to an object of `owner`, is called under a condition on the mode."""
    statements = [source.statement(call) for call in source.calls.get(owner.name, [])]
    targets = [target for each in statements if isinstance(each, ast.Assign) for target in each.targets]
    return any(_is_called_under_mode(source, target.attr) for target in targets if isinstance(target, ast.Attribute))


@cached_per_file
def _is_called_under_mode(source: SourceFile, name: str) -> bool:
    return any(under_mode(source, call) for call in source.calls.get(name, []))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return violations_in_eval(trace, Form.MASK)


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
