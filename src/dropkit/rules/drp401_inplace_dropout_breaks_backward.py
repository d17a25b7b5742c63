"""In-place dropout on a tensor that is still needed.

`loss.backward()` fails with "one of the variables needed for gradient computation has been modified by an inplace
operation": softmax, sigmoid, tanh, relu, exp and sqrt keep their output for the backward pass, and dropout has
overwritten it, itself or through a view. As long as p is 0 nothing happens, so the fault sleeps until somebody turns
dropout on. Where the tensor is read again, as in `x + dropout(x)`, nothing fails: the skip connection is silently
dropped too. Leave `inplace=True` out; it saves next to nothing.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_MODULES, FUNCTIONALS, NEEDS_ITS_OUTPUT
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.data_flow import (
    MOST,
    Operation,
    beyond,
    last_layer,
    layers,
    operation,
    origins,
    reaching,
    reads_after,
)
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.edits import drop_argument
from dropkit.lint.semantic.expressions import argument
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_TITLE = "Leave inplace=True out"
# AlphaDropout makes a new tensor before it writes.
_IN_PLACE = DROPOUT_MODULES - {"torch.nn.AlphaDropout", "torch.nn.FeatureAlphaDropout"}
# What keeps its output for backward; `.` stands for a method of the tensor. Measured with torch 2.13.
_KEEP = frozenset(
    [f"torch.nn.{name}" for name in ("ReLU", "Sigmoid", "Tanh", "Softmax", "Softmax2d", "LogSoftmax", "Softmin")]
    + [
        prefix + name
        for prefix in ("torch.", "torch.nn.functional.", ".")
        for name in ("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "softmax", "log_softmax", "softmin",
                     "gumbel_softmax", "exp", "exp_", "sqrt", "sqrt_", "rsqrt", "rsqrt_", "special.expit")
    ]
)  # fmt: skip
# These keep their input, but have only their output if they work in place themselves: where `inplace` stands.
_KEEP_IN_PLACE = {
    "torch.nn.LeakyReLU": 1, "torch.nn.ELU": 1, "torch.nn.CELU": 1, "torch.nn.SELU": 0,
    "torch.nn.functional.leaky_relu": 2, "torch.nn.functional.elu": 2, "torch.nn.functional.celu": 2,
    "torch.nn.functional.selu": 1, "torch.nn.RReLU": 2, "torch.nn.functional.rrelu": 4,
}  # fmt: skip
# What returns its input or a view of it; those of the second line copy if one of the third came before.
_VIEWS = frozenset(
    {"view", "squeeze", "unsqueeze", "type_as", "to", "float", "Identity", "Unflatten", "view_as", "expand", "narrow"}
    | {"reshape", "flatten", "contiguous", "Flatten"}
    | {"transpose", "permute", "t", "swapaxes", "movedim"}
)
_COPY = frozenset({"reshape", "flatten", "contiguous", "Flatten"})
_TURN = frozenset({"transpose", "permute", "t", "swapaxes", "movedim", "expand", "narrow"})
_HALVES = frozenset({"half", "float16", "bfloat16"})
# Attributes and methods that read no values.
_SHAPES = frozenset({"shape", "size", "dtype", "device", "ndim", "dim", "type", "is_cuda", "requires_grad", "numel"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name, calls in source.calls.items():
        if "drop" in name.lower():
            for call in calls:
                yield from _in_a_row(source, call)
    for call, dropouts in _applications(source):
        made_by = _breaks(source, _input(call))
        # Where the result is thrown away, what is done in place is all that is done.
        fix = _fix(source, dropouts) if not _is_discarded(source, call) else None
        if made_by is not None:
            yield Violation(call, f"in-place dropout overwrites what {made_by} keeps for backward", fix)
        elif not _alone(source, call) and _read_again(source, call):
            message = "in-place dropout also drops the tensor that is read again"
            fix = dataclasses.replace(fix, changes_training=True) if fix is not None else None
            yield Violation(call, message, fix, Severity.WARNING)


def _is_discarded(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of this call, or of another of the same layer, is thrown away."""
    if isinstance(source.parent(call), ast.Expr):
        return True
    callee = call.func
    name = callee.attr if isinstance(callee, ast.Attribute) else getattr(callee, "id", "")
    return source.called(call) is None and _is_ever_discarded(source, name)


@cached_per_file
def _is_ever_discarded(source: SourceFile, name: str) -> bool:
    return any(isinstance(source.parent(call), ast.Expr) for call in source.calls.get(name, []))


