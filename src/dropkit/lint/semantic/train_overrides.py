"""Methods called `train` or `eval` that stand for Module's, and what they do: whether they reach children, and return.

Methods with another meaning are left out: those that take something other than a mode (`train(self, loader)`), and
those that train, yield or return something else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from dropkit.catalog import MODE_DEPENDENT
from dropkit.diagnostics import Edit, FactCondition
from dropkit.lint.semantic.definitions import FUNCTIONS, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import insert_after, replace
from dropkit.lint.semantic.expressions import given, is_none, last_name, last_part, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary, words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file

_MODE = pattern(r"(?:is |in |set )?(?:mode|train|training|eval|evaluating|is train|is training)(?: mode| flag)?|flag")
# Words in the names of functions that only a training or evaluation procedure calls.
_PROCEDURE_CALLS = Vocabulary(
    r"backward|steps?|zero grad|fit|runs?|runner|loops?|epochs?|batch(?! norm)|batches|validate|validation|evaluate"
    r"|evaluation|learn|optimi[sz]ers?|sgd|adam\w*|loss(?:es)?|criterion|metrics?|training|accuracy|scores?|predict"
)
# Functions that switch the mode of a module, or its gradients.
_SWITCHES = pattern(
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
class Override:
    """A method called `train` or `eval`, with the nodes and calls in it, but in no function or class within it."""

    source: SourceFile
    owner: ClassDefinition
    definition: FunctionDefinition
    node: ast.FunctionDef
    nodes: list[ast.AST]
    calls: list[ast.Call]

    @property
    def passes_on(self) -> bool:
        """Whether it calls Module's method, or another that does."""
        return any(_delegates(self, call) for call in self.calls)

    @property
    def traverses(self) -> bool:
        """Whether it visits the children."""
        return any(isinstance(inner, ast.Attribute) and inner.attr in _TRAVERSALS for inner in self.nodes)

    @property
    def only_switches(self) -> bool:
        """Whether it only switches modes and sets attributes, perhaps under conditions."""
        pending: list[ast.stmt] = list(self.node.body)
        while pending:
            match pending.pop():
                case ast.Pass() | ast.Raise() | ast.Assert() | ast.Continue() | ast.Break():
                    is_plain = True
                case ast.Expr(value=ast.Constant()) | ast.Return(value=None | ast.Constant() | ast.Name()):
                    is_plain = True
                case ast.Return(value=ast.Call() as call) | ast.Expr(value=ast.Call() as call):
                    is_plain = _is_call_of_switch(self, call)
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

    @property
    def returns_none(self) -> bool:
        """Whether it may return None."""
        return bool(self.empty_returns) or _falls_through(self.node.body)

    @property
    def empty_returns(self) -> list[ast.Return]:
        """The statements that return None."""
        return [inner for inner in self.nodes if isinstance(inner, ast.Return) and is_none(inner.value)]

    def is_self(self, value: ast.AST | None) -> bool:
        """Whether an expression is the object of the method."""
        return isinstance(value, ast.Name) and value.id == self.definition.self_name


@cached_per_file
def overrides(source: SourceFile) -> list[Override]:
    """The methods of a file that stand for Module's `train` and `eval`."""
    return list(_overrides(source))


def _overrides(source: SourceFile) -> Iterator[Override]:
    for owner in source.classes:
        for method in (owner.methods.get("train"), owner.methods.get("eval")):
            if method is None or not isinstance(method.node, ast.FunctionDef) or method.self_name is None:
                continue
            nodes = _own_nodes(method.node)
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            override = Override(source, owner, method, method.node, nodes, calls)
            if _can_be_called_like_a_switch(override) and _is_switch(override):
                yield override


def _is_switch(override: Override) -> bool:
    """Whether it switches modes, and has no other purpose."""
    writes = override.owner.writes.get("training", [])
    sets_training = any(write.function is override.definition for write in writes)
    reaches = override.passes_on or override.traverses
    return not _is_procedure(override, reaches) and (override.passes_on or override.only_switches or sets_training)


def unless_no_module(override: Override) -> FactCondition | None:
    """That no other file says that the class is no Module: its base is a trainer, for example."""
    bases = [last_part(base) for base in override.owner.external_bases if not base.startswith("torch.")]
    is_open = len(bases) == len(override.owner.external_bases) == 1
    return FactCondition(refuted_by=(f"no-module:{bases[0]}",)) if is_open else None


