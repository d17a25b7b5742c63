"""Calls that hand a model to a function, method or class of another file, and when that model depends on the mode."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from dropkit.lint.semantic.built_models import built, is_built_in_eval, maker_facts, mode_facts
from dropkit.lint.semantic.callees import called_function, method_key, star_keys
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.evaluation import is_evaluation_name, is_of_batch
from dropkit.lint.semantic.expressions import given, last_name, last_part, self_attribute
from dropkit.lint.semantic.mode_effects import PLAIN_METHODS, Mode, known_facts, learning_facts
from dropkit.lint.semantic.mode_flow import Place, places
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import LIBRARIES, class_in, function_key, module_key, package_of
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.receivers import is_model_name

# Methods that loops call on objects of unknown class to evaluate.
_HOOK = pattern(r"on_\w+|\w+_end|after_\w+|(run_)?(eval_|evaluat|valid|test)\w*")


def model_facts(source: SourceFile, model: ast.expr, starts: FunctionDefinition | None) -> tuple[str, ...] | None:
    """The facts of other files that make a model depend on the mode; None if it does not, or may be anything.

    Args:
        model: an expression for the model.
        starts: the function where the way to it starts, as of `Place`: its callers may hand it the model.
    """
    models = built(source, model)
    if models:
        return mode_facts(source, models)
    owner, attribute = source.owner(model), self_attribute(model)
    if attribute is not None:
        is_held = owner is not None and not owner.is_module and is_model_name(attribute)
        return (f"models:{owner.name}",) if is_held and owner is not None else None
    if not isinstance(model, ast.Name) or starts is None or not is_model_name(model.id):
        return None
    if any(is_model_name(parameter.arg) for parameter in starts.method.parameters):
        return (f"given:{function_key(source, starts)}",)
    holder = starts.method.owner
    return (f"models:{holder.name}",) if holder is not None and not holder.is_module else None


@dataclass(frozen=True, slots=True)
class _Handed:
    """A call of another file's function, its key, and the models that it is given; None for those of its object."""

    call: ast.Call
    key: str
    models: tuple[ast.expr | None, ...]


def facts_of_handed(source: SourceFile) -> Iterator[tuple[str, ...]]:
    """What this file says of other files' functions: which get a model, in training mode after training or in another.

    "models:C": objects of a class hold a model that depends on the mode. "given:f": a function gets one that is not
    known to be in evaluation mode. "evaluates:f": that model was trained or loaded before. "guards:f": it gets one
    that is in evaluation mode, or may be.
    """
    for handed in _handed(source):
        if handed.key.startswith("models:"):
            yield from _held(source, handed)
        else:
            yield from _evaluations(source, handed)
    for cls in source.classes:
        if not cls.is_module:
            values = [value for name in cls.writes if is_model_name(name) for value in cls.values(name)]
            for facts in (mode_facts(source, made) for value in values if (made := built(source, value))):
                if facts is not None:
                    yield (f"models:{cls.name}", *facts)


def _handed(source: SourceFile) -> Iterator[_Handed]:
    for call in source.all_calls:
        if not isinstance(call.func, (ast.Name, ast.Attribute)):
            continue
        last, known = last_name(call), source.called(call)
        evaluates = is_evaluation_name(last)
        models = tuple(
            value
            for value in given(call)
            if evaluates
            or is_model_name(last_name(value))
            or (isinstance(value, ast.Call) and last_name(value)[:1].isupper())
        )
        name = class_in(known) if known is not None else _own_class_of_super(source, call)
        if name is not None and known is None:
            yield _Handed(call, f"models:{name}", models)
        elif name is not None and known is not None and last_part(known) == name:
            if models:
                yield _Handed(call, f"models:{name}", models)
        elif keys := star_keys(source, call.func) if models else []:
            yield from (_Handed(call, key, models) for key in keys)
        elif known is not None:
            if models and package_of(known) not in LIBRARIES:
                yield _Handed(call, module_key(source, known), models)
        elif (key := method_key(source, call)) is not None:
            if called_function(source, call) is None and last not in PLAIN_METHODS:
                yield _Handed(call, key, (*models, None))
        elif isinstance(call.func, ast.Attribute) and _HOOK.fullmatch(last):
            yield _Handed(call, f"*.{last}", (*models, None))


def _own_class_of_super(source: SourceFile, call: ast.Call) -> str | None:
    """The class whose base gets the arguments of `super().__init__(...)`."""
    match call.func:
        case ast.Attribute(attr="__init__", value=ast.Call(func=ast.Name(id="super"))):
            owner = source.owner(call)
            return owner.name if owner is not None and not owner.is_module else None
        case _:
            return None


def _held(source: SourceFile, handed: _Handed) -> Iterator[tuple[str, ...]]:
    for way in places(source, handed.call):
        for model in handed.models:
            facts = model_facts(source, model, way.starts) if model is not None else None
            if facts is not None and way.effect.mode is not Mode.EVAL:
                yield (handed.key, *facts)


def _evaluations(source: SourceFile, handed: _Handed) -> Iterator[tuple[str, ...]]:
    key = handed.key
    if is_of_batch(source, handed.call):
        yield (f"guards:{key}",)
        return
    made = [call for value in handed.models if value is not None for call in built(source, value)]
    for way in places(source, handed.call):
        facts = _first_facts(source, handed, way.starts)
        if facts is None and _is_shown_to_depend(source, handed, way):
            facts = ()
        if facts is None:
            continue
        effect = way.effect
        if effect.mode in (Mode.EVAL, Mode.UNKNOWN) or (effect.mode is None and is_built_in_eval(source, made)):
            yield (f"guards:{key}",)
            continue
        entry = function_key(source, way.starts) if way.starts is not None else None
        if effect.mode is None:
            yield from ((f"guards:{key}", fact) for fact in maker_facts(source, made))
            if entry is not None:
                yield (f"guards:{key}", f"guards:{entry}")
        yield from ((f"guards:{key}", f"switches:{called}") for called in effect.called)
        known = known_facts(effect)
        yield (f"given:{key}", *facts, *known)
        learning = learning_facts(effect)
        if learning is not None:
            yield (f"evaluates:{key}", *facts, *learning, *known)
        elif entry is not None:
            yield (f"evaluates:{key}", *facts, f"evaluates:{entry}", *known)


def _is_shown_to_depend(source: SourceFile, handed: _Handed, way: Place) -> bool:
    """Whether a model of which nothing is known was set to training mode and trained: then modes matter."""
    unknown = (model for model in handed.models if model is not None and is_model_name(last_name(model)))
    is_trained = way.effect.mode is Mode.TRAIN and way.effect.learns
    return is_trained and any(not built(source, model) for model in unknown)


def _first_facts(source: SourceFile, handed: _Handed, starts: FunctionDefinition | None) -> tuple[str, ...] | None:
    """The facts of the first model that is handed over; of a method, else, that its object holds one."""
    for model in handed.models:
        if model is not None and (facts := model_facts(source, model, starts)) is not None:
            return facts
    head = handed.key.partition(".")[0]
    return None if None not in handed.models else () if head == "*" else (f"models:{head}",)
