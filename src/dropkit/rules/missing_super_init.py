"""A Module that assigns layers without calling `super().__init__()`.

`nn.Module.__init__` makes the tables that layers and parameters are entered in. Without it the first assignment of a
layer raises `AttributeError: cannot assign module before Module.__init__() call`: the class cannot be used at all,
which shows only when somebody builds one. Call `super().__init__()` first.

Silent where something else may make the call: a metaclass (fastai), `__new__`, a decorator, a base not seen here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.facts.definitions import Class, Function
from dropkit.facts.edit import insert_before
from dropkit.facts.finding import Fix, Severity
from dropkit.facts.flow import MOST
from dropkit.facts.module import Module, once
from dropkit.facts.trial import is_trial
from dropkit.rules.rule import Example, Hit, Rule

# Bases that neither call nor replace __init__.
_NEUTRAL = frozenset({"abc.ABC", "object", "typing.Generic", "typing_extensions.Generic"})
# What makes objects in its own way: with these in the lineage, who calls __init__ is not known.
_CONSTRUCTION = frozenset({"__new__", "__init_subclass__", "__setattr__", "__getattribute__", "__post_init__"})


def find(module: Module) -> Iterator[Hit]:
    for owner in module.classes:
        init = owner.methods.get("__init__")
        if init is None or not _assigns_layer(module, owner, init) or not _is_plain_module(module, owner):
            continue
        if (
            not _initialises(module, owner, init)
            and not _an_heir_does(module, owner)
            and not is_trial(module, init.node)
        ):
            yield Hit(init.node, fix=_fix(module, owner, init))


def _assigns_layer(module: Module, owner: Class, init: Function) -> bool:
    return any(
        write.function is init and write.value is not None and not write.derived and _is_layer(module, write.value)
        for writes in owner.writes.values()
        for write in writes
    )


def _is_layer(module: Module, value: ast.expr) -> bool:
    """Whether `value` is a new layer or parameter, which Module.__setattr__ enters in its tables."""
    if not isinstance(value, ast.Call):
        return False
    name = module.called(value) or ""
    if name.startswith("torch.nn."):
        return name.count(".") == 2 and name[len("torch.nn.") :][:1].isupper()
    made = module.local_class(value.func)
    return made is not None and made.is_module


def _is_plain_module(module: Module, owner: Class) -> bool:
    """Whether every class it inherits from is known, torch's in the end, and makes objects in the usual way."""
    init = owner.methods["__init__"].node
    if isinstance(init, ast.Lambda) or init.decorator_list or not owner.is_module:
        return False
    return all(_is_usual(module, one) for one in owner.lineage) and any(
        root.startswith("torch.nn.") for root in owner.roots
    )


@once
def _is_usual(module: Module, owner: Class) -> bool:
    """Whether a class makes objects in the usual way, and its bases are known."""
    node = owner.node
    remade = node.keywords or _CONSTRUCTION & owner.methods.keys() or any(_remakes(one) for one in node.decorator_list)
    return not remade and all(_is_known(module, base) for base in node.bases)


def _is_known(module: Module, base: ast.expr) -> bool:
    if module.local_class(base) is not None:
        return True
    if isinstance(base, ast.Subscript):
        return module.dotted(base.value) in _NEUTRAL
    name = module.dotted(base) or ""
    if isinstance(base, ast.Name) and base.id == "Module" and not _others_initialise(module):
        return False
    return name in _NEUTRAL or (name.startswith("torch.nn.") and name.count(".") == 2)


@once
def _others_initialise(module: Module) -> bool:
    """Whether some class of a bare `Module` here calls `__init__`: fastai's, of the same name, never has to."""
    return any(
        isinstance(base, ast.Name) and base.id == "Module" and one.methods["__init__"] in _init_callers(module)
        for one in module.classes
        if "__init__" in one.methods
        for base in one.node.bases
    )


def _remakes(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else "init"
    return any(
        word in last.lower() for word in ("init", "dataclass", "define", "attr", "module_", "delegates", "store")
    )


def _initialises(module: Module, owner: Class, method: Function) -> bool:
    """Whether `method`, or a method of self that it calls, calls an `__init__` or takes over a whole `__dict__`."""
    reached = {method: None}
    pending = [method]
    while pending:
        one = pending.pop()
        # With so many methods in play it is not known.
        if one in _init_callers(module) or len(reached) > MOST:
            return True
        for name in _own_calls(module, one.owner).get(one, ()) if one.owner is not None else ():
            called = owner.method(name)
            if called is not None and called not in reached:
                reached[called] = None
                pending.append(called)
    return False


@once
def _init_callers(module: Module) -> set[Function]:
    """The methods that call `__init__` of anything, keep it to be called, or touch a `__dict__`."""
    calls = (node for node in module.attributes.get("__init__", []) if not isinstance(module.parent(node), ast.Expr))
    nodes = [*calls, *module.attributes.get("__dict__", [])]
    return {function.method for node in nodes if (function := module.function(node)) is not None}


@once
def _own_calls(module: Module, owner: Class) -> dict[Function, set[str]]:
    """By method of a class, the names of its own that it calls."""
    found: dict[Function, set[str]] = {}
    for name, calls in owner.own_calls.items():
        for call in calls:
            function = module.function(call)
            if function is not None:
                found.setdefault(function.method, set()).add(name)
    return found


def _an_heir_does(module: Module, owner: Class) -> bool:
    """Whether a class below initialises torch's part by name, so that this one need not."""
    return any(heir in _initialising(module) for heir in owner.heirs)


@once
def _initialising(module: Module) -> set[Class | None]:
    """The classes that call `__init__` of torch's by name."""
    calls = module.calls.get("__init__", [])
    return {module.owner(call) for call in calls if (module.called(call) or "").startswith("torch.nn.")}


def _fix(module: Module, owner: Class, init: Function) -> Fix | None:
    node = init.node
    if isinstance(node, ast.Lambda) or init.self_name is None or _base_needs_arguments(owner):
        return None
    body = node.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        first = body[1]
    edit = insert_before(module, first, "super().__init__()")
    return Fix("Call super().__init__()", (edit,), safe=False) if edit is not None else None


def _base_needs_arguments(owner: Class) -> bool:
    """Whether the `__init__` that is called next cannot be called without arguments."""
    if any(root.startswith("torch.nn.") and root != "torch.nn.Module" for root in owner.roots):
        return True
    inherited = next((one.methods["__init__"] for one in owner.lineage[1:] if "__init__" in one.methods), None)
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
    find=find,
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
