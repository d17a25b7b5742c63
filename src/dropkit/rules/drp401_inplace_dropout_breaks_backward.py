"""In-place dropout on a tensor that is still needed.

`loss.backward()` fails with "one of the variables needed for gradient computation has been modified by an inplace
operation", but only once p is above 0: softmax, sigmoid, tanh, relu, exp and sqrt save their output for the backward
pass, and dropout overwrites it, directly or through a view. Where the tensor is read again, as in `x + dropout(x)`,
there is no error: the skip connection is dropped, too. Leave out `inplace=True`; it saves almost no memory.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

from dropkit.catalog import NEEDS_ITS_OUTPUT
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, origins, reaching, reads_after
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.edits import drop_argument
from dropkit.lint.semantic.expressions import argument, last_name, last_part, literal
from dropkit.lint.semantic.layers import Operation, constructors, input_of, operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, BEFORE, end_layer, nearest_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_TITLE = "Leave out inplace=True"
# Operations that save their output for backward; `.` marks tensor methods. Measured with torch 2.13.
_SAVES_OUTPUT = frozenset(
    [f"torch.nn.{name}" for name in ("ReLU", "Sigmoid", "Tanh", "Softmax", "Softmax2d", "LogSoftmax", "Softmin")]
    + [
        prefix + name
        for prefix in ("torch.", "torch.nn.functional.", ".")
        for name in ("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "softmax", "log_softmax", "softmin",
                     "gumbel_softmax", "exp", "exp_", "sqrt", "sqrt_", "rsqrt", "rsqrt_", "special.expit")
    ]
)  # fmt: skip
# Operations that save their output only if they are in place: the position of `inplace`.
_SAVES_OUTPUT_IN_PLACE = {
    "torch.nn.LeakyReLU": 1, "torch.nn.ELU": 1, "torch.nn.CELU": 1, "torch.nn.SELU": 0,
    "torch.nn.functional.leaky_relu": 2, "torch.nn.functional.elu": 2, "torch.nn.functional.celu": 2,
    "torch.nn.functional.selu": 1, "torch.nn.RReLU": 2, "torch.nn.functional.rrelu": 4,
}  # fmt: skip
# Operations that return a view of their input, or the input itself. Those in _MAY_COPY copy after one in _REORDERS.
_VIEWS = frozenset(
    {"view", "squeeze", "unsqueeze", "type_as", "to", "float", "Identity", "Unflatten", "view_as", "expand", "narrow"}
    | {"reshape", "flatten", "contiguous", "Flatten"}
    | {"transpose", "permute", "t", "swapaxes", "movedim"}
)
_MAY_COPY = frozenset({"reshape", "flatten", "contiguous", "Flatten"})
_REORDERS = frozenset({"transpose", "permute", "t", "swapaxes", "movedim", "expand", "narrow"})
_HALF_TYPES = frozenset({"half", "float16", "bfloat16"})
# Attributes and methods that do not read the values of a tensor.
_SHAPES = frozenset({"shape", "size", "dtype", "device", "ndim", "dim", "type", "is_cuda", "requires_grad", "numel"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.LAYER):
        yield from _in_a_row(source, dropout)
    for call, dropouts in _applications(source):
        saved_by = _saved_by(source, input_of(call))
        # No fix where the result is discarded: the in-place change is the only effect then.
        fix = _fix(source, dropouts) if not _is_discarded(source, call) else None
        if saved_by is not None:
            yield Violation(call, f"in-place dropout overwrites the output that {saved_by} saved for backward", fix)
        elif not _is_in_lambda(source, call) and _read_again(source, call):
            message = "in-place dropout changes a tensor that is read again"
            fix = dataclasses.replace(fix, changes_training=True) if fix is not None else None
            yield Violation(call, message, fix, Severity.WARNING)


def _is_discarded(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of this call, or of another call of the same layer, is discarded."""
    if isinstance(source.parent(call), ast.Expr):
        return True
    return source.called(call) is None and _is_ever_discarded(source, last_name(call))


