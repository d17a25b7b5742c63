"""A `train` method that does not do, or return, what Module.train does.

`Module.train(mode)` sets the mode of the module and of all its children and returns the module; `eval()` calls it.
An override that does not pass the call on leaves children in the mode they were in: their dropout stays on after
`model.eval()`. One that returns nothing makes `model = Model().eval()` None, far from the line at fault.

Call `super().train(mode)` and `return self`. A method of another meaning is not judged: one that takes something else
than a mode (`train(self, loader)`, `train(self, resume=False)`), trains, yields or returns something else; nor one that
only returns self: it keeps a frozen model as it is. The fix is safe where the method does nothing but switch modes and
set attributes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace as replaced

from dropkit.catalog import MODE_DEPENDENT
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import insert_after, insert_before, replace
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary, spoken
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, active_in_eval, severity_in_eval
from dropkit.trace import Form, Phase, Trace

_MODE = re.compile(
    r"(?:is |in |set )?(?:mode|train|training|eval|evaluating|is train|is training)(?: mode| flag)?|flag"
)
# What only a training or evaluation procedure does, by the words of what it calls.
_WORKS = Vocabulary(
    r"backward|steps?|zero grad|fit|runs?|runner|loops?|epochs?|batch(?! norm)|batches|validate|validation|evaluate"
    r"|evaluation|learn|optimi[sz]ers?|sgd|adam\w*|loss(?:es)?|criterion|metrics?|training|accuracy|scores?|predict"
)
# What switches the mode of a module, or its gradients.
_SWITCHES = re.compile(
    r"train|eval|requires grad|(?:set|switch|toggle) (?:mode|train|training|eval)(?: mode)?|(?:un)?freeze(?: \w+)*"
)
_PROCEDURES = Vocabulary(r"\w*trainer|runner|engine|agent|solver|algo|algorithm|evaluator|env")
# Calls that do nothing but answer.
_ASKS = frozenset(
    {"isinstance", "issubclass", "hasattr", "getattr", "callable", "bool", "len", "any", "all", "type", "super",
     "startswith", "endswith", "enumerate", "zip", "list", "tuple", "reversed", "chain", "values", "items", "keys",
     "get", "parameters", "named_parameters", "children", "modules", "named_children", "named_modules",
     "get_submodule"}
)  # fmt: skip
_OTHER_RESULTS = frozenset(
    {"int", "float", "bool", "str", "dict", "list", "tuple", "set", "Dict", "List", "Tuple", "Iterator", "Iterable",
     "Generator", "Tensor", "Mapping", "Sequence", "Optional", "Union", "DataFrame", "ndarray"}
)  # fmt: skip
_WALKS = frozenset({"children", "modules", "named_children", "named_modules", "_modules", "apply"})
_UNJUDGED = frozenset({"overload", "abstractmethod", "property", "cached_property", "contextmanager"})
_CONTAINERS = frozenset("torch.nn." + name for name in ("Sequential", "ModuleList", "ModuleDict", "Transformer"))


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        for name in ("train", "eval"):
            method = owner.methods.get(name)
            if method is not None and isinstance(method.node, ast.FunctionDef) and _overrides(owner, method):
                yield from _judge(source, owner, method, method.node)


def _judge(
    source: SourceFile, owner: ClassDefinition, method: FunctionDefinition, node: ast.FunctionDef
) -> Iterator[Violation]:
    inside = _own_nodes(node)
    delegates = any(_delegates(one, method) for one in inside)
    walks = any(isinstance(one, ast.Attribute) and one.attr in _WALKS for one in inside)
    if _is_procedure(node, method, inside, delegates or walks):
        return
    switches_only = _only_switches(node.body, method)
    if not (delegates or switches_only or any(_sets_training(one, method) for one in inside)):
        return
    empty = [one for one in inside if isinstance(one, ast.Return) and _is_none(one.value)]
    silent = bool(empty) or _falls_through(node.body)
    place = source.text.head(node)
    if not delegates and not walks and _leaves_children(source, owner, inside):
        message = f"{node.name}() does not reach the children of the module"
        yield Violation(place, message, _fix(source, owner, node, empty, silent, passes_on=True), Severity.ERROR)
    elif silent and (delegates or walks or (node.name == "train" and not _is_stub(node))):
        message = f"{node.name}() does not return self"
        fix = _fix(source, owner, node, empty, silent, passes_on=False)
        # What does more than to switch may return nothing for a reason.
        yield Violation(place, message, replaced(fix, safe=fix.safe and switches_only) if fix is not None else None)


def _only_switches(body: Sequence[ast.stmt], method: FunctionDefinition) -> bool:
    """Whether statements do nothing but to switch modes and set attributes, perhaps under conditions."""
    pending = list(body)
    while pending:
        match pending.pop():
            case (
                ast.Pass() | ast.Raise() | ast.Assert() | ast.Continue() | ast.Break() | ast.Expr(value=ast.Constant())
            ):
                continue
            case ast.Return(value=None | ast.Constant() | ast.Name()):
                continue
            case ast.Return(value=ast.Call() as call) | ast.Expr(value=ast.Call() as call):
                plain = _is_call_of_switch(call, method)
            case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.AugAssign(value=value):
                plain = value is None or _only_asks(value)
            case ast.If(test=head, body=then, orelse=orelse) | ast.For(iter=head, body=then, orelse=orelse):
                pending += [*then, *orelse]
                plain = _only_asks(head)
            case _:
                return False
        if not plain:
            return False
    return True


def _is_call_of_switch(node: ast.Call, method: FunctionDefinition) -> bool:
    """`super().train(mode)`, `self.norm.eval()`, `weight.requires_grad_(False)`, `setattr(self, name, mode)`."""
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    last = _last(node.func) or ""
    if _delegates(node, method) or last in ("setattr", "apply"):
        return all(map(_only_asks, given))
    receiver = _last(node.func.value) if isinstance(node.func, ast.Attribute) else None
    return (
        _SWITCHES.fullmatch(spoken(last)) is not None
        and not _PROCEDURES.has(receiver or "")
        and all(isinstance(one, (ast.Constant, ast.Name, ast.UnaryOp, ast.BoolOp, ast.Compare)) for one in given)
        and _only_asks(node.func)
        and all(map(_only_asks, given))
    )


def _only_asks(expression: ast.expr) -> bool:
    """Whether to evaluate an expression changes nothing, as far as the names of what it calls tell."""
    calls = (one for one in ast.walk(expression) if isinstance(one, ast.Call))
    return all(_last(call.func) in _ASKS for call in calls)


def _sets_training(node: ast.AST, method: FunctionDefinition) -> bool:
    """`self.training = mode`."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "training"
        and isinstance(node.ctx, ast.Store)
        and _is_self(node.value, method)
    )


