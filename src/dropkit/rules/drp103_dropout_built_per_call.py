"""A dropout layer that is built anew in every call.

Predictions differ from call to call, without a warning. `nn.Dropout(p)(x)` in `forward` makes a layer, uses it once and
discards it. A new layer is in training mode, and `model.eval()` reaches only layers that the model holds.

Build the layer once, in `__init__`, or call the function: `F.dropout(x, p, training=self.training)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import fix, replace, spell
from dropkit.lint.semantic.expressions import last_part, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.moved_layers import moved
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import depends_on_mode, is_in_one_mode_method
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended, violations_in_eval
from dropkit.trace import Form, Trace

_FUNCTION_OF = {function.module: last_part(name) for name, function in FUNCTIONALS.items()}
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
    if method.owner is None:
        return method.within is None and _is_called_by_modules(source, method.name)
    return method.owner.is_module and method.name not in _BUILDERS and method.self_name is not None


@cached_per_file
def _is_called_by_modules(source: SourceFile, name: str) -> bool:
    """Whether a method of a Module, other than one that builds it, calls the function of this name."""
    calls = [call for call in source.calls.get(name, []) if isinstance(call.func, ast.Name)]
    callers = [function.method for call in calls if (function := source.function(call)) is not None]
    return any(caller.owner and caller.owner.is_module and caller.name not in _BUILDERS for caller in callers)


def _is_used_up(source: SourceFile, layer: ast.Call, function: FunctionDefinition) -> bool:
    """Whether the layer is called where it is built: at once, under a local name, or as an attribute set again."""
    made = moved(source, layer)
    # A mode of its own: nn.Dropout(p).train(self.training)
    if any(isinstance(node, ast.Attribute) and node.attr in ("train", "eval") for node in ast.walk(made)):
        return False
    parent = source.parent(made)
    if isinstance(parent, ast.Call):
        outer = source.parent(parent)
        is_called = isinstance(outer, ast.Call) and outer.func is parent
        return parent.func is made or (is_called and source.called(parent) == "torch.nn.Sequential")
    if not isinstance(parent, ast.Assign) or len(parent.targets) > 1:
        return False
    target, owner = parent.targets[0], source.owner(layer)
    if isinstance(target, ast.Name):
        return _is_only_called(source, target.id, function)
    # `forward` sets `self.attribute` to a new layer, under no condition, and calls it.
    is_set_again = function.name == "forward" and source.block(parent) is function.node.body
    calls = owner.own_calls.get(self_attribute(target) or "", []) if owner is not None and is_set_again else []
    return any(source.function(call) is function for call in calls)


@cached_per_file
def _is_only_called(source: SourceFile, name: str, function: FunctionDefinition) -> bool:
    """Whether all that the function does with a local name is to call it."""
    reads = [(read, source.parent(read)) for read in source.reads_in(function.node, name)]
    return bool(reads) and all(isinstance(parent, ast.Call) and parent.func is read for read, parent in reads)


def _fix(source: SourceFile, layer: DropoutCall) -> Fix | None:
    """`nn.Dropout(p)(x)` to `F.dropout(x, p, training=self.training)`."""
    call, name, owner = source.parent(layer.call), source.self_name(layer.call), source.owner(layer.call)
    functional = _functional(source, layer.call)
    if not isinstance(call, ast.Call) or call.func is not layer.call or owner is None or not (name and functional):
        return None
    # What a named expression binds on the way would be bound in another order.
    binds = any(isinstance(node, ast.NamedExpr) for node in ast.walk(call))
    if len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.GeneratorExp) or binds:
        return None
    if unpacks(call) or unpacks(layer.call) or layer.has_noise_shape or "#" in source.text.of(call):
        return None
    arguments = [source.text.of(call.args[0])]
    if layer.p is not None:
        arguments.append(f"{'' if layer.p in layer.call.args else 'p='}{source.text.of(layer.p)}")
    arguments.append(f"training={name}.training")
    if layer.inplace is not None:
        arguments.append(f"inplace={source.text.of(layer.inplace)}")
    function = f"{functional}.{_FUNCTION_OF[layer.kind]}"
    return fix(f"Call {function}", replace(source, call, f"{function}({', '.join(arguments)})"), safe=owner.has_mode)


def _functional(source: SourceFile, node: ast.AST) -> str | None:
    """What this file can call `torch.nn.functional` at `node` without a new import."""
    spelling, function = spell(source, "torch.nn.functional"), source.function(node)
    if spelling is None or function is None:
        return None
    root = spelling.partition(".")[0]
    return None if root in function.names or root in function.method.names else spelling


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return violations_in_eval(trace, Form.PER_CALL)


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
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
-        x = nn.Dropout(0.5)(F.relu(self.hidden(x)))  # DRP103
+        x = F.dropout(F.relu(self.hidden(x)), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
