"""Facts that one file states for the rest of its project: what its classes are, and what its functions do to modes.

A fact is "kind:name". Each comes with the facts of other files from which it follows; most follow from none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

from dropkit.lint.semantic.alternatives import alternative_classes
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.built_models import fact_of_reference, is_built_in_eval, layer_facts, made_by, mode_facts
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.handed_models import facts_of_handed
from dropkit.lint.semantic.mode_effects import Mode, effect_of, learning_facts, must_be_defined
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import function_key, own_key, own_module
from dropkit.lint.semantic.passed_rates import facts_of_passed_rates
from dropkit.lint.semantic.settings_fields import facts_about_settings


def facts_of(source: SourceFile) -> list[list[str]]:
    """The facts of a file, each followed by the facts that it depends on."""
    return sorted([list(clause) for clause in dict.fromkeys(_clauses(source))])


def _clauses(source: SourceFile) -> Iterator[tuple[str, ...]]:
    for cls in source.classes:
        if sets_mode(cls):
            yield (f"sets-mode:{cls.name}",)
            yield ("sets-mode:training.setter",)
    for name in alternative_classes(source):
        yield (f"alternative:{name}",)
    for cls in mode_dependent_modules(source):
        yield (f"has-mode:{cls.name}",)
        yield from ((f"has-mode:{group}.*",) for group in _groups(source, cls.node))
    for cls in source.classes:
        yield from ((f"has-mode:{cls.name}", *facts) for facts in layer_facts(source, cls))
    for function in source.functions:
        if function.within is None and not isinstance(function.node, ast.Lambda):
            yield from _about_function(source, function)
            if function.returns and not (function.owner is not None and function.owner.is_module):
                yield from _about_factory(source, function)
    yield from _registries(source)
    yield from facts_of_handed(source)
    yield from facts_about_settings(source)
    yield from facts_of_passed_rates(source)
    if source.path.endswith("__init__.py"):
        yield from _exports(source)


def _about_function(source: SourceFile, function: FunctionDefinition) -> Iterator[tuple[str, ...]]:
    """What a function does to the modes of models."""
    key, effect = function_key(source, function), effect_of(source, function)
    # A class switches modes if any of its methods does.
    switches = [f"switches:{key}", *([f"switches:{function.owner.name}"] if function.owner is not None else [])]
    if effect.mode in (Mode.EVAL, Mode.UNKNOWN):
        yield from ((fact,) for fact in switches)
    else:
        yield from ((fact, f"switches:{called}") for fact in switches for called in effect.called)
    if must_be_defined(key):
        yield (f"defines:{key}",)
    if (learning := learning_facts(effect)) is not None:
        yield (f"learns:{key}", *learning)


def _about_factory(source: SourceFile, function: FunctionDefinition) -> Iterator[tuple[str, ...]]:
    """Whether what a function returns depends on the mode."""
    key = function_key(source, function)
    for made in made_by(source, function):
        facts = mode_facts(source, [made])
        if facts is not None:
            yield (f"has-mode:{key}", *facts)
            yield from ((f"has-mode:{group}.*", *facts) for group in _groups(source, function.node))
        if is_built_in_eval(source, [made]):
            yield (f"switches:{key}",)


def _groups(source: SourceFile, node: ast.AST) -> set[str]:
    """Where the project looks for a class or a function: its file, its folder, and the registries that decorate it."""
    decorators = node.decorator_list if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else []
    calls = (decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in decorators)
    named = {part for call in calls for part in (source.dotted(call) or "").split(".")[:-1] if part}
    return {own_module(source), PurePath(source.path).parent.name, *named} - {""}


def _registries(source: SourceFile) -> Iterator[tuple[str, ...]]:
    """What the tables at the level of the file have that depends on the mode; what fills an empty one is decorated."""
    for name, bindings in source.names.items():
        for table in (binding.value for binding in bindings):
            if isinstance(table, ast.Dict) and not table.keys:
                yield (f"has-mode:{own_key(source, name)}", f"has-mode:{own_module(source)}.*")
            for value in table.values if isinstance(table, ast.Dict) else ():
                if isinstance(value, (ast.Name, ast.Attribute)):
                    facts = fact_of_reference(source, value)
                    if facts is not None:
                        yield (f"has-mode:{own_key(source, name)}", *facts)


def _exports(source: SourceFile) -> Iterator[tuple[str, ...]]:
    """The files whose names a package has, too."""
    imported = [binding.imported for bindings in source.names.values() for binding in bindings if binding.imported]
    modules = [*source.stars, *(name.rpartition(".")[0] for name in imported)]
    for module in modules:
        last = module.rpartition(".")[2]
        if last:
            yield (f"exports:{own_module(source)}.{last}",)


def sets_mode(cls: ClassDefinition) -> bool:
    """Whether the attribute `training` is a property, as far as this file knows."""
    return cls.method("training") is not None
