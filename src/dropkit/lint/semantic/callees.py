"""Find the function that a call runs, in this file or by its name in another, and the calls that run a function."""

from __future__ import annotations

import ast
import builtins

from dropkit.lint.semantic.attribute_usage import is_empty
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import last_part, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import LIBRARIES, class_in, package_of
from dropkit.lint.semantic.syntax_tree import cached_per_file, grouped

# Attributes that are called and are no methods.
_MODELS = ("model", "net", "network", "classifier", "module", "criterion")


def local_function(source: SourceFile, callee: ast.expr) -> FunctionDefinition | None:
    """The function of this file that a plain name stands for."""
    if not isinstance(callee, ast.Name):
        return None
    for binding in reversed(source.bindings(callee)):
        function = source.by_node.get(binding.statement)
        if isinstance(function, FunctionDefinition):
            return function
    return None


@cached_per_file
def call_sites(source: SourceFile, function: FunctionDefinition) -> list[ast.Call]:
    """The calls of a function or method in this file, by its name."""
    calls = source.calls.get(function.name, [])
    if function.owner is None:
        return [call for call in calls if local_function(source, call.func) is function]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and source.called(call) is None
        and _may_be_method(source, call.func, function)
    ]


def _may_be_method(source: SourceFile, callee: ast.Attribute, method: FunctionDefinition) -> bool:
    if self_attribute(callee) is not None:
        owner = source.owner(callee)
        # A base that this file defines calls what its subclasses override.
        return owner is not None and (owner.method(method.name) is method or method.owner in owner.subclasses)
    cls = class_of(source, callee.value)
    return cls is None or cls.method(method.name) is method


def class_of(source: SourceFile, expression: ast.expr) -> ClassDefinition | None:
    """The class of this file that an object is made of."""
    values = source.latest_values(expression)
    classes = {source.local_class(value.func) for value in values[:MOST] if isinstance(value, ast.Call)}
    return classes.pop() if len(classes) == 1 and len(values) == 1 else None


def called_function(source: SourceFile, call: ast.Call) -> FunctionDefinition | None:
    """The function, method or constructor of this file that a call runs; None also for a method to be overridden."""
    callee = call.func
    function = local_function(source, callee)
    if function is not None:
        return function
    made = source.local_class(callee)
    if made is not None:
        return None if made.is_module else made.method("__init__")
    if not isinstance(callee, ast.Attribute):
        return None
    owner = source.owner(callee) if self_attribute(callee) is not None else class_of(source, callee.value)
    method = owner.method(callee.attr) if owner is not None else None
    return None if method is None or is_empty(method.body) else method


def methods_run(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> list[FunctionDefinition]:
    """A method and those of the same object that it calls, itself or through others; of many, more than MOST."""
    methods = [method]
    for caller in methods:
        called = [owner.method(name) for name in _own_calls(source).get(caller, [])]
        methods += [callee for callee in called if callee is not None and callee not in methods]
        if len(methods) > MOST:
            break
    return methods


@cached_per_file
def _own_calls(source: SourceFile) -> dict[FunctionDefinition, list[str]]:
    """By method, the names of the methods of the same object that it calls, other than the constructor."""
    calls = ((call, name) for cls in source.classes for name, calls in cls.own_calls.items() for call in calls)
    callers = ((source.function(call), name) for call, name in calls if name != "__init__")
    return grouped(dict.fromkeys((caller.method, name) for caller, name in callers if caller is not None))


def star_keys(source: SourceFile, callee: ast.expr) -> list[str]:
    """The names of a function that only star imports can bring."""
    if not isinstance(callee, ast.Name) or source.bindings(callee) or hasattr(builtins, callee.id):
        return []
    modules = [module for module in source.stars if package_of(module) not in LIBRARIES]
    return [f"{last_part(module)}.{callee.id}" for module in modules[:MOST]]


@cached_per_file
def method_key(source: SourceFile, call: ast.Call) -> str | None:
    """ "Class.method" for a method that another file may define: of a base, a subclass, or an object of its class."""
    callee = call.func
    if not isinstance(callee, ast.Attribute) or source.called(call) is not None:
        return None
    if self_attribute(callee) is not None:
        owner = source.owner(call)
        is_other = owner is None or owner.is_module or callee.attr in owner.writes or callee.attr in _MODELS
        return None if is_other or owner is None else f"{owner.name}.{callee.attr}"
    name = class_name(source, callee.value)
    return f"{name}.{callee.attr}" if name is not None else None


def class_name(source: SourceFile, expression: ast.expr) -> str | None:
    """The simple name of the project's class that an object is made of; None if it is unknown, or a library's."""
    values = [value for value in source.latest_values(expression) if not isinstance(value, ast.Constant)]
    names = {class_in(source.called(value) or "") for value in values[:MOST]}
    return names.pop() if len(names) == 1 else None
