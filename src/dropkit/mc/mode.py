"""SamplingMode: a function mode that activates dropout in every function of torch that its thread calls.

Random numbers come from torch's generator, unless a subclass draws them in another way. While a function mode is
active, torch does not use its fused encoder layer, which skips dropout in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

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
    multi_head_code,
    replaced,
)
from dropkit.mc.chosen_dropout import chosen
from dropkit.mc.output_calls import OutputCalls
from dropkit.mc.training_flag.override import is_override_alone
from dropkit.nn.recurrent_layers import is_packed
from dropkit.torch_private import DRAWING

Args = Sequence[Any]
Kwargs = Mapping[str, Any]

# Other functions that draw from torch's generator: for masks that a model makes itself, stochastic depth, noise.
RANDOM: frozenset[Any] = frozenset(
    {
        torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.rand, torch.rand_like, torch.randint,
        torch.randint_like, torch.randn, torch.randn_like, torch.randperm, torch.binomial,
        Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
        Tensor.log_normal_, Tensor.multinomial, Tensor.normal_, Tensor.random_, Tensor.uniform_,
        *DRAWING,
        # Python functions whose draws a mode does not see.
        F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d,
        F.fractional_max_pool3d_with_indices, torch.svd_lowrank, torch.pca_lowrank,
    }
)  # fmt: skip

# Computes a call: (mode, function, arguments, keyword arguments) -> result.
Handler = Callable[["SamplingMode", Any, Args, Kwargs], Any]


class SamplingMode(TorchFunctionMode):
    """Activates dropout; subclasses may override the methods that compute calls which draw random numbers.

    Attributes:
        random_calls: how many calls have drawn random numbers so far.
        output_calls: which calls made the tensors that are logits or probabilities, if `records_output_calls`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.random_calls = 0
        self.output_calls: OutputCalls = OutputCalls()
        self.records_output_calls: bool = False
        self._handlers = _handlers()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            handler = self._handlers.get(func)
        except TypeError:  # some callables have no hash
            handler = None
        if handler is not None:
            return handler(self, func, args, kwargs)
        output = self.not_random(func, types, args, kwargs)
        if self.records_output_calls:
            self.output_calls.record(func, args, kwargs, output)
        return output

    def not_random(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        """Compute a call that draws no random numbers."""
        return func(*args, **kwargs)

    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Compute a dropout function, of which the `training` argument has been set to true."""
        return func(*args, **kwargs)

    def attention(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Compute attention with dropout on its weights."""
        return func(*args, **kwargs)

    def recurrent(self, func: Any, args: list[Any], packed: bool) -> Any:
        """Compute a recurrent network with dropout between its layers, its `train` argument set to true."""
        return func(*args)

    def random(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Compute another function that draws random numbers."""
        return func(*args, **kwargs)


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
    def handle(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        if not chosen().is_active:
            return mode.not_random(func, (), *function.with_training(args, kwargs, False))
        args, kwargs = function.with_training(args, kwargs)
        own, _, _ = function.arguments(args, kwargs)
        p = None if own is None else chosen().rate(own)
        if p is None or not 0 < p < 1:
            return mode.not_random(func, (), args, kwargs)
        if p != own:
            args, kwargs = replaced(function.p, args, kwargs, p)
        mode.random_calls += 1
        return mode.dropout(function, p, func, args, kwargs)

    return handle


def _attention(function: DropoutFunction) -> Handler:
    def handle(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        own = argument(function.p, args, kwargs, None)
        if own is None:  # a call without a rate is not one of a dropout whose rate is 0
            chosen().does_not_reach(f"{function.name}, which is called without {function.p[1]}")
            return mode.not_random(func, (), args, kwargs)
        p = chosen().rate(float(own))
        if p != own:
            args, kwargs = replaced(function.p, args, kwargs, p or 0.0)
        if p is None:
            return mode.not_random(func, (), args, kwargs)
        mode.random_calls += 1
        return mode.attention(function, p, func, args, kwargs)

    return handle


def _recurrent(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    # nn.LSTM, nn.GRU and nn.RNN pass all arguments by position; a packed sequence has one more.
    packed = is_packed(args)
    args, shift = list(args), int(packed)
    p, has_dropout = chosen().rate(args[DROPOUT_POSITION + shift]), args[NUM_LAYERS_POSITION + shift] > 1
    if not has_dropout:
        chosen().does_not_reach(f"{func.__name__} of one layer, which has no dropout")
    if p is None or not has_dropout:
        args[TRAIN_POSITION + shift] = False
        return mode.not_random(func, (), args, kwargs)
    args[DROPOUT_POSITION + shift] = p
    args[TRAIN_POSITION + shift] = True
    mode.random_calls += 1
    return mode.recurrent(func, args, packed)


def _norm(flag: Parameter) -> Handler:
    def handle(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
        has_statistics = argument(RUNNING_MEAN, args, kwargs, None) is not None
        if has_statistics and argument(flag, args, kwargs, False) and is_override_alone():
            # The override of the flag is meant for dropout, not for statistics.
            args, kwargs = replaced(flag, args, kwargs, False)
        return mode.not_random(func, (), args, kwargs)

    return handle


def _random(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    chosen().does_not_reach("masks that the model makes itself")
    mode.random_calls += 1
    return mode.random(func, args, kwargs)


def _multi_head(mode: SamplingMode, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Run the Python code of `F.multi_head_attention_forward` under the mode, which then sees its dropout."""
    function = dropout_functions()[func]
    args, kwargs = function.with_training(args, kwargs)
    # Its code leaves dropout out where the rate is 0.
    p = chosen().rate(argument(function.p, args, kwargs, 0.0))
    args, kwargs = replaced(function.p, args, kwargs, p or 0.0)
    with mode:
        return multi_head_code()(*args, **kwargs)
