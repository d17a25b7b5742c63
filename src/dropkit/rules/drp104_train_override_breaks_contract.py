"""A `train` or `eval` method that does not do, or return, what Module's does.

Dropout of some layers stays on after `model.eval()`, or `model = Model().eval()` is None and fails far from the line at
fault. `Module.train(mode)` sets the mode of the module and of all its children, and returns the module; `eval()` calls
it. An override that does not pass the call on leaves the children in their mode.

Call `super().train(mode)` and `return self`. Methods with another meaning are not reported: those that take something
other than a mode (`train(self, loader)`), and those that train, yield or return something else. A method that only
returns self is not reported either: it keeps a frozen model as it is. The fix is safe where the method does nothing but
switch modes and set attributes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from dropkit.catalog import MODE_DEPENDENT
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.attribute_usage import is_empty
from dropkit.lint.semantic.definitions import FUNCTIONS, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import fix, insert_after, insert_before, replace
from dropkit.lint.semantic.expressions import given, is_none, last_name, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary, words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, active_in_eval, severity_in_eval
from dropkit.trace import Form, Phase, Trace

_MODE = re.compile(
    r"(?:is |in |set )?(?:mode|train|training|eval|evaluating|is train|is training)(?: mode| flag)?|flag"
)
# Words in the names of functions that only a training or evaluation procedure calls.
_PROCEDURE_CALLS = Vocabulary(
    r"backward|steps?|zero grad|fit|runs?|runner|loops?|epochs?|batch(?! norm)|batches|validate|validation|evaluate"
    r"|evaluation|learn|optimi[sz]ers?|sgd|adam\w*|loss(?:es)?|criterion|metrics?|training|accuracy|scores?|predict"
)
# Functions that switch the mode of a module, or its gradients.
_SWITCHES = re.compile(
    r"train|eval|requires grad|(?:set|switch|toggle) (?:mode|train|training|eval)(?: mode)?|(?:un)?freeze(?: \w+)*"
)
_PROCEDURES = Vocabulary(r"\w*trainer|runner|engine|agent|solver|algo|algorithm|evaluator|env")
# Calls without side effects.
_PURE = frozenset(
    {"isinstance", "issubclass", "hasattr", "getattr", "callable", "bool", "len", "any", "all", "type", "super",
     "startswith", "endswith", "enumerate", "zip", "list", "tuple", "reversed", "chain", "values", "items", "keys",
     "get", "parameters", "named_parameters", "children", "modules", "named_children", "named_modules",
     "get_submodule"}
)  # fmt: skip
_OTHER_RESULTS = frozenset(
    {"int", "float", "bool", "str", "dict", "list", "tuple", "set", "Dict", "List", "Tuple", "Iterator", "Iterable",
     "Generator", "Tensor", "Mapping", "Sequence", "Optional", "Union", "DataFrame", "ndarray"}
)  # fmt: skip
_TRAVERSALS = frozenset({"children", "modules", "named_children", "named_modules", "_modules", "apply"})
_OTHER_DECORATORS = frozenset({"overload", "abstractmethod", "property", "cached_property", "contextmanager"})
# What may return the module, besides `self`: `super().train(mode)`, `self.eval()`.
_RETURNING_SELF = frozenset({"train", "eval", "requires_grad_", "apply"})
_DELEGATING = frozenset({"train", "eval", "__getattr__", "__getattribute__"})
_WITH_MODE = MODE_DEPENDENT | {f"torch.nn.{name}" for name in ("Sequential", "ModuleList", "ModuleDict", "Transformer")}


@dataclass(frozen=True, slots=True)
class _Override:
    """A method called `train` or `eval`, with the nodes and calls in it, but in no function or class within it."""

    source: SourceFile
    owner: ClassDefinition
    definition: FunctionDefinition
    node: ast.FunctionDef
    nodes: list[ast.AST]
    calls: list[ast.Call]

    def is_self(self, value: ast.AST | None) -> bool:
        """Whether an expression is the object of the method."""
        return isinstance(value, ast.Name) and value.id == self.definition.self_name


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        for method in (owner.methods.get("train"), owner.methods.get("eval")):
            if method is None or not isinstance(method.node, ast.FunctionDef) or method.self_name is None:
                continue
            nodes = _own_nodes(method.node)
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            override = _Override(source, owner, method, method.node, nodes, calls)
            if _can_be_called_like_a_switch(override):
                yield from _judge(override)


def _judge(override: _Override) -> Iterator[Violation]:
    source, owner, node = override.source, override.owner, override.node
    delegates = any(_delegates(override, call) for call in override.calls)
    traverses = any(isinstance(inner, ast.Attribute) and inner.attr in _TRAVERSALS for inner in override.nodes)
    sets_training = any(write.function is override.definition for write in owner.writes.get("training", []))
    only_switches = _only_switches(override)
    if _is_procedure(override, delegates or traverses) or not (delegates or only_switches or sets_training):
        return
    empty = [inner for inner in override.nodes if isinstance(inner, ast.Return) and is_none(inner.value)]
    returns_none = bool(empty) or _falls_through(node.body)
    place = source.text.head(node)
    if not delegates and not traverses and _leaves_children(override):
        message = f"{node.name}() does not reach the children of the module"
        yield Violation(place, message, _fix(override, empty, passes_on=True), Severity.ERROR)
    elif returns_none and (delegates or traverses or (node.name == "train" and not is_empty(node.body))):
        # A method that does more than switch modes may return nothing for a reason.
        safe = owner.is_module and only_switches
        yield Violation(place, f"{node.name}() does not return self", _fix(override, empty, safe=safe))


def _can_be_called_like_a_switch(override: _Override) -> bool:
    """Whether it can be called like Module's method, in a class that is a Module or passes the call on to one."""
    node, arguments = override.node, override.node.args
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    required = len(positional) - len(arguments.defaults)
    is_bound_again = len(override.definition.names[override.definition.self_name or ""]) > 1
    if (
        is_bound_again
        or any(last_name(decorator) in _OTHER_DECORATORS for decorator in node.decorator_list)
        or any(default is None for default in arguments.kw_defaults)
        or any(not _is_bool(override, parameter) for parameter in (*positional[1:], *arguments.kwonlyargs))
    ):
        return False
    passes_on = any(last_name(call) == node.name and _is_of_super(call) for call in override.calls)
    if node.name == "eval":
        fits = required <= 0 and all(_may_be_mode(override, parameter) for parameter in positional)
    elif positional:
        fits = required <= 1 and _may_be_mode(override, positional[0])
    else:
        fits = passes_on or (arguments.vararg is not None and arguments.vararg.arg in ("args", "arg", "_"))
    return fits and (override.owner.is_module or passes_on)


