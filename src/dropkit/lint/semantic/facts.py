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
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.evaluation import is_evaluation_name
from dropkit.lint.semantic.expressions import given, is_off, last_name, last_part
from dropkit.lint.semantic.mode_effects import Mode, effect_of, known_facts, learning_facts, may_switch
from dropkit.lint.semantic.mode_flow import places
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import module_key, own_key
from dropkit.lint.semantic.settings_fields import facts_about_settings, mentions_rates
from dropkit.lint.semantic.unread_rates import unread_parameters

# Calls by which a function switches modes or trains, itself or through another.
_ACTING = frozenset({"eval", "train", "backward", "manual_backward"})


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
    yield from facts_about_settings(source)
    yield from _about_functions(source)
    for name, calls in source.calls.items():
        for call in calls if is_evaluation_name(name) else ():
            known = source.called(call)
            if known is not None and given(call) and source.local_class(call.func) is None:
                yield from _evaluations(source, call, module_key(source, known))
    yield from _rates_passed(source)
    yield from _rates_ignored(source)


def _rates_ignored(source: SourceFile) -> Iterator[tuple[str, str]]:
    """The functions of this file that get a rate and never read it, if a file passes the rate."""
    for function, rate in unread_parameters(source):
        key, place = own_key(source, function.name), function.parameters.index(rate)
        if function.owner is None and function.within is None:
            yield f"gets:{key}:{rate.arg}", f"passes:{key}:{rate.arg}"
            yield f"gets:{key}:{rate.arg}", f"passes:{key}:#{place}"


def _rates_passed(source: SourceFile) -> Iterator[tuple[str]]:
    """The rates that calls pass to functions of other files, by the keyword or the place."""
    for call in source.all_calls if mentions_rates(source) else ():
        by_name = [(each.arg, each.value) for each in call.keywords if each.arg and is_rate_name(each.arg)]
        by_place = [(f"#{place}", value) for place, value in enumerate(call.args) if is_rate_name(last_name(value))]
        known = source.called(call) if by_name or by_place else None
        if (
            known is not None
            and last_part(known).islower()
            and not known.startswith("torch.")
            and source.local_class(call.func) is None
        ):
            key = module_key(source, known)
            yield from ((f"passes:{key}:{argument}",) for argument, value in (*by_name, *by_place) if not is_off(value))


def _about_functions(source: SourceFile) -> Iterator[tuple[str, ...]]:
    """What the functions of a file do to the modes of models."""
    does_anything = not _ACTING.isdisjoint(source.calls) or "training" in source.attributes
    for function in source.functions:
        if function.owner is None and function.within is None and not isinstance(function.node, ast.Lambda):
            key = own_key(source, function.name)
            effect = effect_of(source, function) if does_anything else None
            if effect is not None and effect.mode in (Mode.EVAL, Mode.UNKNOWN):
                yield (f"switches:{key}",)
            if may_switch(function.name):
                yield (f"defines:{key}",)
            if effect is not None and effect.learns:
                yield (f"learns:{key}",)


def _evaluations(source: SourceFile, call: ast.Call, key: str) -> Iterator[tuple[str, ...]]:
    """Whether a function of another file gets a model that is in training mode after training, or in another mode."""
    models = [made for value in given(call) if (made := built(source, value))]
    facts = next((each for made in models if (each := mode_facts(source, made)) is not None), None)
    for way in places(source, call) if facts is not None else ():
        effect = way.effect
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
