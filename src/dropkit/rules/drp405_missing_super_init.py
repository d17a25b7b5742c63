"""A Module that assigns layers without calling `super().__init__()`.

Constructing the class raises `AttributeError: cannot assign module before Module.__init__() call`: `nn.Module.__init__`
creates the tables in which layers and parameters are registered. Call `super().__init__()` first.

Classes whose `__init__` may be called by something else are not reported: a metaclass (fastai), `__new__`, a decorator,
a base class from another file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import insert_before
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.test_context import is_trial
from dropkit.rules.rule import Example, Rule, Violation

# Base classes that neither call nor replace __init__.
_NEUTRAL = frozenset({"abc.ABC", "object", "typing.Generic", "typing_extensions.Generic"})
# Methods that change how objects are constructed: with one of them it is unknown who calls __init__.
_CONSTRUCTION = frozenset({"__new__", "__init_subclass__", "__setattr__", "__getattribute__", "__post_init__"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        init = owner.methods.get("__init__")
        if init is None or not _assigns_layer(source, owner, init) or not _is_plain_module(source, owner):
            continue
        if (
            not _initialises(source, owner, init)
            and not _subclass_initialises(source, owner)
            and not is_trial(source, init.node)
        ):
            yield Violation(init.node, fix=_fix(source, owner, init))


def _assigns_layer(source: SourceFile, owner: ClassDefinition, init: FunctionDefinition) -> bool:
    return any(
        write.function is init and write.value is not None and not write.derived and _is_layer(source, write.value)
        for writes in owner.writes.values()
        for write in writes
    )


def _is_layer(source: SourceFile, value: ast.expr) -> bool:
    """Whether `value` is a new layer or parameter, which Module.__setattr__ registers."""
    if not isinstance(value, ast.Call):
        return False
    name = source.called(value) or ""
    if name.startswith("torch.nn."):
        return name.count(".") == 2 and name[len("torch.nn.") :][:1].isupper()
    class_ = source.local_class(value.func)
    return class_ is not None and class_.is_module


def _is_plain_module(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether all base classes are known, lead to torch.nn, and are constructed in the usual way."""
    init = owner.methods["__init__"].node
    if isinstance(init, ast.Lambda) or init.decorator_list or not owner.is_module:
        return False
    return all(_is_usual(source, class_) for class_ in owner.mro) and any(
        root.startswith("torch.nn.") for root in owner.roots
    )


@cached_per_file
def _is_usual(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class is constructed in the usual way, and its bases are known."""
    node = owner.node
    is_unusual = node.keywords or _CONSTRUCTION & owner.methods.keys() or any(map(_may_initialise, node.decorator_list))
    return not is_unusual and all(_is_known(source, base) for base in node.bases)


def _is_known(source: SourceFile, base: ast.expr) -> bool:
    if source.local_class(base) is not None:
        return True
    if isinstance(base, ast.Subscript):
        return source.dotted(base.value) in _NEUTRAL
    name = source.dotted(base) or ""
    if isinstance(base, ast.Name) and base.id == "Module" and not _others_initialise(source):
        return False
    return name in _NEUTRAL or (name.startswith("torch.nn.") and name.count(".") == 2)


@cached_per_file
def _others_initialise(source: SourceFile) -> bool:
    """Whether a subclass of a bare `Module` in this file calls `__init__`: those of fastai's Module need not."""
    return any(
        isinstance(base, ast.Name) and base.id == "Module" and class_.methods["__init__"] in _init_callers(source)
        for class_ in source.classes
        if "__init__" in class_.methods
        for base in class_.node.bases
    )


def _may_initialise(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else "init"
    return any(
        word in last.lower() for word in ("init", "dataclass", "define", "attr", "module_", "delegates", "store")
    )


def _initialises(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether `method`, or a method of self that it calls, calls an `__init__` or sets a `__dict__`."""
    reached = {method: None}
    pending = [method]
    while pending:
        caller = pending.pop()
        # Long call chains count as unknown.
        if caller in _init_callers(source) or len(reached) > MOST:
            return True
        for name in _own_calls(source, caller.owner).get(caller, ()) if caller.owner is not None else ():
            called = owner.method(name)
            if called is not None and called not in reached:
                reached[called] = None
                pending.append(called)
    return False


@cached_per_file
def _init_callers(source: SourceFile) -> set[FunctionDefinition]:
    """The methods that call any `__init__`, pass it on, or use a `__dict__`."""
    calls = (node for node in source.attributes.get("__init__", []) if not isinstance(source.parent(node), ast.Expr))
    nodes = [*calls, *source.attributes.get("__dict__", [])]
    return {function.method for node in nodes if (function := source.function(node)) is not None}


@cached_per_file
def _own_calls(source: SourceFile, owner: ClassDefinition) -> dict[FunctionDefinition, set[str]]:
    """For each method of a class, the names of the own methods that it calls."""
    names: dict[FunctionDefinition, set[str]] = {}
    for name, calls in owner.own_calls.items():
        for call in calls:
            function = source.function(call)
            if function is not None:
                names.setdefault(function.method, set()).add(name)
    return names


def _subclass_initialises(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a subclass calls `__init__` of torch's class by name, so that this class need not."""
    return any(subclass in _initialising(source) for subclass in owner.subclasses)


@cached_per_file
def _initialising(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that call `__init__` of a torch class by name."""
    calls = source.calls.get("__init__", [])
    return {source.owner(call) for call in calls if (source.called(call) or "").startswith("torch.nn.")}


def _fix(source: SourceFile, owner: ClassDefinition, init: FunctionDefinition) -> Fix | None:
    node = init.node
    if isinstance(node, ast.Lambda) or init.self_name is None or _base_needs_arguments(owner):
        return None
    body = node.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        first = body[1]
    edit = insert_before(source, first, "super().__init__()")
    return Fix("Call super().__init__()", (edit,), safe=False) if edit is not None else None


def _base_needs_arguments(owner: ClassDefinition) -> bool:
    """Whether the next `__init__` in the method resolution order needs arguments."""
    if any(root.startswith("torch.nn.") and root != "torch.nn.Module" for root in owner.roots):
        return True
    inherited = next((base.methods["__init__"] for base in owner.mro[1:] if "__init__" in base.methods), None)
    if inherited is None:
        return False
    arguments = inherited.node.args
    without_default = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return without_default > 1 or any(default is None for default in arguments.kw_defaults)


RULE = Rule(
    code="DRP405",
    name="missing-super-init",
    message="layers are assigned, but super().__init__() is not called",
    severity=Severity.ERROR,
    check_source=check_source,
    fix="call `super().__init__()` first",
    examples=(
        Example(
            bad='''
from torch import nn


class Classifier(nn.Module):
    def __init__(self):  # DRP405
        """Make the layers."""
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(8, 2)


try:
    Classifier()
except AttributeError as error:
    print(error)
''',
            good='''
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        """Make the layers."""
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(8, 2)


try:
    Classifier()
except AttributeError as error:
    print(error)
''',
            unseen="the model cannot be built",
        ),
    ),
)