def _may_be_mode(override: _Override, parameter: ast.arg) -> bool:
    """Whether a parameter may be a mode: by its name, or because it is a bool that is passed to a switch."""
    is_bool = _is_bool(override, parameter)
    if _MODE.fullmatch(words_of(parameter.arg)) is not None:
        return is_bool or (parameter.annotation is None and is_none(override.source.default(parameter)))
    switches = (call for call in override.calls if last_name(call) in ("train", "requires_grad_"))
    values = (value for call in switches for value in given(call))
    return is_bool and any(isinstance(value, ast.Name) and value.id == parameter.arg for value in values)


def _is_bool(override: _Override, parameter: ast.arg) -> bool:
    """Whether a parameter is a bool by its annotation, or else by its default."""
    if parameter.annotation is not None:
        return re.search(r"\bbool\b", override.source.text.of(parameter.annotation)) is not None
    return isinstance(literal(override.source.default(parameter)), bool)


def _is_procedure(override: _Override, passes_on: bool) -> bool:
    """Whether a method has another meaning: it is a generator, it trains, or it returns something else."""
    returned = [inner.value for inner in override.nodes if isinstance(inner, ast.Return) and not is_none(inner.value)]
    returns = override.node.returns
    result = returns.value if isinstance(returns, ast.Subscript) else returns
    loops = any(isinstance(inner, (ast.For, ast.AsyncFor, ast.While)) for inner in override.nodes)
    called = {last_name(call) for call in override.calls}
    return (
        any(not override.is_self(value) and not _is_call_of(value, _RETURNING_SELF) for value in returned)
        or last_name(result) in _OTHER_RESULTS
        or (loops and not passes_on and called.isdisjoint(("train", "eval")))
        or any(isinstance(inner, (ast.Yield, ast.YieldFrom, ast.Await)) for inner in override.nodes)
        or any(_PROCEDURE_CALLS.has(name) and not _SWITCHES.fullmatch(words_of(name)) for name in called)
    )


