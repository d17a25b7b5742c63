"""A Module that assigns layers without calling `super().__init__()`.

`nn.Module.__init__` makes the tables that layers and parameters are entered in. Without it the first assignment of a
layer raises `AttributeError: cannot assign module before Module.__init__() call`: the class cannot be used at all,
which shows only when somebody builds one. Call `super().__init__()` first.

Silent where something else may make the call: a metaclass (fastai), `__new__`, a decorator, a base not seen here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import insert_before
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.lint.semantic.test_context import is_trial
from dropkit.rules.rule import Example, Rule, Violation

# Bases that neither call nor replace __init__.
_NEUTRAL = frozenset({"abc.ABC", "object", "typing.Generic", "typing_extensions.Generic"})
# What makes objects in its own way: with these in the mro, who calls __init__ is not known.
_CONSTRUCTION = frozenset({"__new__", "__init_subclass__", "__setattr__", "__getattribute__", "__post_init__"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        init = owner.methods.get("__init__")
        if init is None or not _assigns_layer(source, owner, init) or not _is_plain_module(source, owner):
            continue
        if (
            not _initialises(source, owner, init)
            and not _an_heir_does(source, owner)
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
    """Whether `value` is a new layer or parameter, which Module.__setattr__ enters in its tables."""
    if not isinstance(value, ast.Call):
        return False
    name = source.called(value) or ""
    if name.startswith("torch.nn."):
        return name.count(".") == 2 and name[len("torch.nn.") :][:1].isupper()
    made = source.local_class(value.func)
    return made is not None and made.is_module


def _is_plain_module(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether every class it inherits from is known, torch's in the end, and makes objects in the usual way."""
    init = owner.methods["__init__"].node
    if isinstance(init, ast.Lambda) or init.decorator_list or not owner.is_module:
        return False
    return all(_is_usual(source, one) for one in owner.mro) and any(
        root.startswith("torch.nn.") for root in owner.roots
    )


@cached_per_file
def _is_usual(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class makes objects in the usual way, and its bases are known."""
    node = owner.node
    remade = node.keywords or _CONSTRUCTION & owner.methods.keys() or any(_remakes(one) for one in node.decorator_list)
    return not remade and all(_is_known(source, base) for base in node.bases)


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
    """Whether some class of a bare `Module` here calls `__init__`: fastai's, of the same name, never has to."""
    return any(
        isinstance(base, ast.Name) and base.id == "Module" and one.methods["__init__"] in _init_callers(source)
        for one in source.classes
        if "__init__" in one.methods
        for base in one.node.bases
    )


def _remakes(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else "init"
    return any(
        word in last.lower() for word in ("init", "dataclass", "define", "attr", "module_", "delegates", "store")
    )


def _initialises(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether `method`, or a method of self that it calls, calls an `__init__` or takes over a whole `__dict__`."""
    reached = {method: None}
    pending = [method]
    while pending:
        one = pending.pop()
        # With so many methods in play it is not known.
        if one in _init_callers(source) or len(reached) > MOST:
            return True
        for name in _own_calls(source, one.owner).get(one, ()) if one.owner is not None else ():
            called = owner.method(name)
            if called is not None and called not in reached:
                reached[called] = None
                pending.append(called)
    return False


@cached_per_file
def _init_callers(source: SourceFile) -> set[FunctionDefinition]:
    """The methods that call `__init__` of anything, keep it to be called, or touch a `__dict__`."""
    calls = (node for node in source.attributes.get("__init__", []) if not isinstance(source.parent(node), ast.Expr))
    nodes = [*calls, *source.attributes.get("__dict__", [])]
    return {function.method for node in nodes if (function := source.function(node)) is not None}


@cached_per_file
def _own_calls(source: SourceFile, owner: ClassDefinition) -> dict[FunctionDefinition, set[str]]:
    """By method of a class, the names of its own that it calls."""
    found: dict[FunctionDefinition, set[str]] = {}
    for name, calls in owner.own_calls.items():
        for call in calls:
            function = source.function(call)
            if function is not None:
                found.setdefault(function.method, set()).add(name)
    return found


def _an_heir_does(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class below initialises torch's part by name, so that this one need not."""
    return any(subclass in _initialising(source) for subclass in owner.subclasses)


@cached_per_file
def _initialising(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that call `__init__` of torch's by name."""
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
    """Whether the `__init__` that is called next cannot be called without arguments."""
    if any(root.startswith("torch.nn.") and root != "torch.nn.Module" for root in owner.roots):
        return True
    inherited = next((one.methods["__init__"] for one in owner.mro[1:] if "__init__" in one.methods), None)
    if inherited is None:
        return False
    arguments = inherited.node.args
    without_default = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return without_default > 1 or any(default is None for default in arguments.kw_defaults)


RULE = Rule(
    code="DRP405",
    name="missing-super-init",
    message="layers are assigned, and super().__init__() is not called",
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
