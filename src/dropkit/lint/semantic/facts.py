"""Facts that one file states for the rest of its project: what its classes are, and what its functions do to modes.

A fact is "kind:name". Each comes with the facts of other files from which it follows; most follow from none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.lint.semantic.alternatives import alternative_classes
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.built_models import built, is_built_in_eval, mode_facts
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.evaluation import is_evaluation_name
from dropkit.lint.semantic.expressions import given, last_part
from dropkit.lint.semantic.mode_flow import Mode, effect_of, known_facts, learning_facts, may_switch, places
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import module_key, own_key


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
    for function in source.functions:
        if function.owner is None and function.within is None:
            effect = effect_of(source, function)
            key = own_key(source, function.name)
            if effect.mode in (Mode.EVAL, Mode.UNKNOWN):
                yield (f"switches:{key}",)
            if may_switch(function.name):
                yield (f"defines:{key}",)
            if effect.learns:
                yield (f"learns:{key}",)
    for call in source.all_calls:
        name = source.called(call)
        if name is not None and given(call) and is_evaluation_name(last_part(name)) and source.local_class(call.func) is None:
            yield from _evaluations(source, call, module_key(source, name))


def _evaluations(source: SourceFile, call: ast.Call, key: str) -> Iterator[tuple[str, ...]]:
    """Whether a function of another file gets a model that is in training mode after training, or in another mode."""
    for way in places(source, call):
        effect = way.effect
        models = [made for value in given(call) if (made := built(source, value))]
        facts = next((each for made in models if (each := mode_facts(source, made)) is not None), None)
        in_eval = effect.mode is None and any(is_built_in_eval(source, made) for made in models)
        learning = () if effect.learns or effect.loads else learning_facts(effect)
        if effect.mode in (Mode.EVAL, Mode.UNKNOWN) or in_eval:
            yield (f"guards:{key}",)
        elif facts is not None and learning is not None:
            yield (f"evaluates:{key}", *facts, *learning, *known_facts(effect))
            yield from ((f"guards:{key}", f"switches:{called}") for called in effect.called)


def sets_mode(cls: ClassDefinition) -> bool:
    """Whether the attribute `training` is a property, as far as this file knows."""
    return cls.method("training") is not None
