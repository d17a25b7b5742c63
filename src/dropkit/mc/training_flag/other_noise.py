"""Other noise: random numbers that modules draw in training mode alone, for something that is not dropout.

The flag of a module that adds noise, or skips a branch by `random.random()`, is not overridden, so its noise stays off.
The source of `forward` and of what it calls is searched for draws in either mode: those are off that may be reached in
training mode, and cannot be reached in evaluation mode, as far as the conditions are known for the module at hand.
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

from dropkit.mc.training_flag.detection import gates_dropout
from dropkit.mc.training_flag.function_source import attributes_read, names_in
from dropkit.mc.training_flag.known_values import Frame
from dropkit.mc.training_flag.reached import live_calls
from dropkit.nn import LAYERS
from dropkit.torch_private import forward_hooks

_DROPOUTS = tuple(layer.counterpart.module if layer.counterpart else layer.module for layer in LAYERS)

# Functions that draw, whatever they are called on.
_DRAWING = frozenset(
    {
        "bernoulli", "bernoulli_", "betavariate", "binomial", "cauchy_", "dirichlet", "exponential_", "gauss",
        "geometric_", "gumbel_softmax", "log_normal_", "lognormvariate", "multinomial", "normal_", "normalvariate",
        "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm",
        "randrange", "rsample", "standard_normal", "uniform_",
    }
)  # fmt: skip
# Ambiguous names: functions that draw if they belong to something that is named after randomness.
_PERHAPS_DRAWING = frozenset(
    {
        "beta", "choice", "choices", "integers", "laplace", "normal", "permutation", "random", "sample", "shuffle",
        "uniform",
    }
)  # fmt: skip
_RANDOMNESS = ("rand", "rng", "generator", "dist", "normal", "uniform", "bernoulli", "beta", "torch")
# Functions that draw if their `training` argument is true, and the position of that argument.
_DRAWING_IN_TRAINING = {"rrelu": 3, "rrelu_": 3}
# How deep calls are followed: some functions call themselves.
_DEEPEST = 6
_Cached: type[Any] = type(lru_cache(lambda: None))


def noise_left_off(module: nn.Module) -> list[str]:
    """Find the noise that a module adds in training mode alone: a note for each place.

    Example:
        >>> noise_left_off(nn.RReLU().eval())[0].startswith("RReLU draws random numbers in training mode (")
        True
        >>> noise_left_off(nn.Dropout()), noise_left_off(nn.Linear(2, 2))
        ([], [])
    """
    if not (_may_read_flag(type(module)) or _functions_of_instance(module)):
        return []
    on, off = _Search(module, True), _Search(module, False)
    places = [place for place in on.draws if place not in off.draws]
    for called, callers in on.modules.items():
        if called not in off.modules and _draws(called):
            places += callers
    return [
        f"{type(module).__name__} draws random numbers in training mode ({place}), which stays off here: only dropout "
        "is sampled"
        for place in dict.fromkeys(places)
    ]


class _Search:
    """Follows what `forward` of a module calls in training or evaluation mode.

    Attributes:
        draws: the file and line of each draw.
        modules: those that are called, and where.
    """

    def __init__(self, module: nn.Module, training: bool) -> None:
        self.draws: dict[str, None] = {}
        self.modules: dict[nn.Module, list[str]] = {}
        self._module, self._training = module, training
        self._seen: set[tuple[object, ...]] = set()
        self._depth = 0
        forward = _methods(type(module)).get("forward", [])[:1]
        for function in (*forward, *_functions_of_instance(module)):
            self._walk(function, [module], {})

    def _walk(self, function: FunctionType, args: list[Any], kwargs: dict[str, Any]) -> None:
        frame = Frame.of(function, args, kwargs, self._training) if _is_followed(function) else None
        if frame is None:
            return
        file = os.path.basename(function.__code__.co_filename)
        for call in live_calls(frame, _read_elsewhere(type(self._module), function)):
            callee = frame.value(call.func)
            written = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            name = getattr(callee, "__name__", written)
            place = f"{file}:{function.__code__.co_firstlineno + call.lineno - 1}"
            if name in _DRAWING_IN_TRAINING:
                by_name = [keyword.value for keyword in call.keywords if keyword.arg == "training"]
                flag = [*by_name, *call.args[_DRAWING_IN_TRAINING[name] :]][:1]
                if all(frame.truth(node) is not False for node in flag):
                    self.draws[place] = None
            elif name in _DRAWING or (name in _PERHAPS_DRAWING and _is_random(call.func, callee, frame)):
                self.draws[place] = None
            elif modules := _called_modules(call.func, callee, frame):
                for module in modules:
                    self.modules.setdefault(module, []).append(place)
            else:
                self._follow(call, callee, frame)

    def _follow(self, call: ast.Call, callee: Any, frame: Frame) -> None:
        """Search a function that is called, with its arguments as far as they are known."""
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
        if not any(isinstance(argument, ast.Starred) for argument in call.args):
            args += map(frame.value, call.args)
        kwargs = {keyword.arg: frame.value(keyword.value) for keyword in call.keywords if keyword.arg is not None}
        values = (*args, *kwargs.values())
        key = function, *(known if isinstance(known, (bool, int, float)) else id(known) for known in values)
        if key not in self._seen and self._depth < _DEEPEST:
            self._seen.add(key)
            self._depth += 1
            self._walk(function, args, kwargs)
            self._depth -= 1

    def _inherited(self, function: FunctionType, name: str) -> FunctionType | None:
        """The method that `super().<name>` stands for in this function."""
        methods = _methods(type(self._module))
        own = methods.get(function.__name__, [])
        after = own.index(function) + 1 if function in own and name == function.__name__ else 0
        return next(iter(methods.get(name, [])[after:]), None)


def _draws(module: nn.Module) -> bool:
    """Whether a module itself draws in some mode, apart from modules that it holds, such as dropout in a head."""
    if isinstance(module, nn.Sequential):
        # Dropout among other layers belongs to a head, which is skipped as a whole.
        return _is_dropout(module) or any(_draws(part) and not _is_dropout(part) for part in module)
    return _is_dropout(module) or any(_Search(module, training).draws for training in (True, False))


def _is_dropout(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return len(module) > 0 and all(map(_is_dropout, module))
    return isinstance(module, _DROPOUTS) or gates_dropout(type(module))


@lru_cache(maxsize=4096)
def _may_read_flag(kind: type[nn.Module]) -> bool:
    """Whether a class, or a function that it calls, may read the flag: a quick check before the search."""
    functions = [function for overloads in _methods(kind).values() for function in overloads]
    seen: set[FunctionType] = set()
    for _ in range(_DEEPEST):
        functions = [function for function in functions if function not in seen and _is_followed(function)]
        seen.update(functions)
        if any("training" in names_in(function.__code__) for function in functions):
            return True
        called = (function.__globals__.get(name) for function in functions for name in names_in(function.__code__))
        functions = [function for function in map(_unwrapped, called) if function is not None]
    return False


@lru_cache(maxsize=4096)
def _methods(kind: type[nn.Module]) -> Mapping[str, list[FunctionType]]:
    """The functions of a class and its bases by name, in the order of method resolution."""
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
    others = (other for overloads in _methods(kind).values() for other in overloads if other is not function)
    return frozenset(name for other in others for name in attributes_read(other))


def _unwrapped(member: Any) -> FunctionType | None:
    """The function behind decorators; None for anything that is not a plain function."""
    if isinstance(member, (staticmethod, classmethod)):
        member = cast("Any", member).__func__
    if isinstance(member, property):
        member = member.fget
    if not isinstance(member, (FunctionType, _Cached)):
        return None
    function: Any = inspect.unwrap(member)
    return function if isinstance(function, FunctionType) else None


def _functions_of_instance(module: nn.Module) -> list[FunctionType]:
    """The hooks of a module, and a `forward` that was set on the instance."""
    own: list[Any] = [vars(module).get("forward"), *forward_hooks(module)]
    functions = (_unwrapped(member.__func__ if isinstance(member, MethodType) else member) for member in own)
    return [function for function in functions if function is not None and _is_followed(function)]


def _is_followed(function: FunctionType) -> bool:
    """Whether to read a function: not those of torch and dropkit, except for torch's layers that read their flag."""
    package, _, rest = (function.__module__ or "").partition(".")
    if package == "torch":
        return rest.startswith("nn.modules.") and "training" in names_in(function.__code__)
    return package != "dropkit"


def _called_modules(func: ast.expr, callee: Any, frame: Frame) -> list[nn.Module]:
    """The modules that a call runs: a single one, or all that a loop iterates over."""
    if isinstance(callee, nn.Module):
        return [callee]
    if not isinstance(func, ast.Name) or func.id not in frame.source.iterated:
        return []
    iterated = frame.value(frame.source.iterated[func.id])
    is_known = isinstance(iterated, (nn.ModuleList, nn.Sequential, list, tuple))
    return [item for item in cast("list[Any]", iterated) if isinstance(item, nn.Module)] if is_known else []


def _is_random(func: ast.expr, callee: Any, frame: Frame) -> bool:
    """Whether the callee belongs to something that is named after randomness, by its module or by the source."""
    origin = f"{getattr(callee, '__module__', '')} {type(getattr(callee, '__self__', None)).__name__}"
    owner = func.value if isinstance(func, ast.Attribute) else None
    if isinstance(owner, ast.Name):
        owner = frame.source.assigned.get(owner.id, owner)
    written = "" if owner is None else ast.unparse(owner)
    return any(word in f"{origin} {written}".lower() for word in _RANDOMNESS)
