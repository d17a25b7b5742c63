"""A Module that assigns layers without calling `super().__init__()`.

Constructing the class raises `AttributeError: cannot assign module before Module.__init__() call`: `nn.Module.__init__`
creates the tables in which layers and parameters are registered. Call `super().__init__()` first.

Classes whose `__init__` may be called by something else are not reported: a metaclass (fastai), `__new__`, a decorator,
a base class from another file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.callees import methods_run
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import fix, insert_before
from dropkit.lint.semantic.expressions import has_docstring, last_name
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, Violation

# Base classes that neither call nor replace __init__.
_NEUTRAL = frozenset({"abc.ABC", "object", "typing.Generic", "typing_extensions.Generic"})
# Methods that change how objects are constructed: with one of them it is unknown who calls __init__.
_CONSTRUCTION = frozenset({"__new__", "__init_subclass__", "__setattr__", "__getattribute__", "__post_init__"})


# Decorators, by words in their names, that may call or replace __init__.
_INITIALISERS = re.compile("init|dataclass|define|attr|module_|delegates|store", re.IGNORECASE)
_TORCH_CLASS = re.compile(r"torch\.nn\.[A-Z]\w*")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        init = owner.methods.get("__init__")
        if (
            init is not None
            and _assigns_layer(source, owner, init)
            and _is_plain_module(source, owner)
            and not _initialises(source, owner, init)
            # A subclass may call `__init__` of torch's class, so that this class need not.
            and _initialising(source).isdisjoint(owner.subclasses)
            and not is_in_test(source, init.node)
        ):
            yield Violation(init.node, fix=_fix(source, owner, init))


def _assigns_layer(source: SourceFile, owner: ClassDefinition, init: FunctionDefinition) -> bool:
    return any(
        write.function is init and not write.derived and _is_layer(source, write.value)
        for writes in owner.writes.values()
        for write in writes
    )


def _is_layer(source: SourceFile, value: ast.expr | None) -> bool:
    """Whether `value` is a new layer or parameter, which Module.__setattr__ registers."""
    if not isinstance(value, ast.Call):
        return False
    class_ = source.local_class(value.func)
    return _TORCH_CLASS.fullmatch(source.called(value) or "") is not None or (class_ is not None and class_.is_module)


def _is_plain_module(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether all base classes are known, lead to torch.nn, and are constructed in the usual way."""
    return (
        not owner.methods["__init__"].decorators
        and owner.is_module
        and any(root.startswith("torch.nn.") for root in owner.external_bases)
        and all(_is_usual(source, class_) for class_ in owner.mro)
    )


@cached_per_file
def _is_usual(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class is constructed in the usual way, and its bases are known."""
    node = owner.node
    return (
        not node.keywords
        and _CONSTRUCTION.isdisjoint(owner.methods)
        and not any(_INITIALISERS.search(last_name(decorator) or "init") for decorator in node.decorator_list)
        and all(_is_known(source, base) for base in node.bases)
    )


def _is_known(source: SourceFile, base: ast.expr) -> bool:
    name = source.dotted(base.value if isinstance(base, ast.Subscript) else base) or ""
    if source.local_class(base) is not None or name in _NEUTRAL:
        return True
    is_fastai = isinstance(base, ast.Name) and base.id == "Module" and not _others_initialise(source)
    return _TORCH_CLASS.fullmatch(name) is not None and not is_fastai


@cached_per_file
def _others_initialise(source: SourceFile) -> bool:
    """Whether a subclass of a bare `Module` in this file calls `__init__`: those of fastai's Module need not."""
    return any(
        class_.methods.get("__init__") in _init_callers(source)
        and any(isinstance(base, ast.Name) and base.id == "Module" for base in class_.node.bases)
        for class_ in source.classes
    )


def _initialises(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether `method`, or a method of self that it calls, calls an `__init__` or sets a `__dict__`."""
    methods = methods_run(source, owner, method)
    # Long call chains count as unknown.
    return len(methods) > MOST or not _init_callers(source).isdisjoint(methods)


@cached_per_file
def _init_callers(source: SourceFile) -> set[FunctionDefinition | None]:
    """The methods that call any `__init__`, pass it on, or use a `__dict__`."""
    calls = (node for node in source.attributes.get("__init__", []) if not isinstance(source.parent(node), ast.Expr))
    nodes = [*calls, *source.attributes.get("__dict__", [])]
    return {function.method for node in nodes if (function := source.function(node)) is not None}


@cached_per_file
def _initialising(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that call `__init__` of a torch class by name."""
    calls = source.calls.get("__init__", [])
    return {source.owner(call) for call in calls if (source.called(call) or "").startswith("torch.nn.")}


def _fix(source: SourceFile, owner: ClassDefinition, init: FunctionDefinition) -> Fix | None:
    if init.self_name is None or _base_needs_arguments(source, owner):
        return None
    first = init.body[has_docstring(init.body)]
    return fix("Call super().__init__()", insert_before(source, first, "super().__init__()"))


def _base_needs_arguments(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether the next `__init__` in the method resolution order needs arguments."""
    if any(root.startswith("torch.nn.") and root != "torch.nn.Module" for root in owner.external_bases):
        return True
    inherited = next((base.methods["__init__"] for base in owner.mro[1:] if "__init__" in base.methods), None)
    parameters = inherited.parameters[1:] if inherited is not None else []
    return any(source.default(parameter) is None for parameter in parameters)


RULE = Rule(
    code="DRP405",
    name="missing-super-init",
    message="layers are assigned, but super().__init__() is not called",
    severity=Severity.ERROR,
    check_source=check_source,
    fix="call `super().__init__()` first",
    examples=(
        Example(
            '''
from torch import nn


class Classifier(nn.Module):
    def __init__(self):  # DRP405
        """Make the layers."""
+        super().__init__()
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