def _alone(source: SourceFile, call: ast.Call) -> bool:
    """Whether the call is in a lambda: what stands beside that runs at another time."""
    function = source.function(call)
    return function is not None and isinstance(function.node, ast.Lambda)


def _in_a_row(source: SourceFile, call: ast.Call) -> Iterator[Violation]:
    """A dropout layer right behind one that keeps its output, in a Sequential or a list of layers."""
    if source.called(call) not in _IN_PLACE or not _drops_in_place(source, call):
        return
    before = beyond(source, call, -1, _is_view)
    name = source.called(before) if before is not None else None
    if before is not None and name is not None and _keeps(name, (before,)):
        message = f"in-place dropout overwrites what {_last(name)} keeps for backward"
        yield Violation(call, message, _fix(source, (call,)))


def _applications(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...]]]:
    """Calls that drop in place, with the calls that say so: themselves, or those that made the layer."""
    held = {name for one in source.classes for name in one.writes}
    for name, calls in source.calls.items():
        if "drop" not in name.lower() and name not in held:
            continue
        for call in calls:
            function = FUNCTIONALS.get(source.called(call) or "")
            if function is not None:
                if function.inplace is not None and "alpha" not in name and _drops_in_place(source, call):
                    yield call, (call,)
            elif source.called(call) is None and call.args:
                first = [last_layer(source, one, 1) for one in layers(source, call.func)]
                made = tuple(one for one in first if one is not None and source.called(one) in _IN_PLACE)
                if made and all(_drops_in_place(source, one) for one in made):
                    yield call, made


def _drops_in_place(source: SourceFile, call: ast.Call) -> bool:
    """Whether a dropout, or the making of one, says inplace=True and may drop."""
    function = FUNCTIONALS.get(source.called(call) or "")
    first = 1 if function is not None else 0
    p = argument(call, first, "p")
    training = argument(call, function.training, "training") if function is not None else None
    in_place = argument(call, function.inplace if function is not None else 1, "inplace")
    never = (isinstance(p, ast.Constant) and not p.value) or (isinstance(training, ast.Constant) and not training.value)
    return isinstance(in_place, ast.Constant) and in_place.value is True and not never


def _is_view(name: str | None) -> bool:
    return _last(name) in _VIEWS


def _breaks(source: SourceFile, expression: ast.expr | None) -> str | None:
    """The name of the operation that made `expression` and keeps it for backward."""
    seen: set[ast.expr] = set()
    pending: list[tuple[ast.expr, tuple[str, ...]]] = [(expression, ())] if expression is not None else []
    while pending and len(seen) <= MOST:
        one, turned = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        inner: list[tuple[ast.expr, tuple[str, ...]]] = []
        for origin in origins(source, one):
            applied = operation(source, origin) if origin is not None else None
            if isinstance(origin, ast.Subscript) and _slices(origin):
                inner.append((origin.value, (*turned, "narrow")))
            if applied is None:
                continue
            last = _last(applied.name)
            if _keeps(applied.name, applied.layers or (applied.call,)):
                # A view of turned axes is copied to be made contiguous: then backward has its own.
                copied = any(name in _TURN and set(turned[:index]) & _COPY for index, name in enumerate(turned))
                return None if copied else last
            if last in _VIEWS and applied.input is not None and not _halves(applied):
                inner.append((applied.input, (*turned, last)))
        pending += reversed(inner)
    return None


def _keeps(name: str, calls: tuple[ast.Call, ...]) -> bool:
    if name in _KEEP:
        return True
    place = _KEEP_IN_PLACE.get(name)
    given = [argument(call, place, "inplace") for call in calls] if place is not None else []
    return bool(given) and all(isinstance(one, ast.Constant) and one.value is True for one in given)


def _read_again(source: SourceFile, call: ast.Call) -> bool:
    """Whether the values that `call` overwrites, or another name of them, are read after it."""
    given, above, statement = _input(call), source.parent(call), source.statement(call)
    if not isinstance(given, ast.Name) or isinstance(statement, ast.Expr):
        return False
    if isinstance(above, ast.BinOp):
        other = above.right if above.left is call else above.left
        if isinstance(other, ast.Name) and other.id == given.id:
            return True
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    bound = any(isinstance(one, ast.Name) and one.id in (given.id, "_") for one in targets)
    names = [*_aliases(source, given), *([] if bound else [given.id])]
    return any(_takes_values(source, one) for name in names for one in reads_after(source, name, call)[:MOST])


