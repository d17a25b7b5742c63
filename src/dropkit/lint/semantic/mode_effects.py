"""What calls do to the modes of models: switch them, train, load weights, or run a function of another file."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from dropkit.lint.semantic.callees import called_function, method_key, star_keys
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.expressions import given, last_name, last_part, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import LIBRARIES, class_in, module_key, package_of
from dropkit.lint.semantic.receivers import is_model_name
from dropkit.lint.semantic.syntax_tree import cached_per_file, end, grouped, start

# Functions and methods of these names may switch modes, wherever they are.
_SWITCHES = Vocabulary(r"eval\w*|mode|inference|infer|freeze|predict\w*|validat\w*|test|testing|trainer|fit|generate")
# Functions of other files that may train, or load weights.
_TRAINS = Vocabulary(
    r"train\w*|fit\w*|learn\w*|epochs?|optimi[sz]e|run\w*|finetune|pretrain\w*|step|load\w*|restore\w*|resume"
)
_TRAINS_SURELY = Vocabulary(r"train\w*|fit\w*|learn\w*|finetune|pretrain\w*")
# Objects whose `train()` trains.
_TRAINERS = Vocabulary(r"\w*trainer|runner|engine|agent|solver|learner|algo\w*|experiment|pipeline|estimator|worker")
_NO_MODELS = Vocabulary(r"optim\w*|sched\w*|\w*scaler|ema|opt|lr|tokenizer|metric\w*|df|pd|expr|dataset|loader|queue")
# Methods of every Module, which do nothing to modes.
PLAIN_METHODS = frozenset(
    {"to", "cuda", "cpu", "half", "float", "parameters", "named_parameters", "state_dict", "zero_grad", "modules",
     "children", "named_modules", "apply", "requires_grad_", "append", "items", "keys", "values", "get", "step"}
)  # fmt: skip
# Of more functions of other files, the first ones count.
_MOST_CALLED = 64
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
        called: functions and methods of other files that are called: "module.function", "Class.method".
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
            tuple(dict.fromkeys((*self.called, *later.called)))[:_MOST_CALLED],
        )


NOTHING = Effect()


def effect_of(source: SourceFile, function: FunctionDefinition) -> Effect:
    """What a function does on the whole."""
    return _effect_of_function(source, function) or NOTHING


def effect_between(source: SourceFile, node: ast.AST) -> Effect:
    """What happens anywhere inside of a statement, by its calls, in its own function."""
    begin, last = start(node), end(node)
    function = source.function(node)
    events = events_of(source).get(function, [])
    return sum_of(effect for at, effect in events if begin <= start(at) < last)


def learning_facts(effect: Effect) -> tuple[str, ...] | None:
    """The facts which say that a function of another file, called before, trains or loads; None if no name says so.

    Empty if calls in this file do.
    """
    if effect.learns or effect.loads:
        return ()
    trainers = [key for key in effect.called if _TRAINS.has(last_part(key))]
    return (f"learns:{'|'.join(trainers)}",) if trainers else None


def known_facts(effect: Effect) -> tuple[str, ...]:
    """The facts which say that the project has the functions whose names say that they may switch modes."""
    return tuple(f"defines:{key}" for key in effect.called if must_be_defined(key))


def must_be_defined(key: str) -> bool:
    """Whether the name of a function says that it may switch modes, or of a method that it may train, too."""
    last = last_part(key)
    return _SWITCHES.has(last) or (key[:1].isupper() and _TRAINS_SURELY.has(last))


def is_given_to_events(source: SourceFile, node: ast.AST, name: str) -> bool:
    """Whether a model of this local name is switched or trained beside `node`: `name.train()`, `fit(name)`."""
    calls = [
        at for at, _ in events_of(source).get(source.function(node), []) if isinstance(at, ast.Call) and at is not node
    ]
    used = [value for call in calls for value in (*given(call), getattr(call.func, "value", None))]
    return any(isinstance(value, ast.Name) and value.id == name for value in used)


def sum_of(effects: Iterable[Effect]) -> Effect:
    total = NOTHING
    for effect in effects:
        total = total.then(effect)
    return total


def last_mode(source: SourceFile, events: list[tuple[ast.AST, Effect]], around: list[ast.AST]) -> Mode | None:
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


@cached_per_file
def events_of(source: SourceFile) -> dict[FunctionDefinition | None, list[tuple[ast.AST, Effect]]]:
    """By function, the calls and assignments in it that switch, train or load, in the order of the text."""
    return grouped((source.function(event[0]), event) for event in _events(source, _nodes(source)))


def _events(source: SourceFile, nodes: list[ast.Call | ast.Attribute]) -> list[tuple[ast.AST, Effect]]:
    """Those of the nodes that do anything to a model, and what they do."""
    return [(node, effect) for node in nodes if (effect := _effect(source, node)) is not None]


def _effect(source: SourceFile, node: ast.Call | ast.Attribute) -> Effect | None:
    """What a call, or an assignment to `training`, does; None if it does nothing to a model."""
    return Effect(Mode.UNKNOWN) if isinstance(node, ast.Attribute) else _effect_of_call(source, node)


def _effect_of_call(source: SourceFile, call: ast.Call) -> Effect | None:
    name, callee = last_name(call), call.func
    known = source.called(call)
    function = called_function(source, call)
    if function is not None:
        # Resolved later: `events_of` the function are not known yet.
        return _effect_of_function(source, function)
    if known is not None:
        return _effect_of_import(source, call, known)
    if given(call) and (keys := star_keys(source, callee)):
        return Effect(called=tuple(keys))
    if not isinstance(callee, ast.Attribute):
        return Effect(Mode.UNKNOWN) if _SWITCHES.has(name) and given(call) else None
    receiver, key = last_name(callee.value), method_key(source, call)
    match name:
        case "eval" if not given(call):
            return Effect(Mode.EVAL)
        case "train":
            return _effect_of_train(call, receiver, key)
        case "backward" | "manual_backward":
            return Effect(learns=True)
        case "load_state_dict" | "load_from_checkpoint":
            return None if _NO_MODELS.has(receiver) else Effect(loads=True)
        case _ if key is not None:
            acts = self_attribute(callee) is not None or _SWITCHES.has(name) or _TRAINS.has(name)
            acts = name not in PLAIN_METHODS and (acts or any(map(_is_model, given(call))))
            return Effect(called=(key,)) if acts else None
        case _:
            may_switch = _SWITCHES.has(name) and not _NO_MODELS.has(receiver)
            return Effect(Mode.UNKNOWN) if may_switch else None


def _effect_of_train(call: ast.Call, receiver: str, key: str | None) -> Effect:
    arguments = given(call)
    value = literal(arguments[0]) if len(arguments) == 1 else None
    if _TRAINERS.has(receiver):
        return Effect(Mode.UNKNOWN, learns=True) if key is None else Effect(called=(key,))
    if not arguments:
        return Effect(Mode.TRAIN)
    if isinstance(value, bool):
        return Effect(Mode.TRAIN if value else Mode.EVAL)
    return Effect(Mode.UNKNOWN)


def _effect_of_import(source: SourceFile, call: ast.Call, known: str) -> Effect | None:
    """A function or constructor of another file, whose facts decide; libraries switch nothing."""
    if package_of(known) in LIBRARIES:
        return None
    name = class_in(known)
    if name is not None and last_part(known) == name:
        return Effect(called=(f"{name}.__init__",)) if any(map(_is_model, given(call))) else None
    return Effect(called=(module_key(source, known),)) if _may_act(last_part(known), call) else None


def _may_act(name: str, call: ast.Call) -> bool:
    """Whether a function may switch or train what it is given: by its name, or since it gets a model."""
    return bool(given(call)) and (_SWITCHES.has(name) or _TRAINS.has(name) or any(map(_is_model, given(call))))


def _is_model(value: ast.expr) -> bool:
    return is_model_name(last_name(value)) or last_name(value) in ("m", "self", "models", "nets")


def _effect_of_function(source: SourceFile, function: FunctionDefinition) -> Effect | None:
    """What a function does on the whole; while it is worked out, a call of itself does nothing."""
    known, under_way = source.caches[_effect_of_function], source.caches[_work_out]
    if function not in known:
        known[function] = None
        under_way[function] = None
        known[function] = _work_out(source, function) if len(under_way) < _DEEPEST else Effect(Mode.UNKNOWN)
        del under_way[function]
    return known[function]


def _work_out(source: SourceFile, function: FunctionDefinition) -> Effect | None:
    events = _events(source, _nodes_in(source).get(function, []))
    if not events:
        return None
    total = sum_of(effect for _, effect in events)
    mode = last_mode(source, events, [function.node, *source.parents(function.node)])
    if _yields(source, function) and any(effect.mode not in (None, Mode.TRAIN) for _, effect in events):
        mode = Mode.UNKNOWN  # A context manager: inside of its block the mode is another than at its end.
    return replace(total, mode=mode)


@cached_per_file
def _yields(_: SourceFile, function: FunctionDefinition) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function.node))


@cached_per_file
def _nodes_in(source: SourceFile) -> dict[FunctionDefinition | None, list[ast.Call | ast.Attribute]]:
    """By function, its calls and its assignments to `training`, in the order of the text."""
    return grouped((source.function(node), node) for node in _nodes(source))


@cached_per_file
def _nodes(source: SourceFile) -> list[ast.Call | ast.Attribute]:
    assigned = (node for node in source.attributes.get("training", []) if isinstance(node.ctx, ast.Store))
    return sorted([*source.all_calls, *assigned], key=start)