def _is_procedure(node: ast.FunctionDef, method: FunctionDefinition, inside: list[ast.AST], passes_on: bool) -> bool:
    """Whether it is another thing under the same name: a generator, a training, or what returns something else."""
    returned = (one.value for one in inside if isinstance(one, ast.Return) and not _is_none(one.value))
    if any(not (_is_self(value, method) or _is_switch(value)) for value in returned):
        return True
    if node.returns is not None and _last(_bare(node.returns)) in _OTHER_RESULTS:
        return True
    loops = any(isinstance(one, (ast.For, ast.AsyncFor, ast.While)) for one in inside)
    switches = passes_on or any(isinstance(one, ast.Call) and _last(one.func) in ("train", "eval") for one in inside)
    return (loops and not switches) or any(
        isinstance(one, (ast.Yield, ast.YieldFrom, ast.Await))
        or (isinstance(one, ast.Call) and _works(_last(one.func) or ""))
        for one in inside
    )


def _works(called: str) -> bool:
    return _WORKS.has(called) and _SWITCHES.fullmatch(spoken(called)) is None


def _is_self(value: ast.expr | None, method: FunctionDefinition) -> bool:
    return isinstance(value, ast.Name) and value.id == method.self_name


def _is_switch(value: ast.expr | None) -> bool:
    """`super().train(mode)`, `self.eval()`: what may return the module."""
    return isinstance(value, ast.Call) and _last(value.func) in ("train", "eval", "requires_grad_", "apply")


def _bare(annotation: ast.expr) -> ast.expr:
    return annotation.value if isinstance(annotation, ast.Subscript) else annotation


def _overrides(owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether it can be called as Module's is, in a class that is a Module or passes the call on to one."""
    node, own = method.node, method.self_name
    if own is None or isinstance(node, ast.Lambda) or any(_last(one) in _UNJUDGED for one in node.decorator_list):
        return False
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    optional = len(positional) - len(arguments.defaults)
    if any(default is None for default in arguments.kw_defaults) or len(method.names.get(own, [])) > 1:
        return False
    inside = _own_nodes(node)
    passes_on = any(_is_super(one, method) for one in inside)
    if any(not _is_bool(owner, one) for one in (*positional[1:], *arguments.kwonlyargs)):
        return False
    if method.name == "eval":
        fits = optional <= 0 and all(_may_be_mode(owner, one, inside) for one in positional)
    elif positional:
        fits = optional <= 1 and _may_be_mode(owner, positional[0], inside)
    else:
        fits = passes_on or (arguments.vararg is not None and arguments.vararg.arg in ("args", "arg", "_"))
    return fits and (owner.is_module or passes_on)


def _may_be_mode(owner: ClassDefinition, parameter: ast.arg, inside: Sequence[ast.AST]) -> bool:
    """Whether a parameter may be a mode: by its name, or a bool that is given to what switches one."""
    value = owner.source.default(parameter)
    if _MODE.fullmatch(spoken(parameter.arg)) is not None:
        may_be = value is None or (
            isinstance(value, ast.Constant) and (value.value is None or _is_bool(owner, parameter))
        )
        return may_be and (parameter.annotation is None or _is_bool(owner, parameter))
    given = (
        one.id
        for call in inside
        if isinstance(call, ast.Call) and _last(call.func) in ("train", "requires_grad_")
        for one in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(one, ast.Name)
    )
    return _is_bool(owner, parameter) and parameter.arg in given


def _is_bool(owner: ClassDefinition, parameter: ast.arg) -> bool:
    """Whether a parameter is a bool by its annotation, or else by its default."""
    if parameter.annotation is not None:
        return re.search(r"\bbool\b", owner.source.text.of(parameter.annotation)) is not None
    value = owner.source.default(parameter)
    return isinstance(value, ast.Constant) and isinstance(value.value, bool)


def _own_nodes(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.AST]:
    """All that is in a function, less what is in functions and classes defined there."""
    found: list[ast.AST] = []
    stack: list[ast.AST] = list(node.body)
    while stack:
        one = stack.pop()
        found.append(one)
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(one))
    return found


