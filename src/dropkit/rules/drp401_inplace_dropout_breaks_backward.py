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
from dropkit.lint.semantic.edits import drop_argument, fix
from dropkit.lint.semantic.expressions import argument, last_name, last_part, literal
from dropkit.lint.semantic.layers import Operation, constructors, input_of, made, operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, BEFORE, end_layer, nearest_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file, grouped
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Operations that save their output for backward; `.` marks tensor methods. Measured with torch 2.13.
_SAVES_OUTPUT = frozenset(
    {"ReLU", "Sigmoid", "Tanh", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "relu", "relu_", "sigmoid", "sigmoid_",
     "tanh", "tanh_", "softmax", "log_softmax", "softmin", "gumbel_softmax", "exp", "exp_", "sqrt", "sqrt_", "rsqrt",
     "rsqrt_", "expit"}
)  # fmt: skip
# Operations that save their output only if they are in place: the position of `inplace`.
_SAVES_OUTPUT_IN_PLACE = {
    "LeakyReLU": 1, "ELU": 1, "CELU": 1, "SELU": 0, "RReLU": 2,
    "leaky_relu": 2, "elu": 2, "celu": 2, "selu": 1, "rrelu": 4,
}  # fmt: skip
# Operations that return a view of their input, or the input itself. Those in _MAY_COPY copy after one in _REORDERS.
_MAY_COPY = frozenset({"reshape", "flatten", "contiguous", "Flatten"})
_REORDERS = frozenset({"transpose", "permute", "t", "swapaxes", "movedim", "expand", "narrow"})
_OTHER_VIEWS = ("view", "squeeze", "unsqueeze", "type_as", "to", "float", "Identity", "Unflatten", "view_as")
_VIEWS = _MAY_COPY.union(_REORDERS, _OTHER_VIEWS)
_VIEW_LAYERS = frozenset({"torch.nn.Flatten", "torch.nn.Unflatten", "torch.nn.Identity"})
_HALF_TYPES = frozenset({"half", "float16", "bfloat16"})
# Attributes and methods that do not read the values of a tensor.
_SHAPES = frozenset({"shape", "size", "dtype", "device", "ndim", "dim", "type", "is_cuda", "requires_grad", "numel"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in filter(_drops_in_place, dropout_calls(source, DropoutForm.LAYER)):
        applied = made(source, nearest_layer(source, dropout.call, BEFORE, _VIEW_LAYERS))
        if applied is not None and _saves_output(applied):
            yield _on_saved_output(dropout.call, applied.torch_name, _fix(source, (dropout,)))
    for call, dropouts in _applications(source):
        saved_by = _saved_by(source, input_of(call))
        # No fix where the result is discarded: the in-place change is the only effect then.
        leave_out = _fix(source, dropouts) if not _is_discarded(source, call) else None
        if saved_by is not None:
            yield _on_saved_output(call, saved_by, leave_out)
        elif _read_again(source, call):
            if leave_out is not None:
                leave_out = dataclasses.replace(leave_out, changes_training=True)
            message = "in-place dropout changes a tensor that is read again"
            yield Violation(call, message, leave_out, Severity.WARNING)


def _on_saved_output(call: ast.Call, operation: str, fix: Fix | None) -> Violation:
    return Violation(call, f"in-place dropout overwrites the output that {operation} saved for backward", fix)


def _is_discarded(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of this call, or of another call of the same layer, is discarded."""
    is_layer = source.called(call) is None
    return isinstance(source.parent(call), ast.Expr) or (is_layer and last_name(call) in _discarded(source))


@cached_per_file
def _discarded(source: SourceFile) -> set[str]:
    """The names of all that is called and whose result is discarded."""
    return {last_name(call) for call in source.all_calls if isinstance(source.parent(call), ast.Expr)}


def _applications(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[DropoutCall, ...]]]:
    """Calls that drop in place, and the calls with `inplace=True`: themselves, or those that construct the layer."""
    for dropout in filter(_drops_in_place, dropout_calls(source, DropoutForm.FUNCTION)):
        yield dropout.call, (dropout,)
    if not any(map(_drops_in_place, dropout_calls(source, DropoutForm.LAYER))):
        return
    for call in source.all_calls:
        if source.called(call) is None and call.args and not isinstance(call.func, ast.Call):
            first = [dropout_call(source, end_layer(source, layer, AFTER)) for layer in constructors(source, call.func)]
            dropouts = tuple(dropout for dropout in first if dropout is not None)
            if dropouts and all(map(_drops_in_place, dropouts)):
                yield call, dropouts


def _drops_in_place(dropout: DropoutCall) -> bool:
    """Whether it changes its input; the alpha kinds make a new tensor before they write."""
    is_known = dropout.form is DropoutForm.FUNCTION or dropout.kind is not None
    return is_known and dropout.works_in_place and "alpha" not in dropout.name.lower()


def _saved_by(source: SourceFile, expression: ast.expr | None) -> str | None:
    """The name of the operation that returned `expression` and saved it for backward; None if there is none."""
    pending: list[tuple[ast.expr | None, bool]] = [(expression, False)]
    for value, may_copy in pending:
        for origin in origins(source, value):
            applied = operation(source, origin)
            if isinstance(origin, ast.Subscript) and _slices(origin):
                inner, view = origin.value, "narrow"
            elif applied is not None and _saves_output(applied):
                return applied.torch_name
            elif applied is None or any(source.last_name(given) in _HALF_TYPES for given in applied.call.args):
                continue  # unknown, or a copy in another dtype
            else:
                inner, view = applied.input, last_part(applied.name)
            # Reordered axes are copied to be made contiguous: dropout then changes the copy.
            if view in _VIEWS and not (may_copy and view in _REORDERS):
                pending.append((inner, may_copy or view in _MAY_COPY))
        if len(pending) > MOST:
            break
    return None


def _saves_output(applied: Operation) -> bool:
    name = applied.torch_name
    if name not in _SAVES_OUTPUT_IN_PLACE:
        return name in _SAVES_OUTPUT
    flags = [argument(call, _SAVES_OUTPUT_IN_PLACE[name], "inplace") for call in applied.layers or (applied.call,)]
    return all(literal(flag) is True for flag in flags)


def _read_again(source: SourceFile, call: ast.Call) -> bool:
    """Whether the tensor that `call` changes is read after it, by the same or another name."""
    input_, above, statement = input_of(call), source.parent(call), source.statement(call)
    function = source.function(call)
    # A lambda runs at another time than the code around it.
    is_in_lambda = function is not None and isinstance(function.node, ast.Lambda)
    if not isinstance(input_, ast.Name) or isinstance(statement, ast.Expr) or is_in_lambda:
        return False
    operands = (above.left, above.right) if isinstance(above, ast.BinOp) else ()
    if any(isinstance(operand, ast.Name) and operand.id == input_.id for operand in operands):
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
    yield from (name for name, value in others[:MOST] if reaching(source, value) == sources)
    if len(sources) == 1 and isinstance(sources[0].value, ast.Name) and not sources[0].derived:
        yield sources[0].value.id


@cached_per_file
def _other_names(_: SourceFile, function: FunctionDefinition) -> dict[str, list[tuple[str, ast.Name]]]:
    """For each name, the local names that are bound to it and to nothing else, and the expressions that do it."""
    once = ((name, bindings[0]) for name, bindings in function.names.items() if len(bindings) == 1)
    values = ((name, binding.value) for name, binding in once if not binding.derived)
    return grouped((value.id, (name, value)) for name, value in values if isinstance(value, ast.Name))


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


def _fix(source: SourceFile, dropouts: tuple[DropoutCall, ...]) -> Fix | None:
    return fix("Leave out inplace=True", *(_leave_out(source, dropout) for dropout in dropouts), safe=True)


def _leave_out(source: SourceFile, dropout: DropoutCall) -> Edit | None:
    call, flag = dropout.call, dropout.inplace
    given = next((keyword for keyword in call.keywords if keyword.value is flag), flag)
    # The arguments after a positional one would move.
    return drop_argument(source, call, given) if given is not None and given not in call.args[:-1] else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        inputs = {visit.origin.last for visit in site.visits_in(Phase.TRAIN) if visit.inplace and visit.is_active}
        needed = sorted(inputs & NEEDS_ITS_OUTPUT)
        if needed and trace.backward_error is not None:
            yield TraceViolation(site, f"in place on the output of {needed[0]}, which backward needs")
        elif any(visit.is_added_to_itself for visit in site.visits_in(Phase.TRAIN)):
            yield TraceViolation(
                site, "in place on a tensor that is added to the result: the skip connection is dropped, too"
            )
        elif "input" in inputs:
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
            """
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
-        self.dropout = nn.Dropout(0.1, inplace=True)
+        self.dropout = nn.Dropout(0.1)

    def forward(self, q, k, v):
        weights = (q @ k.mT).softmax(dim=-1)
        weights = self.dropout(weights)  # DRP401
        return weights @ v


q, k, v = torch.randn(3, 2, 5, 8, requires_grad=True)
output = Attention()(q, k, v)
""",
        ),
    ),
)
