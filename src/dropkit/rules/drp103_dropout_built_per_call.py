"""A dropout layer that is built anew in every call.

Predictions differ from call to call, without a warning. `nn.Dropout(p)(x)` in `forward` makes a layer, uses it once and
discards it. A new layer is in training mode, and `model.eval()` reaches only layers that the model holds.

Build the layer once, in `__init__`, or call the function: `F.dropout(x, p, training=self.training)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS, canonical
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import last_part, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import depends_on_mode, is_in_one_mode_method
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

_FUNCTION_OF = {f"torch.nn.{function.module}": name for name, function in FUNCTIONALS.items() if function.module}
# Methods that build a Module rather than run it.
_BUILDERS = ("__init__", "__new__", "reset_parameters", "setup", "configure_model")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for layer in dropout_calls(source, DropoutForm.LAYER):
        function = source.function(layer.call)
        if layer.kind is None or function is None or not _runs_in_a_call(source, function):
            continue
        is_gated = is_in_one_mode_method(source, layer.call) or depends_on_mode(source, layer.call, layer.p)
        if _is_used_up(source, layer.call, function) and not is_gated:
            yield from unless_intended(source, Violation(layer.call, fix=_fix(source, layer)))


def _runs_in_a_call(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a Module's call runs the function: a method that builds nothing, or a function that one calls."""
    method = function.method
    if method.owner is not None:
        return method.owner.is_module and method.name not in _BUILDERS and method.self_name is not None
    return method.within is None and _is_called_by_modules(source, method.name)


@cached_per_file
def _is_called_by_modules(source: SourceFile, name: str) -> bool:
    """Whether a method of a Module, other than one that builds it, calls the function of this name."""
    return any(
        (owner := source.owner(call)) is not None
        and owner.is_module
        and (caller := source.function(call)) is not None
        and caller.method.name not in _BUILDERS
        for call in source.calls.get(name, [])
        if isinstance(call.func, ast.Name)
    )


def _is_used_up(source: SourceFile, layer: ast.Call, function: FunctionDefinition) -> bool:
    """Whether the layer is called where it is built: at once, under a local name, or as an attribute set again."""
    parent = source.parent(layer)
    if isinstance(parent, ast.Call):
        if parent.func is layer:
            return True
        outer = source.parent(parent)
        return source.called(parent) == "torch.nn.Sequential" and isinstance(outer, ast.Call) and outer.func is parent
    if isinstance(parent, ast.Assign) and len(parent.targets) == 1:
        target = parent.targets[0]
        if isinstance(target, ast.Name):
            return _is_only_called(source, target.id, function)
        attribute, owner = self_attribute(target), source.owner(layer)
        # `forward` sets `self.attribute` to a new layer, under no condition, and calls it.
        return (
            attribute is not None
            and owner is not None
            and function.name == "forward"
            and source.block(parent) is function.node.body
            and function in _callers(source, owner, attribute)
        )
    return False


@cached_per_file
def _callers(source: SourceFile, owner: ClassDefinition, attribute: str) -> set[FunctionDefinition | None]:
    """The functions of a class that call `self.attribute`."""
    return {source.function(call) for call in owner.own_calls.get(attribute, [])}


@cached_per_file
def _is_only_called(source: SourceFile, name: str, function: FunctionDefinition) -> bool:
    """Whether all that the function does with a local name is to call it."""
    reads = [(read, source.parent(read)) for read in source.reads_in(function.node, name)]
    return bool(reads) and all(isinstance(parent, ast.Call) and parent.func is read for read, parent in reads)


def _fix(source: SourceFile, layer: DropoutCall) -> Fix | None:
    """`nn.Dropout(p)(x)` to `F.dropout(x, p, training=self.training)`."""
    call, name, owner = source.parent(layer.call), source.self_name(layer.call), source.owner(layer.call)
    functional = _functional(source, layer.call)
    if not isinstance(call, ast.Call) or call.func is not layer.call or name is None or functional is None:
        return None
    if len(call.args) != 1 or call.keywords or isinstance(call.args[0], (ast.Starred, ast.GeneratorExp)):
        return None
    binds = any(isinstance(node, ast.NamedExpr) for node in ast.walk(call))
    if unpacks(layer.call) or "#" in source.text.of(call) or binds:
        return None  # What is bound on the way would be bound in another order.
    function = f"{functional}.{last_part(_FUNCTION_OF[layer.name])}"
    arguments = [source.text.of(call.args[0])]
    if layer.p is not None:
        arguments.append(f"{'' if layer.p in layer.call.args else 'p='}{source.text.of(layer.p)}")
    arguments.append(f"training={name}.training")
    if layer.inplace is not None:
        arguments.append(f"inplace={source.text.of(layer.inplace)}")
    edit = replace(source, call, f"{function}({', '.join(arguments)})")
    return Fix(f"Call {function}", (edit,), safe=owner is not None and owner.has_mode)


def _functional(source: SourceFile, node: ast.AST) -> str | None:
    """What this file can call `torch.nn.functional` at `node` without a new import."""
    function = source.function(node)
    tables = () if function is None else (function.names, function.method.names)
    ways = _ways_to_functional(source)
    return next((path for name, path in ways if not any(name in table for table in tables)), None)


@cached_per_file
def _ways_to_functional(source: SourceFile) -> list[tuple[str, str]]:
    """The names that this file imports `torch.nn.functional` by, and the path to it from each; the shortest first."""
    paths = {"torch.nn.functional": "", "torch.nn": ".functional", "torch": ".nn.functional"}
    ways: dict[str, list[tuple[str, str]]] = {origin: [] for origin in paths}
    for name, bindings in source.names.items():
        # Not what is imported for type checkers only, or in one branch.
        is_certain = all(source.block(binding.statement) is source.tree.body for binding in bindings)
        imported = {binding.imported for binding in bindings} if is_certain else {None}
        origin = imported.pop() if len(imported) == 1 else None
        if origin is not None and canonical(origin) in paths:
            ways[canonical(origin)].append((name, name + paths[canonical(origin)]))
    return [way for names in ways.values() for way in names]


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    sites = (site for site in active_in_eval(trace) if site.form is Form.PER_CALL)
    return (TraceViolation(site, severity=severity_in_eval(site)) for site in sites)


RULE = Rule(
    code="DRP103",
    name="dropout-built-per-call",
    message="a layer built in the call is always in training mode",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="call `F.dropout(x, p, training=self.training)`, where the layer is called at once",
    fix_is_safe=True,
    examples=(
        Example(
            bad="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = nn.Dropout(0.5)(F.relu(self.hidden(x)))  # DRP103
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = F.dropout(F.relu(self.hidden(x)), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
