"""Follow the mode of models through a file: what switches it, what trains, and what happens before a call.

The order of the text stands for the order of the run; loops run again, and functions run where they are called. Where
the mode is not certain, it is `UNKNOWN`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from dropkit.lint.semantic.built_models import local_function
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import given, last_name, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import module_key
from dropkit.lint.semantic.syntax_tree import cached_per_file, end, start

# Functions and methods of these names may switch modes, wherever they are.
_SWITCHES = Vocabulary(r"eval\w*|mode|inference|infer|freeze|predict\w*|validat\w*|test|testing|trainer|fit|generate")
# Functions of other files that may train.
_TRAINS = Vocabulary(r"train\w*|fit\w*|learn\w*|epochs?|optimi[sz]e|run\w*|finetune|pretrain\w*|step")
# Objects whose `train()` trains.
_TRAINERS = Vocabulary(r"\w*trainer|runner|engine|agent|solver|learner|algo\w*|experiment|pipeline|estimator|worker")
_NO_MODELS = Vocabulary(r"optim\w*|sched\w*|\w*scaler|ema|opt|lr|tokenizer|metric\w*|df|pd|expr|dataset|loader|queue")
# Libraries whose functions switch no mode of a model that they are given.
_LIBRARIES = frozenset(
    {"torch", "numpy", "tqdm", "sklearn", "pandas", "matplotlib", "os", "sys", "json", "time", "math", "random", "copy",
     "pathlib", "argparse", "collections", "itertools", "functools", "torchvision", "builtins", "logging", "wandb",
     "scipy", "PIL", "pickle", "typing", "re", "yaml", "datasets", "evaluate", "seaborn", "torchmetrics", "click"}
)  # fmt: skip
_NO_GRAD = frozenset({"no_grad", "inference_mode", "set_grad_enabled", "enable_grad", "eval_shape"})
_PLAIN_DECORATORS = frozenset({"staticmethod", "classmethod", "property", "main", "command", "option", "record"})
# How many calls away from a place its mode is looked for.
_FARTHEST = 4
# Of a function with more calls, the first ones are followed.
_MAX_SITES = 6
# Longer chains of calls are not followed.
_DEEPEST = 30


class Mode(Enum):
    """The mode that a model is set to."""

    TRAIN = "train"
    EVAL = "eval"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a call, or all calls before a place, do.

    Attributes:
        mode: the mode that is set last; None if none is.
        learns, loads: whether gradients are computed, and whether weights are loaded.
        called: functions of other files that are called: "module.function".
    """

    mode: Mode | None = None
    learns: bool = False
    loads: bool = False
    called: tuple[str, ...] = ()

    def then(self, later: Effect) -> Effect:
        """This effect, followed by another."""
        return Effect(
            later.mode or self.mode,
            self.learns or later.learns,
            self.loads or later.loads,
            (*self.called, *later.called)[:MOST],
        )


@dataclass(frozen=True, slots=True)
class Place:
    """What has happened before a node runs; `starts` is the function where the way to it starts, None for the file."""

    effect: Effect
    starts: FunctionDefinition | None


_NOTHING = Effect()


def places(source: SourceFile, node: ast.AST) -> list[Place]:
    """What has happened before `node`, for each way on which this file calls its function."""
    return _places(source, node, _FARTHEST, frozenset())


def _places(source: SourceFile, node: ast.AST, depth: int, seen: frozenset[FunctionDefinition]) -> list[Place]:
    function = source.function(node)
    here = _before(source, node)
    if function is None:
        return [Place(here, None)]
    function = function.method if function.owner is None and isinstance(function.node, ast.Lambda) else function
    sites = call_sites(source, function) if depth and function not in seen else []
    if not sites:
        return [Place(_made_before(source, function).then(here), function)]
    ways = [way for site in sites[:_MAX_SITES] for way in _places(source, site, depth - 1, seen | {function})]
    return [replace(way, effect=way.effect.then(here)) for way in ways][:MOST]


