"""The mode under which every dropout draws: it sees each call of torch's in one thread, and turns the flag on.

What the draw then is, from torch's generator or by a key, says the subclass. A function mode also keeps torch from its
fused encoder layer, which skips dropout in evaluation mode.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dropkit.dropout_functions import (
    DROPOUT_POSITION,
    NORMS,
    NUM_LAYERS_POSITION,
    RECURRENT,
    RUNNING_MEAN,
    TRAIN_POSITION,
    DropoutFunction,
    Parameter,
    argument,
    dropout_functions,
    replaced,
)
from dropkit.mc.output_calls import Endings
from dropkit.mc.training_flag.override import only_raised
from dropkit.torch_private import DRAWING

Args = Sequence[Any]
Kwargs = Mapping[str, Any]

# Whatever else draws from torch's generator: masks made by hand, stochastic depth, noise.
RANDOM: frozenset[Any] = frozenset(
    {
        torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.rand, torch.rand_like, torch.randint,
        torch.randint_like, torch.randn, torch.randn_like, torch.randperm, torch.binomial,
        Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
        Tensor.log_normal_, Tensor.multinomial, Tensor.normal_, Tensor.random_, Tensor.uniform_,
        *DRAWING,
        # Python that draws inside, where no mode sees it.
        F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d,
        F.fractional_max_pool3d_with_indices, torch.svd_lowrank, torch.pca_lowrank,
    }
)  # fmt: skip

# What runs instead of a call: (mode, function, arguments, named arguments) -> result.
Handler = Callable[["Mode", Any, Args, Kwargs], Any]


class Mode(TorchFunctionMode):
    """Attributes: drawn: how many calls have drawn so far; endings: what made tensors that tell by it what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0
        self.endings = Endings()
        self._handlers = _handlers()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            handler = self._handlers.get(func)
        except TypeError:  # some callables have no hash
            handler = None
        if handler is not None:
            return handler(self, func, args, kwargs)
        output = self.other(func, types, args, kwargs)
        self.endings.note(func, args, kwargs, output)
        return output

    def other(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        """A call that does not draw."""
        return func(*args, **kwargs)

    @abstractmethod
    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """A call of the dropout family that draws; its flag is on."""

    @abstractmethod
    def attention(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Attention with dropout of its weights."""

    @abstractmethod
    def recurrent(self, func: Any, args: list[Any], packed: bool) -> Any:
        """A recurrent network with dropout between its layers; its flag is on."""

    @abstractmethod
    def random(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Some other function that draws."""


@lru_cache(maxsize=1)
def _handlers() -> dict[Any, Handler]:
    handlers: dict[Any, Handler] = dict.fromkeys(RANDOM, _random)
    handlers |= dict.fromkeys(RECURRENT, _recurrent)
    handlers |= {func: _norm(flag) for func, flag in NORMS.items()}
    for func, function in dropout_functions().items():
        handlers[func] = _attention(function) if function.attention else _dropout(function)
    handlers[F.multi_head_attention_forward] = _multi_head
    return handlers


def _dropout(function: DropoutFunction) -> Handler:
    def handle(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        args, kwargs = function.in_training(args, kwargs)
        p, _, _ = function.arguments(args, kwargs)
        if p is None or not 0 < p < 1:
            return mode.other(func, (), args, kwargs)
        mode.drawn += 1
        return mode.dropout(function, p, func, args, kwargs)

    return handle


def _attention(function: DropoutFunction) -> Handler:
    def handle(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        p, _, _ = function.arguments(args, kwargs)
        if not p:
            return mode.other(func, (), args, kwargs)
        mode.drawn += 1
        return mode.attention(function, p, func, args, kwargs)

    return handle


def _recurrent(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    # nn.LSTM and its like hand everything over by position.
    packed = isinstance(args[-1], bool) and not isinstance(args[3], bool)
    given, shift = list(args), int(packed)
    if not given[DROPOUT_POSITION + shift] or given[NUM_LAYERS_POSITION + shift] < 2:
        return mode.other(func, (), args, kwargs)
    given[TRAIN_POSITION + shift] = True
    mode.drawn += 1
    return mode.recurrent(func, given, packed)


def _norm(flag: Parameter) -> Handler:
    def handle(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        keeps = argument(RUNNING_MEAN, args, kwargs, None) is not None
        if keeps and argument(flag, args, kwargs, False) and only_raised():
            # The flag is up for dropout alone.
            args, kwargs = replaced(flag, args, kwargs, False)
        return mode.other(func, (), args, kwargs)

    return handle


def _random(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    mode.drawn += 1
    return mode.random(func, args, kwargs)


def _multi_head(mode: Mode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Run the Python of `F.multi_head_attention_forward` with the mode on, so that what it calls is seen."""
    args, kwargs = dropout_functions()[func].in_training(args, kwargs)
    with mode:
        return _seen_multi_head()(*args, **kwargs)


@lru_cache(maxsize=1)
def _seen_multi_head() -> Callable[..., Any]:
    """The same code, but for its question whether a mode is on: that would hand the call back to the mode."""
    original = cast("FunctionType", F.multi_head_attention_forward)
    names = {**original.__globals__, "has_torch_function": _no}
    return FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)


def _no(arguments: Any) -> bool:
    return False
