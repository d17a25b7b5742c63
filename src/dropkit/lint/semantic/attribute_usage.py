"""Find out whether a file may read an attribute of a class: in methods, subclasses, other code, or by `getattr`.

A mention in a comment counts as a read: the author of `# x = self.dropout(x)` knows that the layer is not applied.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from dropkit.catalog import FUNCTIONALS, MODE_DEPENDENT, TRANSFORMERS
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import given, last_name, last_part, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.moved_layers import is_only_moved
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.receivers import is_settings_name, may_be, reads_of_objects
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Bases whose forward runs every child in order.
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
# Functions that take `self` and read no layer of it.
_READS_NO_LAYER = frozenset(
    {"super", "isinstance", "issubclass", "hasattr", "setattr", "getattr", "delattr", "type", "id", "__init__", "print"}
)
# Methods that show an object or copy it.
_APPLIES_NOTHING = frozenset(
    {"extra_repr", "__repr__", "__str__", "__format__", "_get_name", "__getstate__", "__setstate__", "__reduce__",
     "__reduce_ex__", "__getnewargs__", "__copy__", "__deepcopy__", "__dir__", "__eq__", "__hash__"}
)  # fmt: skip
_ADMITS = pattern(
    r"unused|not[ _]used|never[ _]used|un-?necessary|no[ _]effect|not[ _]needed|deprecat|legacy|compat"
    r"|ignored|placeholder|dummy|reserved|state.?dict|checkpoint|pre-?trained|not[ _]applied|for[ _]subclass",
    re.IGNORECASE,
)
# A plan to apply it. Other plans, such as a better name, say nothing about dropout.
_PLANNED = pattern(
    r"(?:todo|fixme|xxx)\b.*\b(?:add|apply|use|implement|enable|support|insert|try|need)\w*\W+(?:\w+\W+){0,2}?"
    r"(?:drop\w*|it|this|these|them|here)\b",
    re.IGNORECASE,
)
# A class with more relatives than this counts as unknown, and nothing is reported.
_MAX_RELATIVES = 64
# A string that is a name, but not config["dropout"], kwargs.get("dropout", 0), getattr(config, "dropout").
_QUOTED = pattern(
    r"(?<!\[)(?<!add_module\()(?<!register_module\()(?<!name=)(?<!get\()(?<!pop\()(?<!self, )(?<!, )(?=(['\"])(\w+)\1)"
)
# In comments, a use of `self.x` that does not set it, and calls.
_USED = pattern(r"\bself\s*\.\s*(\w+)\b(?!\s*(?::|=[^=]))")
_COMMENT = pattern(r"#[^\n]*")
_CALLED = pattern(r"\b(\w+)\(")


def classes_using(source: SourceFile, calls: Iterable[ast.Call]) -> set[ClassDefinition]:
    """The classes whose methods make one of `calls`, that create an object of such a class, or inherit from one."""
    users = dict.fromkeys(owner for call in calls if (owner := source.owner(call)) is not None)
    pending = list(users)
    for cls in pending:
        makers = [source.owner(call) for call in source.calls.get(cls.name, [])]
        for user in (*makers, *cls.subclasses):
            if user is not None and user not in users:
                users[user] = None
                pending.append(user)
    return set(users)


@cached_per_file
def mode_dependent_modules(source: SourceFile) -> set[ClassDefinition]:
    """The Modules of this file that use dropout or batch normalisation, themselves or in the layers they make."""
    users = classes_using(source, source.calls_of(*MODE_DEPENDENT, *TRANSFORMERS, *FUNCTIONALS))
    return {cls for cls in users if cls.is_module}


@cached_per_file
def is_set_from_outside(source: SourceFile, attribute: str) -> bool:
    """Whether this file sets an attribute of this name other than through self: `model.blocks = ...`."""
    nodes = source.attributes.get(attribute, [])
    return any(self_attribute(node) is None and isinstance(node.ctx, ast.Store) for node in nodes)


def may_be_read(source: SourceFile, owner: ClassDefinition, attribute: str, *, as_layer: bool) -> bool:
    """Whether this file may apply `attribute` of an `owner`, or use it if it is a rate (not `as_layer`)."""
    relatives = _relatives(source, owner)
    reads = reads_of_objects(source, attribute, as_layer)
    return (
        relatives is None
        or reads is None
        or any(
            is_used(source, cls, attribute)
            or cls.name in reads.classes
            or attribute in _names_in_text(source, cls)
            or _reads_any(source, cls)
            or any(may_be(source, read, cls) for read in reads.unknown)
            for cls in relatives
        )
        or _is_read_by_getattr(source, attribute)
    )


def is_used(source: SourceFile, owner: ClassDefinition, attribute: str) -> bool:
    """Whether methods of a class read `attribute` of self, other than to show it, to move it or to add to it."""
    reads = owner.reads.get(attribute, [])
    return len(reads) > MOST or not all(
        _only_prints(source, read) or adds_to(source, read) or is_only_moved(source, read) for read in reads
    )


def _only_prints(source: SourceFile, read: ast.AST) -> bool:
    """Whether `read` is in a method that shows an object, or copies it."""
    function = source.function(read)
    return function is not None and function.method.name in _APPLIES_NOTHING


def adds_to(source: SourceFile, read: ast.AST) -> ast.expr | None:
    """The layer that `list.append(layer)` adds, where `read` is the list and nothing else happens."""
    match source.parent(read):
        case ast.Attribute(attr="append") as method if isinstance(call := source.parent(method), ast.Call):
            return call.args[0] if isinstance(source.parent(call), ast.Expr) and len(call.args) == 1 else None
        case _:
            return None


@cached_per_file
def _relatives(_: SourceFile, owner: ClassDefinition) -> list[ClassDefinition] | None:
    """The class, its subclasses in this file, and whatever these inherit from; None if they are too many."""
    if len(owner.subclasses) > _MAX_RELATIVES:
        return None
    return list(dict.fromkeys(ancestor for cls in (owner, *owner.subclasses) for ancestor in cls.mro))


def is_container(owner: ClassDefinition) -> bool:
    """Whether a class inherits from a container, which runs or returns its children without naming them."""
    return any(last_part(base).endswith(_CONTAINERS) for base in owner.external_bases)


def is_abstract(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class has no `forward`, one that only raises, or abstract methods."""
    forward = owner.method("forward")
    return (
        forward is None
        or any(_has_abstract(source, cls) for cls in owner.mro)
        or is_empty(forward.body)
        or is_template(forward)
    )