@cached_per_file
def _made_before(source: SourceFile, method: FunctionDefinition) -> Effect:
    """What the constructor does before a method that this file does not call; other methods may switch modes, too."""
    owner = method.owner
    constructor = owner.method("__init__") if owner is not None and method.name != "__init__" else None
    if owner is None or owner.is_module or constructor is None:
        return _NOTHING
    others = [other for other in owner.methods.values() if other not in (method, constructor)]
    made = effect_of(source, constructor)
    may_switch = any(effect_of(source, other).mode in (Mode.EVAL, Mode.UNKNOWN) for other in others)
    return made.then(Effect(Mode.UNKNOWN)) if may_switch else made


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
        return owner is not None and owner.method(method.name) is method
    cls = _class_of(source, callee.value)
    return cls is None or cls.method(method.name) is method


def _class_of(source: SourceFile, expression: ast.expr) -> ClassDefinition | None:
    """The class of this file that an object is made of."""
    values = source.latest_values(expression)
    classes = {source.local_class(value.func) for value in values[:MOST] if isinstance(value, ast.Call)}
    return classes.pop() if len(classes) == 1 and len(values) == 1 else None


def _before(source: SourceFile, node: ast.AST) -> Effect:
    """What happens in the function of `node`, or at the level of the file, before it."""
    events = _events(source).get(source.function(node), [])
    at = start(node)
    around = list(source.parents(node))
    path = {node, *around}
    earlier = [event for event in events if start(event[0]) < at and not _is_other_arm(source, event[0], path)]
    loops = [parent for parent in around if isinstance(parent, (ast.For, ast.AsyncFor, ast.While))]
    function = source.function(node)
    if function is not None:
        loops = [loop for loop in loops if source.function(loop) is function]
    # In a loop, what comes after `node` has happened before its next round.
    later = [
        event
        for event in events
        if loops and start(event[0]) > at and start(loops[-1]) < start(event[0]) < end(loops[-1])
    ]
    effect = _sum([event for _, event in (*later, *earlier)])
    mode = _last_mode(source, earlier, around)
    if mode is None:
        modes = [event.mode for _, event in later if event.mode is not None]
        mode = (Mode.TRAIN if set(modes) == {Mode.TRAIN} else Mode.UNKNOWN) if modes else None
    if mode is None and function is not None and _is_decorated(source, function):
        mode = Mode.UNKNOWN
    return replace(effect, mode=mode)


def _sum(effects: Iterable[Effect]) -> Effect:
    total = _NOTHING
    for effect in effects:
        total = total.then(effect)
    return total


def _is_other_arm(source: SourceFile, node: ast.AST, path: set[ast.AST]) -> bool:
    """Whether a node is in another arm of an `if` than the one that this path leads through."""
    child = node
    for parent in source.parents(node):
        if parent in path:
            if not isinstance(parent, ast.If):
                return False
            arms = (parent.body, parent.orelse)
            own = [any(each in path for each in arm) for arm in arms]
            return any(child in arm for arm, is_own in zip(arms, own, strict=True) if not is_own) and any(own)
        child = parent
    return False


def _last_mode(source: SourceFile, events: list[tuple[ast.AST, Effect]], around: list[ast.AST]) -> Mode | None:
    """The mode that is set last; UNKNOWN if a condition, or one arm of it, decides."""
    path = set(around)
    for node, effect in reversed(events):
        if effect.mode is None:
            continue
        condition: ast.AST | None = None
        for parent in source.parents(node):
            if parent in path:
                break
            if isinstance(parent, (ast.If, ast.IfExp, ast.Try, ast.Match, ast.BoolOp)):
                condition = parent
        if condition is None:
            return effect.mode
        inside = [each.mode for at, each in events if each.mode and start(condition) <= start(at) < end(condition)]
        if set(inside) != {Mode.TRAIN}:
            return Mode.UNKNOWN
        # Training mode under a condition: the mode before counts, too.
    has_train = any(effect.mode is Mode.TRAIN for _, effect in events)
    return Mode.TRAIN if has_train else None


