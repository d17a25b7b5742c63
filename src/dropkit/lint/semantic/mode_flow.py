"""Follow the mode of models through a file: what switches it, what trains, and what happens before a call.

The order of the text stands for the order of the run; loops run again, and functions run where they are called. Where
the mode is not certain, it is `UNKNOWN`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from dropkit.lint.semantic.callees import call_sites
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.mode_effects import NOTHING, Effect, Mode, effect_of, events_of, last_mode, sum_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file, end, start

_NO_GRAD = frozenset({"no_grad", "inference_mode", "set_grad_enabled", "enable_grad", "eval_shape"})
_PLAIN_DECORATORS = frozenset({"staticmethod", "classmethod", "property", "main", "command", "option", "record"})
# How many calls away from a place its mode is looked for.
_FARTHEST = 4
# Of a function with more calls, the first ones are followed.
_MAX_SITES = 6


@dataclass(frozen=True, slots=True)
class Place:
    """What has happened before a node runs; `starts` is the function where the way to it starts, None for the file."""

    effect: Effect
    starts: FunctionDefinition | None


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
        return NOTHING
    others = [other for other in owner.methods.values() if other not in (method, constructor)]
    made = effect_of(source, constructor)
    may_switch = any(effect_of(source, other).mode in (Mode.EVAL, Mode.UNKNOWN) for other in others)
    return made.then(Effect(Mode.UNKNOWN)) if may_switch else made


def _before(source: SourceFile, node: ast.AST) -> Effect:
    """What happens in the function of `node`, or at the level of the file, before it."""
    events = events_of(source).get(source.function(node), [])
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
    effect = sum_of([event for _, event in (*later, *earlier)])
    mode = last_mode(source, earlier, around)
    if mode is None:
        modes = [event.mode for _, event in later if event.mode is not None]
        mode = (Mode.TRAIN if set(modes) == {Mode.TRAIN} else Mode.UNKNOWN) if modes else None
    if mode is None and function is not None and _is_decorated(source, function):
        mode = Mode.UNKNOWN
    return replace(effect, mode=mode)


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


def _is_decorated(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether an unknown decorator may switch modes around a function."""
    return any(
        source.last_name(decorator) not in _NO_GRAD | _PLAIN_DECORATORS
        and not (source.dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) or "").startswith(
            ("torch.", "click.", "hydra.", "typer.", "functools.", "typing.", "abc.")
        )
        for decorator in function.decorators
    )