def _is_super(node: ast.AST, method: FunctionDefinition) -> bool:
    """`super().train(...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == method.name
        and isinstance(node.func.value, ast.Call)
        and _last(node.func.value.func) == "super"
    )


def _delegates(node: ast.AST, method: FunctionDefinition) -> bool:
    """`super().train(...)`, `self.train(False)`, `nn.Module.train(self, mode)`."""
    if not isinstance(node, ast.Call) or _last(node.func) not in ("train", "eval", "__getattr__", "__getattribute__"):
        return False
    base = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(base, ast.Call) and _last(base.func) == "super":
        return True
    given = {one.id for one in (base, *node.args[:1]) if isinstance(one, ast.Name)}
    return method.self_name in given


def _leaves_children(source: SourceFile, owner: ClassDefinition, inside: list[ast.AST]) -> bool:
    """Whether a child whose mode matters is left alone, while flags are set: to do nothing is to be frozen.

    With loops and the like it is another thing under the same name: a whole training or evaluation.
    """
    switched = {
        self_attribute(one.func.value)
        for one in inside
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in ("train", "eval")
    }
    sets = any(isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) for one in inside)
    works = any(isinstance(one, (ast.For, ast.While, ast.With)) for one in inside)
    if works or not (switched or sets):
        return False
    return any(name not in switched for one in owner.mro for name in _children(source, one))


@cached_per_file
def _children(source: SourceFile, owner: ClassDefinition) -> list[str]:
    """Attributes that a class sets to dropout, normalization, containers, or Modules of this file."""
    return [
        name
        for name, writes in owner.writes.items()
        if any(
            isinstance(write.value, ast.Call) and write.function is not None and _has_a_mode(source, write.value)
            for write in writes
        )
    ]


def _has_a_mode(source: SourceFile, call: ast.Call) -> bool:
    name = source.called(call)
    made = source.local_class(call.func)
    return name in MODE_DEPENDENT or name in _CONTAINERS or (made is not None and made.is_module)


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


def _is_stub(node: ast.FunctionDef) -> bool:
    """A docstring, `...` or nothing but `pass`."""
    return all(
        isinstance(one, ast.Pass) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in node.body
    )


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _last(node: ast.expr) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _without_annotation(source: SourceFile, returns: ast.expr) -> Edit | None:
    """Take `-> None` out, which is then no longer so; None where something stands between."""
    arrow = re.search(rb"\s*->\s*\Z", source.text.utf8[: source.text.start(returns)])
    return Edit(arrow.start(), source.text.end(returns), "") if arrow is not None else None


def _fix(
    source: SourceFile,
    owner: ClassDefinition,
    node: ast.FunctionDef,
    empty: Sequence[ast.AST],
    silent: bool,
    passes_on: bool,
) -> Fix | None:
    """Return self wherever nothing is returned; with `passes_on`, call super first, which changes training."""
    own = [*node.args.posonlyargs, *node.args.args]
    edits: list[Edit | None] = [replace(source, one, f"return {own[0].arg}") for one in empty] if silent else []
    if silent and _falls_through(node.body):
        edits.append(insert_after(source, node.body[-1], f"return {own[0].arg}"))
    if silent and isinstance(node.returns, ast.Constant) and node.returns.value is None:
        edits.append(_without_annotation(source, node.returns))
    if passes_on:
        documented = ast.get_docstring(node, clean=False) is not None
        if (documented and len(node.body) < 2) or (node.name == "train" and len(own) < 2):
            return None
        mode = own[1].arg if node.name == "train" else ""
        edits.append(insert_before(source, node.body[documented], f"super().{node.name}({mode})"))
    known = [one for one in edits if one is not None]
    if len(known) < len(edits):
        return None
    # Of a class that is not known to be a Module, the base may mean something else by the name.
    safe = not passes_on and owner.is_module
    return Fix(f"Call super().{node.name}" if passes_on else "Return self", tuple(known), safe=safe)


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