def _only_switches(override: _Override) -> bool:
    """Whether the method only switches modes and sets attributes, perhaps under conditions."""
    pending: list[ast.stmt] = list(override.node.body)
    while pending:
        match pending.pop():
            case ast.Pass() | ast.Raise() | ast.Assert() | ast.Continue() | ast.Break():
                is_plain = True
            case ast.Expr(value=ast.Constant()) | ast.Return(value=None | ast.Constant() | ast.Name()):
                is_plain = True
            case ast.Return(value=ast.Call() as call) | ast.Expr(value=ast.Call() as call):
                is_plain = _is_call_of_switch(override, call)
            case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.AugAssign(value=value):
                is_plain = value is None or _is_pure(value)
            case ast.If(test=head, body=then, orelse=orelse) | ast.For(iter=head, body=then, orelse=orelse):
                pending += [*then, *orelse]
                is_plain = _is_pure(head)
            case _:
                is_plain = False
        if not is_plain:
            return False
    return True


def _is_call_of_switch(override: _Override, call: ast.Call) -> bool:
    """`super().train(mode)`, `self.norm.eval()`, `weight.requires_grad_(False)`, `setattr(self, name, mode)`."""
    name, values = last_name(call), given(call)
    if not all(map(_is_pure, values)):
        return False
    if _delegates(override, call) or name in ("setattr", "apply"):
        return True
    receiver = last_name(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    is_switch = _SWITCHES.fullmatch(words_of(name)) is not None and not _PROCEDURES.has(receiver)
    takes_modes = all(
        isinstance(value, (ast.Constant, ast.Name, ast.UnaryOp, ast.BoolOp, ast.Compare)) for value in values
    )
    return is_switch and takes_modes and _is_pure(call.func)


def _is_pure(expression: ast.expr) -> bool:
    """Whether an expression has no side effects, by the names of what it calls."""
    return all(last_name(node) in _PURE for node in ast.walk(expression) if isinstance(node, ast.Call))


def _own_nodes(node: ast.FunctionDef) -> list[ast.AST]:
    """The nodes of a function without those of functions and classes defined in it."""
    nodes: list[ast.AST] = list(node.body)
    for inner in nodes:
        if not isinstance(inner, (*FUNCTIONS, ast.ClassDef)):
            nodes.extend(ast.iter_child_nodes(inner))
    return nodes


def _delegates(override: _Override, call: ast.Call) -> bool:
    """`super().train(...)`, `self.train(False)`, `nn.Module.train(self, mode)`."""
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    is_of_self = any(override.is_self(value) for value in (receiver, *call.args[:1]))
    return _is_call_of(call, _DELEGATING) and (_is_of_super(call) or is_of_self)


def _is_of_super(call: ast.Call) -> bool:
    """Whether a method of `super()` is called."""
    return isinstance(call.func, ast.Attribute) and _is_call_of(call.func.value, ("super",))


def _is_call_of(node: ast.AST | None, names: Container[str]) -> bool:
    return isinstance(node, ast.Call) and last_name(node) in names


def _leaves_children(override: _Override) -> bool:
    """Whether a child with a mode keeps its mode, while other flags are set.

    A method that sets nothing freezes the module on purpose, and one with loops does more than switch modes.
    """
    methods = [call.func for call in override.calls if isinstance(call.func, ast.Attribute)]
    switched = {self_attribute(method.value) for method in methods if method.attr in ("train", "eval")}
    sets = any(isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) for node in override.nodes)
    if any(isinstance(node, (ast.For, ast.While, ast.With)) for node in override.nodes) or not (switched or sets):
        return False
    return any(name not in switched for cls in override.owner.mro for name in _children(override.source, cls))