def _aliases(source: SourceFile, given: ast.Name) -> Iterator[str]:
    """Other names of the same tensor: `skip = x` after the last statement that bound `x`, or `x = skip` itself."""
    function = source.function(given)
    sources = reaching(source, given)
    others = _other_names(source, function).get(given.id, []) if function is not None else []
    # More names than these for one tensor are not looked at.
    for name, value in others[:MOST]:
        if reaching(source, value) == sources:
            yield name
    if len(sources) == 1 and isinstance(sources[0].value, ast.Name) and not sources[0].derived:
        yield sources[0].value.id


@cached_per_file
def _other_names(_: SourceFile, function: FunctionDefinition) -> dict[str, list[tuple[str, ast.Name]]]:
    """By name, the local names that are set to it, once and for all, and where."""
    found: dict[str, list[tuple[str, ast.Name]]] = {}
    for name, bindings in function.names.items():
        value = bindings[0].value if len(bindings) == 1 and not bindings[0].derived else None
        if isinstance(value, ast.Name):
            found.setdefault(value.id, []).append((name, value))
    return found


def _takes_values(source: SourceFile, name: ast.Name) -> bool:
    """Whether a read of a tensor is of its values, not of its shape or kind."""
    above = source.parent(name)
    if isinstance(above, ast.Attribute):
        return above.attr not in _SHAPES
    if isinstance(above, ast.Call):
        function = above.func
        last = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return not last.endswith(("_like", "_as")) and last not in ("len", "isinstance", "print", "to", "size")
    return isinstance(above, (ast.BinOp, ast.List, ast.Tuple, ast.Return, ast.keyword, ast.AugAssign))


def _input(call: ast.Call) -> ast.expr | None:
    return call.args[0] if call.args else argument(call, None, "input")


def _slices(node: ast.Subscript) -> bool:
    """Whether a subscript is basic indexing, which makes a view."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return all(isinstance(one, (ast.Slice, ast.Constant, ast.UnaryOp)) for one in parts)


def _halves(applied: Operation) -> bool:
    """Whether `.to(...)` makes a copy of another kind."""
    return any(getattr(one, "attr", None) in _HALVES for one in applied.call.args)


def _last(name: str | None) -> str:
    return (name or "").rsplit(".", 1)[-1]


def _leave_out(source: SourceFile, call: ast.Call) -> Edit | None:
    function = FUNCTIONALS.get(source.called(call) or "")
    given = argument(call, function.inplace if function is not None else 1, "inplace")
    node = next((one for one in call.keywords if one.value is given), given)
    if node in call.args[:-1]:
        return None  # the arguments behind it would move
    return drop_argument(source, call, node) if node is not None else None


def _fix(source: SourceFile, dropouts: tuple[ast.Call, ...]) -> Fix | None:
    edits = [_leave_out(source, one) for one in dropouts]
    known = tuple(edit for edit in edits if edit is not None)
    return Fix(_TITLE, known) if len(known) == len(edits) else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        made = {visit.origin.last for visit in site.visits_in(Phase.TRAIN) if visit.inplace and visit.is_active}
        needed = sorted(made & NEEDS_ITS_OUTPUT)
        if needed and trace.backward_error is not None:
            yield TraceViolation(site, f"in place on the output of {needed[0]}, which backward needs")
        elif any(visit.is_added_to_itself for visit in site.visits_in(Phase.TRAIN)):
            yield TraceViolation(site, "in place on what is added to the result: the skip is dropped from, too")
        elif "input" in made:
            yield TraceViolation(
                site, "in place on the model's input: the caller's tensor is changed", Severity.WARNING
            )


RULE = Rule(
    code="DRP401",
    name="inplace-dropout-breaks-backward",
    message="in-place dropout on a tensor that backward needs",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="leave `inplace=True` out",
    fix_is_safe=True,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1, inplace=True)

    def forward(self, q, k, v):
        weights = (q @ k.mT).softmax(dim=-1)
        weights = self.dropout(weights)  # DRP401
        return weights @ v


q, k, v = torch.randn(3, 2, 5, 8, requires_grad=True)
output = Attention()(q, k, v)
""",
            good="""
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, q, k, v):
        weights = (q @ k.mT).softmax(dim=-1)
        weights = self.dropout(weights)
        return weights @ v


q, k, v = torch.randn(3, 2, 5, 8, requires_grad=True)
output = Attention()(q, k, v)
""",
        ),
    ),
)