@cached_per_file
def _is_ever_discarded(source: SourceFile, name: str) -> bool:
    return any(isinstance(source.parent(call), ast.Expr) for call in source.calls.get(name, []))


def _is_in_lambda(source: SourceFile, call: ast.Call) -> bool:
    """Whether the call is in a lambda, which runs at another time than the code around it."""
    function = source.function(call)
    return function is not None and isinstance(function.node, ast.Lambda)


def _in_a_row(source: SourceFile, dropout: DropoutCall) -> Iterator[Violation]:
    """A dropout layer directly after a layer that saves its output, in a Sequential or a list of layers."""
    if not _drops_in_place(dropout):
        return
    before = nearest_layer(source, dropout.call, BEFORE, _is_view)
    name = source.called(before) if before is not None else None
    if before is not None and name is not None and _saves_output(name, (before,)):
        message = f"in-place dropout overwrites the output that {last_part(name)} saved for backward"
        yield Violation(dropout.call, message, _fix(source, (dropout,)))


def _applications(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[DropoutCall, ...]]]:
    """Calls that drop in place, and the calls with `inplace=True`: themselves, or those that construct the layer."""
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        if _drops_in_place(dropout):
            yield dropout.call, (dropout,)
    if not any(map(_drops_in_place, dropout_calls(source, DropoutForm.LAYER))):
        return
    for call in source.all_calls:
        if source.called(call) is None and call.args and not isinstance(call.func, ast.Call):
            first = [dropout_call(source, end_layer(source, made, AFTER)) for made in constructors(source, call.func)]
            dropouts = tuple(dropout for dropout in first if dropout is not None and dropout.kind is not None)
            if dropouts and all(map(_drops_in_place, dropouts)):
                yield call, dropouts


def _drops_in_place(dropout: DropoutCall) -> bool:
    """Whether it changes its input; the alpha kinds make a new tensor before they write."""
    is_known = dropout.form is DropoutForm.FUNCTION or dropout.kind is not None
    return is_known and dropout.works_in_place and "alpha" not in dropout.name.lower()


def _is_view(name: str | None) -> bool:
    return last_part(name or "") in _VIEWS


def _saved_by(source: SourceFile, expression: ast.expr | None) -> str | None:
    """The name of the operation that returned `expression` and saved it for backward; None if there is none."""
    seen: set[ast.expr] = set()
    pending: list[tuple[ast.expr, tuple[str, ...]]] = [(expression, ())] if expression is not None else []
    while pending and len(seen) <= MOST:
        value, views = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        inner: list[tuple[ast.expr, tuple[str, ...]]] = []
        for origin in origins(source, value):
            applied = operation(source, origin) if origin is not None else None
            if isinstance(origin, ast.Subscript) and _slices(origin):
                inner.append((origin.value, (*views, "narrow")))
            if applied is None:
                continue
            last = last_part(applied.name)
            if _saves_output(applied.name, applied.layers or (applied.call,)):
                # Reordered axes are copied to be made contiguous: dropout then changes the copy.
                is_copy = any(name in _REORDERS and set(views[:index]) & _MAY_COPY for index, name in enumerate(views))
                return None if is_copy else last
            if last in _VIEWS and applied.input is not None and not _converts(source, applied):
                inner.append((applied.input, (*views, last)))
        pending += reversed(inner)
    return None


def _saves_output(name: str, calls: tuple[ast.Call, ...]) -> bool:
    if name in _SAVES_OUTPUT:
        return True
    place = _SAVES_OUTPUT_IN_PLACE.get(name)
    flags = [argument(call, place, "inplace") for call in calls] if place is not None else []
    return bool(flags) and all(literal(flag) is True for flag in flags)