def leaves_children(override: Override) -> bool:
    """Whether a child with a mode keeps its mode, while other flags are set, and the call is not passed on.

    A method that sets nothing freezes the module on purpose, and one with loops does more than switch modes.
    """
    if override.passes_on or override.traverses:
        return False
    methods = [call.func for call in override.calls if isinstance(call.func, ast.Attribute)]
    switched = {self_attribute(method.value) for method in methods if method.attr in ("train", "eval")}
    sets = any(isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) for node in override.nodes)
    if any(isinstance(node, (ast.For, ast.While, ast.With)) for node in override.nodes) or not (switched or sets):
        return False
    return any(name not in switched for cls in override.owner.mro for name in _children(override.source, cls))


def return_self(override: Override) -> list[Edit | None]:
    """Edits that return self wherever the method returns None; None for one that cannot be made."""
    source, node = override.source, override.node
    own = [*node.args.posonlyargs, *node.args.args][0].arg
    edits: list[Edit | None] = [replace(source, returned, f"return {own}") for returned in override.empty_returns]
    if _falls_through(node.body):
        edits.append(insert_after(source, node.body[-1], f"return {own}"))
    if edits and node.returns is not None and is_none(node.returns):
        # `-> None` is wrong then; it stays, and nothing is fixed, if a comment stands between.
        arrow = re.search(rb"\s*->\s*\Z", source.text.utf8[: source.text.start(node.returns)])
        edits.append(Edit(arrow.start(), source.text.end(node.returns), "") if arrow is not None else None)
    return edits


def _can_be_called_like_a_switch(override: Override) -> bool:
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
    owners = (override.owner.name, *map(last_part, override.owner.external_bases))
    return fits and (override.owner.is_module or passes_on) and not any(map(_PROCEDURES.has, owners))


def _may_be_mode(override: Override, parameter: ast.arg) -> bool:
    """Whether a parameter may be a mode: by its name, or because it is a bool that is passed to a switch."""
    is_bool = _is_bool(override, parameter)
    switches = (call for call in override.calls if last_name(call) in ("train", "requires_grad_"))
    values = (value for call in switches for value in given(call))
    is_passed_on = any(isinstance(value, ast.Name) and value.id == parameter.arg for value in values)
    if _MODE.fullmatch(words_of(parameter.arg)) is not None:
        # `train` and `eval` may be data, too.
        is_clear = words_of(parameter.arg) not in ("train", "eval") or is_passed_on
        if words_of(parameter.arg) == "eval" and override.node.name == "train":
            return False
        is_untyped = parameter.annotation is None and is_none(override.source.default(parameter))
        return is_bool or (is_untyped and is_clear)
    return is_bool and is_passed_on


def _is_bool(override: Override, parameter: ast.arg) -> bool:
    """Whether a parameter is a bool by its annotation, or else by its default."""
    if parameter.annotation is not None:
        return re.search(r"\bbool\b", override.source.text.of(parameter.annotation)) is not None
    return isinstance(literal(override.source.default(parameter)), bool)


def _is_procedure(override: Override, passes_on: bool) -> bool:
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


def _is_call_of_switch(override: Override, call: ast.Call) -> bool:
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


def _delegates(override: Override, call: ast.Call) -> bool:
    """`super().train(...)`, `self.train(False)`, `nn.Module.train(self, mode)`."""
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    is_of_self = any(override.is_self(value) for value in (receiver, *call.args[:1]))
    return _is_call_of(call, _DELEGATING) and (_is_of_super(call) or is_of_self)


def _is_of_super(call: ast.Call) -> bool:
    """Whether a method of `super()` is called."""
    return isinstance(call.func, ast.Attribute) and _is_call_of(call.func.value, ("super",))


def _is_call_of(node: ast.AST | None, names: Container[str]) -> bool:
    return isinstance(node, ast.Call) and last_name(node) in names


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


@cached_per_file
def _children(source: SourceFile, owner: ClassDefinition) -> list[str]:
    """The attributes that a class sets to dropout, normalisation, containers, or Modules of this file."""
    writes = [write for writes in owner.writes.values() for write in writes if write.function is not None]
    return [write.attribute for write in writes if isinstance(write.value, ast.Call) and _has_mode(source, write.value)]


def _has_mode(source: SourceFile, call: ast.Call) -> bool:
    cls = source.local_class(call.func)
    return source.called(call) in _WITH_MODE or (cls is not None and cls.is_module)