@cached_per_file
def _children(source: SourceFile, owner: ClassDefinition) -> list[str]:
    """The attributes that a class sets to dropout, normalisation, containers, or Modules of this file."""
    writes = [write for writes in owner.writes.values() for write in writes if write.function is not None]
    return [write.attribute for write in writes if isinstance(write.value, ast.Call) and _has_mode(source, write.value)]


def _has_mode(source: SourceFile, call: ast.Call) -> bool:
    cls = source.local_class(call.func)
    return source.called(call) in _WITH_MODE or (cls is not None and cls.is_module)


def _falls_through(body: list[ast.stmt]) -> bool:
    """Whether the end of a block is reached: then the function returns None."""
    pending = [body]
    while pending:
        match pending.pop():
            case [*_, ast.Return() | ast.Raise() | ast.Continue()]:
                continue
            case [*_, ast.If(body=then, orelse=orelse)]:
                pending += [then, orelse]
            case [*_, ast.With(body=inner)]:
                pending.append(inner)
            case [*_, ast.Try(body=inner, handlers=handlers, orelse=orelse, finalbody=final)]:
                if not final or _falls_through(final):
                    pending += [orelse or inner, *(handler.body for handler in handlers)]
            case _:
                return True
    return False


def _fix(override: _Override, empty: list[ast.Return], passes_on: bool = False, safe: bool = False) -> Fix | None:
    """Return self wherever nothing is returned; with `passes_on`, call super first, which changes training."""
    source, node = override.source, override.node
    own = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
    edits: list[Edit | None] = [replace(source, returned, f"return {own[0]}") for returned in empty]
    if _falls_through(node.body):
        edits.append(insert_after(source, node.body[-1], f"return {own[0]}"))
    if edits and node.returns is not None and is_none(node.returns):
        # `-> None` is wrong then; it stays, and nothing is fixed, if a comment stands between.
        arrow = re.search(rb"\s*->\s*\Z", source.text.utf8[: source.text.start(node.returns)])
        edits.append(Edit(arrow.start(), source.text.end(node.returns), "") if arrow is not None else None)
    if not passes_on:
        return fix("Return self", *edits, safe=safe)
    first = int(ast.get_docstring(node, clean=False) is not None)
    if first == len(node.body) or (node.name == "train" and len(own) < 2):
        return None
    mode = own[1] if node.name == "train" else ""
    edits.append(insert_before(source, node.body[first], f"super().{node.name}({mode})"))
    return fix(f"Call super().{node.name}", *edits)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for switch in trace.mode_faults:
        yield TraceViolation(switch.name, f"{switch.kind}: {switch.fault}")
    for site in active_in_eval(trace):
        worst = severity_in_eval(site) or Severity.ERROR
        if site.form is Form.REGISTERED and site.flag_in_eval:
            yield TraceViolation(site, "in training mode after model.eval()", worst)
        elif site.form is Form.REGISTERED and any(visit.training for visit in site.visits_in(Phase.EVAL)):
            yield TraceViolation(site, "set to training mode by the forward, while the model evaluates", worst)


RULE = Rule(
    code="DRP104",
    name="train-override-breaks-contract",
    message="train() does not keep Module.train's contract",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="add `return self`; with unsafe fixes, call `super().train(mode)`",
    fix_is_safe=True,
    examples=(
        Example(
            bad='''
import torch
from torch import nn


class Frozen(nn.Module):
    """Keeps its normalization as it was trained."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def train(self, mode=True):  # DRP104
        super().train(mode)
        self.norm.eval()

    def forward(self, x):
        return self.drop(self.norm(x))


model = Frozen()
model.eval()
model(torch.randn(4, 8))
''',
            good='''
import torch
from torch import nn


class Frozen(nn.Module):
    """Keeps its normalization as it was trained."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.drop(self.norm(x))


model = Frozen()
model.eval()
model(torch.randn(4, 8))
''',
        ),
    ),
)