def _read_again(source: SourceFile, call: ast.Call) -> bool:
    """Whether the tensor that `call` changes is read after it, by the same or another name."""
    input_, above, statement = input_of(call), source.parent(call), source.statement(call)
    if not isinstance(input_, ast.Name) or isinstance(statement, ast.Expr):
        return False
    if isinstance(above, ast.BinOp):
        other = above.right if above.left is call else above.left
        if isinstance(other, ast.Name) and other.id == input_.id:
            return True
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    is_rebound = any(isinstance(target, ast.Name) and target.id in (input_.id, "_") for target in targets)
    names = [*_aliases(source, input_), *([] if is_rebound else [input_.id])]
    return any(_reads_values(source, read) for name in names for read in reads_after(source, name, call)[:MOST])


def _aliases(source: SourceFile, tensor: ast.Name) -> Iterator[str]:
    """Other names of the same tensor: by `skip = x` after the last binding of `x`, or by that binding, `x = skip`."""
    function = source.function(tensor)
    sources = reaching(source, tensor)
    others = _other_names(source, function).get(tensor.id, []) if function is not None else []
    for name, value in others[:MOST]:
        if reaching(source, value) == sources:
            yield name
    if len(sources) == 1 and isinstance(sources[0].value, ast.Name) and not sources[0].derived:
        yield sources[0].value.id


@cached_per_file
def _other_names(_: SourceFile, function: FunctionDefinition) -> dict[str, list[tuple[str, ast.Name]]]:
    """For each name, the local names that are bound to it and to nothing else, and the expressions that do it."""
    names: dict[str, list[tuple[str, ast.Name]]] = {}
    for name, bindings in function.names.items():
        value = bindings[0].value if len(bindings) == 1 and not bindings[0].derived else None
        if isinstance(value, ast.Name):
            names.setdefault(value.id, []).append((name, value))
    return names


def _reads_values(source: SourceFile, name: ast.Name) -> bool:
    """Whether a use of a tensor reads its values, not its shape or type."""
    above = source.parent(name)
    if isinstance(above, ast.Attribute):
        return above.attr not in _SHAPES
    if isinstance(above, ast.Call):
        last = source.last_name(above)
        return not last.endswith(("_like", "_as")) and last not in ("len", "isinstance", "print", "to", "size")
    return isinstance(above, (ast.BinOp, ast.List, ast.Tuple, ast.Return, ast.keyword, ast.AugAssign))


def _slices(node: ast.Subscript) -> bool:
    """Whether a subscript is basic indexing, which returns a view."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return all(isinstance(part, (ast.Slice, ast.Constant, ast.UnaryOp)) for part in parts)


def _converts(source: SourceFile, applied: Operation) -> bool:
    """Whether `.to(...)` copies to another dtype."""
    return any(source.last_name(value) in _HALF_TYPES for value in applied.call.args)


def _leave_out(source: SourceFile, dropout: DropoutCall) -> Edit | None:
    call, flag = dropout.call, dropout.inplace
    node = next((keyword for keyword in call.keywords if keyword.value is flag), flag)
    if node in call.args[:-1]:
        return None  # the arguments after it would move
    return drop_argument(source, call, node) if node is not None else None


def _fix(source: SourceFile, dropouts: tuple[DropoutCall, ...]) -> Fix | None:
    edits = [_leave_out(source, dropout) for dropout in dropouts]
    known = tuple(edit for edit in edits if edit is not None)
    return Fix(_TITLE, known) if len(known) == len(edits) else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        made = {visit.origin.last for visit in site.visits_in(Phase.TRAIN) if visit.inplace and visit.is_active}
        needed = sorted(made & NEEDS_ITS_OUTPUT)
        if needed and trace.backward_error is not None:
            yield TraceViolation(site, f"in place on the output of {needed[0]}, which backward needs")
        elif any(visit.is_added_to_itself for visit in site.visits_in(Phase.TRAIN)):
            yield TraceViolation(
                site, "in place on a tensor that is added to the result: the skip connection is dropped, too"
            )
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
    fix="leave out `inplace=True`",
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
