"""A dropout layer built anew in every call.

`nn.Dropout(p)(x)` in `forward` makes a layer, uses it once and forgets it. A new layer is in training mode, and
`model.eval()` can only reach layers that the model holds: so this one drops in evaluation too. Predictions differ from
call to call, and nothing warns.

Build the layer once, in `__init__`, or call the function: `F.dropout(x, p, training=self.training)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_MODULES, FUNCTIONALS, canonical
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile, once
from dropkit.lint.semantic.training_flag import called_under_mode, follows_mode, serves_one_mode, under_mode
from dropkit.rules._stays_on import active_in_eval, severity, unless_meant
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Form, Trace

_LAST = sorted(name.rsplit(".", 1)[1] for name in DROPOUT_MODULES)
_FUNCTION = {f"torch.nn.{known.module}": name for name, known in FUNCTIONALS.items() if name.startswith("torch.nn.")}
_BUILDERS = ("__init__", "__new__", "reset_parameters", "setup", "configure_model")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in _LAST:
        for built in source.calls.get(name, []):
            function = source.function(built)
            if source.called(built) not in DROPOUT_MODULES or function is None or not _runs(source, function):
                continue
            if _used_up(source, built, function) and not _excused(source, built):
                yield from unless_meant(source, Violation(built, fix=_fix(source, built)))


def _runs(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether the function is at work in a Module's call: a method that builds nothing, or a function one calls."""
    method = function.method
    if method.owner is not None:
        return method.owner.is_module and method.name not in _BUILDERS and method.self_name is not None
    return method.within is None and _is_called_by_modules(source, method.name)


@once
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


def _used_up(source: SourceFile, built: ast.Call, function: FunctionDefinition) -> bool:
    """Whether the layer is called where it is built: at once, under a local name, or as an attribute set again."""
    above = source.parent(built)
    if isinstance(above, ast.Call):
        if above.func is built:
            return True
        outer = source.parent(above)
        return source.called(above) == "torch.nn.Sequential" and isinstance(outer, ast.Call) and outer.func is above
    if isinstance(above, ast.Assign) and len(above.targets) == 1:
        target = above.targets[0]
        if isinstance(target, ast.Name):
            return _only_called(source, target.id, function)
        attribute, owner = self_attribute(target), source.owner(built)
        if attribute is not None and owner is not None:
            return _rebuilt(source, attribute, owner, function, above)
    return False


@once
def _only_called(source: SourceFile, name: str, function: FunctionDefinition) -> bool:
    """Whether all that the function does with a local name is to call it."""
    uses = [(node, source.parent(node)) for node in source.reads_in(function.node, name)]
    return bool(uses) and all(isinstance(above, ast.Call) and above.func is node for node, above in uses)


def _rebuilt(
    source: SourceFile, attribute: str, owner: ClassDefinition, function: FunctionDefinition, statement: ast.stmt
) -> bool:
    """Whether `forward` sets `self.attribute` to a new layer, under no condition, and calls it."""
    return (
        function.name == "forward"
        and source.block(statement) is function.node.body
        and function in _callers(source, owner, attribute)
    )


@once
def _callers(source: SourceFile, owner: ClassDefinition, attribute: str) -> set[FunctionDefinition | None]:
    """The functions of a class that call `self.attribute`."""
    return {source.function(call) for call in owner.own_calls.get(attribute, [])}


def _excused(source: SourceFile, built: ast.Call) -> bool:
    """A condition asks for the mode, or the rate is zero or follows it."""
    p = argument(built, 0, "p")
    if p is not None and (follows_mode(source, p) or (isinstance(p, ast.Constant) and not p.value)):
        return True
    function = source.function(built)
    twin = function is not None and serves_one_mode(function.method.name)
    return twin or under_mode(source, built) or called_under_mode(source, built)


def _fix(source: SourceFile, built: ast.Call) -> Fix | None:
    """`nn.Dropout(p)(x)` to `F.dropout(x, p, training=self.training)`."""
    call, name = source.parent(built), source.self_name(built)
    known = FUNCTIONALS[_FUNCTION[source.called(built) or ""]]
    prefix = _functional(source, built)
    if not isinstance(call, ast.Call) or call.func is not built or name is None or prefix is None or unpacks(built):
        return None
    if len(call.args) != 1 or call.keywords or isinstance(call.args[0], (ast.Starred, ast.GeneratorExp)):
        return None
    if "#" in source.text.of(call) or any(isinstance(one, ast.NamedExpr) for one in ast.walk(call)):
        return None  # what is bound on the way is bound in another order
    last = _FUNCTION[source.called(built) or ""].rsplit(".", 1)[1]
    p, inplace = argument(built, 0, "p"), argument(built, 1, "inplace")
    parts = [source.text.of(call.args[0])]
    parts += [source.text.of(p) if p in built.args else f"p={source.text.of(p)}"] if p is not None else []
    parts += [f"{known.training_name}={name}.training"]
    parts += [f"inplace={source.text.of(inplace)}"] if inplace is not None else []
    owner = source.owner(built)
    edit = replace(source, call, f"{prefix}.{last}({', '.join(parts)})")
    return Fix(f"Call {prefix}.{last}", (edit,), safe=owner is not None and owner.has_mode)


def _functional(source: SourceFile, node: ast.AST) -> str | None:
    """What this file can call `torch.nn.functional` without a new import."""
    function = source.function(node)
    tables = () if function is None else (function.names, function.method.names)
    ways = _ways_to_functional(source)
    return next((path for name, path in ways if not any(name in table for table in tables)), None)


@once
def _ways_to_functional(source: SourceFile) -> list[tuple[str, str]]:
    """The names that this file imports `torch.nn.functional` by, and `F.` written with each; the shortest first."""
    rest = {"torch.nn.functional": "", "torch.nn": ".functional", "torch": ".nn.functional"}
    found: dict[str, list[tuple[str, str]]] = {origin: [] for origin in rest}
    for name, bindings in source.names.items():
        # Not what is imported for type checkers only, or in one branch.
        whole = all(source.block(one.statement) is source.tree.body for one in bindings)
        origins = {canonical(one.imported) if one.imported is not None and whole else None for one in bindings}
        origin = origins.pop() if len(origins) == 1 else None
        if origin is not None and origin in rest:
            found[origin].append((name, name + rest[origin]))
    return [way for ways in found.values() for way in ways]


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return (
        TraceViolation(site, severity=severity(site)) for site in active_in_eval(trace) if site.form is Form.PER_CALL
    )


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