def _is_decorated(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether an unknown decorator may switch modes around a function."""
    decorators = [] if isinstance(function.node, ast.Lambda) else function.node.decorator_list
    return any(
        source.last_name(decorator) not in _NO_GRAD | _PLAIN_DECORATORS
        and not (source.dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) or "").startswith(
            ("torch.", "click.", "hydra.", "typer.", "functools.", "typing.", "abc.")
        )
        for decorator in decorators
    )


@cached_per_file
def _events(source: SourceFile) -> dict[FunctionDefinition | None, list[tuple[ast.AST, Effect]]]:
    """By function, the calls and assignments in it that switch, train or load, in the order of the text."""
    events: dict[FunctionDefinition | None, list[tuple[ast.AST, Effect]]] = {}
    assigned = [node for node in source.attributes.get("training", []) if isinstance(node.ctx, ast.Store)]
    for node in sorted([*source.all_calls, *assigned], key=start):
        effect = _effect(source, node)
        if effect is not None:
            events.setdefault(source.function(node), []).append((node, effect))
    return events


def _effect(source: SourceFile, node: ast.Call | ast.Attribute) -> Effect | None:
    """What a call, or an assignment to `training`, does; None if it does nothing to a model."""
    return Effect(Mode.UNKNOWN) if isinstance(node, ast.Attribute) else _effect_of_call(source, node)


def _effect_of_call(source: SourceFile, call: ast.Call) -> Effect | None:
    name, callee = last_name(call), call.func
    known = source.called(call)
    function = _called_function(source, call)
    if function is not None:
        # Resolved later: `_events` of the function are not known yet.
        return _effect_of_function(source, function)
    if known is not None:
        return _effect_of_import(source, call, known)
    if not isinstance(callee, ast.Attribute):
        return Effect(Mode.UNKNOWN) if _SWITCHES.has(name) and given(call) else None
    receiver = last_name(callee.value)
    match name:
        case "eval" if not given(call):
            return Effect(Mode.EVAL)
        case "train":
            return _effect_of_train(call, receiver)
        case "backward" | "manual_backward":
            return Effect(learns=True)
        case "load_state_dict" | "load_from_checkpoint":
            return None if _NO_MODELS.has(receiver) else Effect(loads=True)
        case _:
            may_switch = _SWITCHES.has(name) and not _NO_MODELS.has(receiver)
            return Effect(Mode.UNKNOWN) if may_switch else None


def _effect_of_train(call: ast.Call, receiver: str) -> Effect:
    arguments = given(call)
    if _TRAINERS.has(receiver):
        return Effect(Mode.UNKNOWN, learns=True)
    if not arguments:
        return Effect(Mode.TRAIN)
    value = literal(arguments[0]) if len(arguments) == 1 else None
    if isinstance(value, bool):
        return Effect(Mode.TRAIN if value else Mode.EVAL)
    return Effect(Mode.UNKNOWN)


def _effect_of_import(source: SourceFile, call: ast.Call, known: str) -> Effect | None:
    """A function of another file, whose facts decide; libraries switch nothing."""
    package = known.lstrip(".").partition(".")[0]
    if package in _LIBRARIES or known.rpartition(".")[2][:1].isupper():
        return None
    return Effect(called=(module_key(source, known),)) if given(call) else None


def _called_function(source: SourceFile, call: ast.Call) -> FunctionDefinition | None:
    """The function, method or constructor of this file that a call runs."""
    callee = call.func
    function = local_function(source, callee)
    if function is not None:
        return function
    made = source.local_class(callee)
    if made is not None:
        return None if made.is_module else made.method("__init__")
    if not isinstance(callee, ast.Attribute):
        return None
    owner = source.owner(callee) if self_attribute(callee) is not None else _class_of(source, callee.value)
    return owner.method(callee.attr) if owner is not None else None


def _effect_of_function(source: SourceFile, function: FunctionDefinition) -> Effect | None:
    """What a function does on the whole; while it is worked out, a call of itself does nothing."""
    known, under_way = source.cache(_effect_of_function), source.cache(_work_out)
    if function not in known:
        known[function] = None
        under_way[function] = None
        known[function] = _work_out(source, function) if len(under_way) < _DEEPEST else Effect(Mode.UNKNOWN)
        del under_way[function]
    return known[function]


def _work_out(source: SourceFile, function: FunctionDefinition) -> Effect | None:
    calls = _calls_in(source).get(function, [])
    stores = _stores_in(source).get(function, [])
    nodes = sorted([*calls, *stores], key=start)
    effects = [(node, _effect(source, node)) for node in nodes]
    events: list[tuple[ast.AST, Effect]] = [(node, effect) for node, effect in effects if effect is not None]
    if not events:
        return None
    total = _sum(effect for _, effect in events)
    mode = _last_mode(source, events, [function.node, *source.parents(function.node)])
    if _yields(source, function) and any(effect.mode not in (None, Mode.TRAIN) for _, effect in events):
        mode = Mode.UNKNOWN  # A context manager: inside of its block the mode is another than at its end.
    return replace(total, mode=mode)


@cached_per_file
def _yields(_: SourceFile, function: FunctionDefinition) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function.node))


@cached_per_file
def _calls_in(source: SourceFile) -> dict[FunctionDefinition | None, list[ast.Call]]:
    calls: dict[FunctionDefinition | None, list[ast.Call]] = {}
    for call in source.all_calls:
        calls.setdefault(source.function(call), []).append(call)
    return calls


@cached_per_file
def _stores_in(source: SourceFile) -> dict[FunctionDefinition | None, list[ast.Attribute]]:
    stores: dict[FunctionDefinition | None, list[ast.Attribute]] = {}
    for node in source.attributes.get("training", []):
        if isinstance(node.ctx, ast.Store):
            stores.setdefault(source.function(node), []).append(node)
    return stores


def is_given_to_events(source: SourceFile, node: ast.AST, name: str) -> bool:
    """Whether a model of this local name is switched or trained beside `node`: `name.train()`, `fit(name)`."""
    calls = [
        at for at, _ in _events(source).get(source.function(node), []) if isinstance(at, ast.Call) and at is not node
    ]
    used = [value for call in calls for value in (*given(call), getattr(call.func, "value", None))]
    return any(isinstance(value, ast.Name) and value.id == name for value in used)


def learning_facts(effect: Effect) -> tuple[str, ...] | None:
    """The facts which say that a function of another file, called before, trains; None if no name says so."""
    trainers = [key for key in effect.called if _TRAINS.has(key.rpartition(".")[2])]
    return (f"learns:{trainers[0]}",) if trainers else None


def known_facts(effect: Effect) -> tuple[str, ...]:
    """The facts which say that the project has the functions whose names say that they may switch modes."""
    return tuple(f"defines:{key}" for key in effect.called if may_switch(key.rpartition(".")[2]))


def may_switch(name: str) -> bool:
    """Whether the name of a function says that it may switch modes."""
    return _SWITCHES.has(name)


def effect_of(source: SourceFile, function: FunctionDefinition) -> Effect:
    """What a function does on the whole."""
    return _effect_of_function(source, function) or _NOTHING


def effect_between(source: SourceFile, node: ast.AST) -> Effect:
    """What happens anywhere inside of a statement, by its calls, in its own function."""
    begin, last = start(node), end(node)
    function = source.function(node)
    events = _events(source).get(function, [])
    return _sum(effect for at, effect in events if begin <= start(at) < last)