def is_template(method: FunctionDefinition) -> bool:
    """Whether a method ends in `raise NotImplementedError`: subclasses are to write it."""
    match method.body[-1:]:
        case [ast.Raise(exc=ast.expr() as error)]:
            return last_name(error) == "NotImplementedError"
        case _:
            return False


@cached_per_file
def _has_abstract(source: SourceFile, owner: ClassDefinition) -> bool:
    decorators = [decorator for method in owner.methods.values() for decorator in method.decorators]
    return any("abstract" in source.text.of(decorator) for decorator in decorators)


def is_empty(body: list[ast.stmt]) -> bool:
    """Whether a body only has a docstring, passes, calls super().__init__() or raises."""
    return all(map(_does_nothing, body))


def _does_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Raise() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call() as call):
            return last_name(call) == "__init__"
        case _:
            return False


@cached_per_file
def classes_calling_super(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that call a method of their base through `super()`, other than `__init__`, `train` and `eval`."""
    return {
        source.owner(call)
        for call in source.calls.get("super", [])
        if isinstance(parent := source.parent(call), ast.Attribute) and parent.attr not in ("__init__", "train", "eval")
    }


def is_admitted(source: SourceFile, node: ast.AST) -> bool:
    """Whether a comment beside `node`, or on the line above, says that it is unused, or why it is kept."""
    first, last = source.text.span(node).line, source.text.span(node).end_line
    for number in range(max(1, first - 1), last + 1):
        text = source.text.line(number)
        code, mark, comment = text.partition("#")
        if mark and (number >= first or not code.strip()) and (_ADMITS.search(comment) or plans_dropout(comment)):
            return True
    return False


def plans_dropout(comment: str) -> bool:
    """Whether a comment says that dropout is still to be applied.

    Example:
        >>> [plans_dropout(comment) for comment in ("TODO: apply dropout", "TODO: use it", "TODO: tune the rate")]
        [True, True, False]
    """
    return _PLANNED.search(comment) is not None


@cached_per_file
def _reads_any(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class iterates over its children, or passes itself to a function that may."""
    calls = [call for name in ("children", "named_children", "__getattr__") for call in owner.own_calls.get(name, [])]
    reads = [read for name in ("_modules", "__dict__", "__getattribute__") for read in owner.reads.get(name, [])]
    if not all(_only_prints(source, node) for node in (*calls, *reads)):
        return True
    walks = [call for name in ("modules", "named_modules") for call in owner.own_calls.get(name, [])]
    functions = [function for call in walks if (function := source.function(call)) is not None]
    return any("forward" in function.method.name for function in functions) or owner in _passing_self(source)


@cached_per_file
def _passing_self(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that pass `self` to a function that may read any attribute of it."""
    return {
        source.owner(call)
        for calls in source.calls.values()
        for call in calls
        if _passes_self(source, call) and not _only_prints(source, call)
    }


def _passes_self(source: SourceFile, call: ast.Call) -> bool:
    if not any(isinstance(value, ast.Name) and value.id == "self" for value in given(call)):
        return False
    last = last_name(call)
    if last == "getattr" and len(call.args) > 1:
        return not all(value is not None and _beginning(value) for value in _values(source, call.args[1]))
    return last not in _READS_NO_LAYER


def _values(source: SourceFile, expression: ast.expr) -> list[ast.expr | None]:
    """What an expression may be: all that a local name is set to, or itself."""
    return (source.values(expression) or [None]) if isinstance(expression, ast.Name) else [expression]


def _beginning(name: ast.expr) -> str:
    """The text that a computed name certainly begins with: "conv" of `f"conv{i}"`; empty if none is known."""
    match name:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return _beginning(first)
        case ast.BinOp(left=left, op=operator):
            return _beginning(left).partition("%")[0] if isinstance(operator, ast.Mod) else _beginning(left)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            return text.partition("{")[0]
        case _:
            return ""


@cached_per_file
def _names_in_text(source: SourceFile, owner: ClassDefinition) -> set[str]:
    """The names in strings of a class, and the attributes and calls in its comments."""
    text = _without_docstrings(source, owner)
    names = {match[2] for match in _QUOTED.finditer(text)}
    for comment in _COMMENT.finditer(text):
        names.update(match[1] for pattern in (_CALLED, _USED) for match in pattern.finditer(comment[0]))
    return names


def _without_docstrings(source: SourceFile, owner: ClassDefinition) -> str:
    """The source of a class; what its docstrings promise is not applied for that."""
    text = source.text.of(owner.node)
    for statement in (owner.node.body[0], *(method.body[0] for method in owner.methods.values())):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            text = text.replace(source.text.of(statement), "", 1)
    return text


def _is_read_by_getattr(source: SourceFile, attribute: str) -> bool:
    """Whether a `getattr` in the file may read this name."""
    names, beginnings = _getattr_names(source)
    return attribute in names or any(attribute[:length] in beginnings for length in range(1, len(attribute) + 1))


@cached_per_file
def _getattr_names(source: SourceFile) -> tuple[set[str], set[str]]:
    """The names that `getattr` reads, except from settings: whole names, and beginnings of composed ones."""
    names: set[str] = set()
    beginnings: set[str] = set()
    for call in source.calls.get("getattr", []):
        if len(call.args) < 2 or is_settings_name(last_part(source.text.of(call.args[0]))):
            continue
        for value in _values(source, call.args[1]):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                names.add(value.value)
            elif value is not None and (start := _beginning(value) or _any_text(value)):
                beginnings.add(start)
    return names, beginnings


def _any_text(name: ast.expr) -> str:
    """The first text in a composed name, up to where something is filled in."""
    texts = (node.value for node in ast.walk(name) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return re.split(r"[{%]", next(texts, ""), maxsplit=1)[0]
