"""Noise: what modules draw in training mode alone, and is no dropout, so that it stays off while one samples.

A layer that adds noise, or a branch that is skipped by `random.random()`, asks for the training flag, which stays down.
The source of `forward` and of what it calls is read for draws. One is off if the conditions that it stands under, as
far as they can be known of the module at hand, may hold in training mode and cannot in evaluation mode.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Mapping
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any, cast

from torch import nn

from dropkit.mc.training_flag.conditions import Bound, Condition, Frame, never_in_evaluation, source, value
from dropkit.mc.training_flag.detection import gates_dropout, names_of, parsed
from dropkit.mc.training_flag.liveness import attributes_read
from dropkit.nn import LAYERS
from dropkit.torch_private import forward_hooks

_DROPOUTS = tuple(layer.counterpart.module if layer.counterpart else layer.module for layer in LAYERS)

# What draws, whatever it is called on.
_DRAWS = frozenset(
    {
        "bernoulli", "bernoulli_", "betavariate", "binomial", "cauchy_", "dirichlet", "exponential_", "gauss",
        "geometric_", "gumbel_softmax", "log_normal_", "lognormvariate", "multinomial", "normal_", "normalvariate",
        "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm",
        "randrange", "rsample", "standard_normal", "uniform_",
    }
)  # fmt: skip
# Names that other things bear, too: they draw if what they are called on is about chance.
_MAY_DRAW = frozenset(
    {
        "beta",
        "choice",
        "choices",
        "integers",
        "laplace",
        "normal",
        "permutation",
        "random",
        "sample",
        "shuffle",
        "uniform",
    }
)
_CHANCE = ("rand", "rng", "generator", "dist", "normal", "uniform", "bernoulli", "beta", "torch")
# What draws if it is handed the flag, by its place.
_IF_TRAINING = {"rrelu": 3, "rrelu_": 3}
# Calls inside of calls that are followed: some functions call themselves.
_DEPTH = 6
_Cached: type[Any] = type(lru_cache(lambda: None))


def noise_left_off(module: nn.Module) -> list[str]:
    """What a module would draw in training mode and does not in evaluation mode, as a note for each place.

    Example:
        >>> noise_left_off(nn.RReLU().eval())[0].startswith("RReLU draws random numbers in training mode (")
        True
        >>> noise_left_off(nn.Dropout()), noise_left_off(nn.Linear(2, 2))
        ([], [])
    """
    if not (_may_ask(type(module)) or _own_entries(module)):
        return []
    reader = _Reader(module)
    reader.read()
    return [
        f"{type(module).__name__} draws random numbers in training mode ({place}), which stays off here: only dropout "
        "is sampled"
        for place, is_off in reader.places.items()
        if is_off
    ]


def _draws(module: nn.Module) -> bool:
    """Whether a module itself draws, in some mode; not a part of it, such as the dropout of an auxiliary head."""
    if isinstance(module, nn.Sequential):
        # Dropout among other layers is that of a head, which is left out as a whole.
        return _is_dropout(module) or any(_draws(one) and not _is_dropout(one) for one in module)
    reader = _Reader(module, every=True)
    reader.read()
    return bool(reader.places) or _is_dropout(module)


def _is_dropout(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return len(module) > 0 and all(map(_is_dropout, module))
    return isinstance(module, _DROPOUTS) or gates_dropout(type(module))


@lru_cache(maxsize=4096)
def _may_ask(kind: type[nn.Module]) -> bool:
    """Whether the flag is read in a class, or in functions that it calls; in most it is not."""
    found = [one for functions in _methods(kind).values() for one in functions]
    seen: set[FunctionType] = set()
    for _ in range(_DEPTH):
        found = [one for one in found if one not in seen and _is_read(one)]
        seen.update(found)
        if any("training" in names_of(one.__code__) for one in found):
            return True
        called = (one.__globals__.get(name) for one in found for name in names_of(one.__code__))
        found = [one for one in map(_unwrapped, called) if one is not None]
    return False


@lru_cache(maxsize=4096)
def _methods(kind: type[nn.Module]) -> Mapping[str, list[FunctionType]]:
    """The functions of a class and its bases by name, first the one that is called."""
    methods: dict[str, list[FunctionType]] = {}
    for base in kind.__mro__:
        if base is nn.Module:
            break
        for name, member in vars(base).items():
            function = _unwrapped(member)
            if function is not None:
                methods.setdefault(name, []).append(function)
    return methods


@lru_cache(maxsize=4096)
def _read_elsewhere(kind: type[nn.Module], function: FunctionType) -> frozenset[str]:
    """The attributes of itself that a class reads in other functions than this one."""
    others = (one for functions in _methods(kind).values() for one in functions if one is not function)
    return frozenset(name for one in others for name in _reads(one))


@lru_cache(maxsize=4096)
def _reads(function: FunctionType) -> set[str]:
    tree = parsed(function)
    return set() if tree is None else attributes_read(tree)


def _unwrapped(member: Any) -> FunctionType | None:
    """The function behind decorators; None for anything else, some of which answers to every name."""
    if isinstance(member, (staticmethod, classmethod)):
        member = cast("Any", member).__func__
    if isinstance(member, property):
        member = member.fget
    if not isinstance(member, (FunctionType, _Cached)):
        return None
    function: Any = inspect.unwrap(member)
    return function if isinstance(function, FunctionType) else None


def _own_entries(module: nn.Module) -> list[FunctionType]:
    """What runs with a module and is not of its class: hooks, and a `forward` that was put in the place of its own."""
    own: list[Any] = [vars(module).get("forward"), *forward_hooks(module)]
    functions = (_unwrapped(one.__func__ if isinstance(one, MethodType) else one) for one in own)
    return [one for one in functions if one is not None and _is_read(one)]


def _is_read(function: FunctionType) -> bool:
    """Not what torch and dropkit do, whose calls are known by their names; but the layers that read their flag."""
    package, _, rest = (function.__module__ or "").partition(".")
    if package == "torch":
        return rest.startswith("nn.modules.") and "training" in names_of(function.__code__)
    return package != "dropkit"


class _Reader:
    """Follows what `forward` of a module calls.

    Args:
        every: follow also calls that cannot depend on the mode.

    Attributes:
        places: file and line of each draw, and whether it is off in evaluation mode.
    """

    def __init__(self, module: nn.Module, every: bool = False) -> None:
        self._module, self._all = module, every
        self.places: dict[str, bool] = {}
        # The modules that are called: where, and whether they are off.
        self._modules: dict[nn.Module, list[tuple[str, bool]]] = {}
        self._seen: set[tuple[object, ...]] = set()
        self._depth = 0

    def read(self) -> None:
        for function in (*_methods(type(self._module)).get("forward", [])[:1], *_own_entries(self._module)):
            self._walk(function, [self._module], {}, [])
        for module, places in self._modules.items():
            if all(is_off for _, is_off in places) and _draws(module):
                self.places.update(places)

    def _walk(self, function: FunctionType, args: list[Any], kwargs: dict[str, Any], tests: list[Condition]) -> None:
        elsewhere = _read_elsewhere(type(self._module), function)
        read = source(function, elsewhere) if _is_read(function) else None
        if read is None:
            return
        frame = Frame.of(function, read, args, kwargs)
        file = os.path.basename(function.__code__.co_filename)
        for one in read.calls:
            call, under = one.node, [*tests, *frame.under(one.guards)]
            callee = value(call.func, frame, True)
            name = _name(call, callee)
            place = f"{file}:{function.__code__.co_firstlineno + call.lineno - 1}"
            if name in _IF_TRAINING:
                named = [keyword.value for keyword in call.keywords if keyword.arg == "training"]
                flag = [*named, *call.args[_IF_TRAINING[name] :]][:1]
                self._draw(place, [*under, *frame.under([(node, True) for node in flag])])
            elif name in _DRAWS or (name in _MAY_DRAW and _is_about_chance(call.func, callee, frame)):
                if one.uses and not never_in_evaluation(under):
                    # Drawn in both modes, and perhaps of use in one: `if self.training: x = x + noise`.
                    for use in one.uses:
                        self._draw(place, [*under, *frame.under(use)])
                else:
                    self._draw(place, under)
            elif modules := _modules(call.func, callee, frame):
                for module in modules:
                    self._modules.setdefault(module, []).append((place, never_in_evaluation(under)))
            else:
                self._follow(call, callee, frame, under)

    def _draw(self, place: str, tests: list[Condition]) -> None:
        self.places[place] = self.places.get(place, True) and never_in_evaluation(tests)

    def _follow(self, call: ast.Call, callee: Any, frame: Frame, tests: list[Condition]) -> None:
        """Into a function that is called, with what is known of its arguments."""
        args: list[Any] = []
        match call.func:
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                args, function = [self._module], self._inherited(cast("Any", frame).function, name)
            case _ if isinstance(callee, MethodType):
                args, function = [callee.__self__], _unwrapped(cast("Any", callee).__func__)
            case _:
                function = _unwrapped(callee)
        if function is None:
            return
        starred = any(isinstance(one, ast.Starred) for one in call.args)
        args += [] if starred else [Bound(one, frame) for one in call.args]
        kwargs = {one.arg: Bound(one.value, frame) for one in call.keywords if one.arg is not None}
        known = [
            (value(one.node, frame, True), value(one.node, frame, False)) if isinstance(one, Bound) else (one, one)
            for one in [*args, *kwargs.values()]
        ]
        is_off = never_in_evaluation(tests)
        # What knows of no mode cannot depend on it.
        depends = is_off or any(isinstance(one, nn.Module) or one is not other for one, other in known)
        key = function, is_off, *(one if isinstance(one, (bool, int, float)) else id(one) for one, _ in known)
        if (depends or self._all) and key not in self._seen and self._depth < _DEPTH:
            self._seen.add(key)
            self._depth += 1
            self._walk(function, args, kwargs, tests)
            self._depth -= 1

    def _inherited(self, function: FunctionType, name: str) -> FunctionType | None:
        """The method of that name after this function, where `super()` is asked for it."""
        methods = _methods(type(self._module))
        own = methods.get(function.__name__, [])
        after = own.index(function) + 1 if function in own and name == function.__name__ else 0
        return next(iter(methods.get(name, [])[after:]), None)


def _modules(func: ast.expr, callee: Any, frame: Frame) -> list[nn.Module]:
    """The modules that a call calls: one, or each that a loop goes through."""
    if isinstance(callee, nn.Module):
        return [callee]
    if not isinstance(func, ast.Name) or func.id not in frame.source.iterated:
        return []
    held = value(frame.source.iterated[func.id], frame, True)
    known = isinstance(held, (nn.ModuleList, nn.Sequential, list, tuple))
    return [one for one in cast("list[Any]", held) if isinstance(one, nn.Module)] if known else []


def _name(call: ast.Call, callee: Any) -> str:
    """What a call calls, by its own name where it is known."""
    written = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return getattr(callee, "__name__", written)


def _is_about_chance(func: ast.expr, callee: Any, frame: Frame) -> bool:
    """By where the callee is from, or by the words before its name."""
    origin = f"{getattr(callee, '__module__', '')} {type(getattr(callee, '__self__', None)).__name__}"
    owner = func.value if isinstance(func, ast.Attribute) else None
    if isinstance(owner, ast.Name):
        owner = frame.source.assigned.get(owner.id, owner)
    before = "" if owner is None else ast.unparse(owner)
    return any(one in f"{origin} {before}".lower() for one in _CHANCE)
