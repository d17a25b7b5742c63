"""A function mode in which functions of torch that drop run as dropkit's, for modules whose `forward` calls them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dropkit.dropout_functions import (
    DROPOUT_POSITION,
    NUM_LAYERS_POSITION,
    RECURRENT,
    TRAIN_POSITION,
    DropoutFunction,
    dropout_functions,
    multi_head_code,
)
from dropkit.nn import LAYERS
from dropkit.nn.dropout import dropout
from dropkit.nn.layer import Layer
from dropkit.nn.recurrent_layers import is_packed, run_layers
from dropkit.nn.scaled_dot_product_attention import scaled_dot_product_attention
from dropkit.patch.extended_class import ExtendedClass

# Layers by the names of torch's functions and operators.
_LAYERS: dict[str, Layer] = {
    name + end: layer
    for layer in LAYERS
    if layer.counterpart is not None
    for name in (layer.function.__name__, layer.counterpart.operator)
    if name
    for end in ("", "_")
}


class RunsDropkitFunctions(ExtendedClass):
    """What `convert` adds to a class whose methods call functions that drop."""

    def forward_by_dropkit(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, in training mode on dropkit's functions.

        In evaluation mode nothing of torch is replaced, so that its fused layers run, and that Monte Carlo dropout
        and audits see the same calls as before.
        """
        # In a module that does so already, a second mode would cost time, and change nothing.
        if not self.training or _thread.is_active:
            return forward(self, *args, **kwargs)
        _thread.is_active = True
        try:
            with DropkitFunctions():
                return forward(self, *args, **kwargs)
        finally:
            _thread.is_active = False


class _Thread(threading.local):
    """Whether the mode is active in this thread."""

    is_active = False


_thread = _Thread()


class DropkitFunctions(TorchFunctionMode):
    """Runs torch's dropout functions, attention and recurrent networks with dropkit's dropout."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            replacement = _REPLACEMENTS.get(func)
        except TypeError:  # some callables have no hash
            replacement = None
        return (func if replacement is None else replacement)(*args, **kwargs)


def _replacements() -> dict[Any, Callable[..., Any]]:
    replacements: dict[Any, Callable[..., Any]] = {func: partial(_recurrent, func) for func in RECURRENT}
    for func, function in dropout_functions().items():
        if function.name in _LAYERS and not is_of_dropkit(func):
            replacements[func] = partial(_drop, _LAYERS[function.name], function)
    replacements[F.scaled_dot_product_attention] = _attend
    replacements[F.multi_head_attention_forward] = multi_head_code(
        dropout=dropout, scaled_dot_product_attention=_attend
    )
    return replacements


def is_of_dropkit(func: Any) -> bool:
    """Whether a function is dropkit's own."""
    return str(getattr(func, "__module__", "")).startswith("dropkit.")


def _drop(layer: Layer, function: DropoutFunction, *args: Any, **kwargs: Any) -> Any:
    p, training, inplace = function.arguments(args, kwargs)
    input = args[0] if args else kwargs["input"]
    return layer.function(input, p, training, inplace)


def _attend(*args: Any, **kwargs: Any) -> Tensor:
    if not (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)):
        return F.scaled_dot_product_attention(*args, **kwargs)
    # torch's function drops in any mode.
    return scaled_dot_product_attention(*args, **kwargs, training=True)


def _recurrent(func: Any, *args: Any) -> Any:
    packed = is_packed(args)
    p, train, layers = (args[at + packed] for at in (DROPOUT_POSITION, TRAIN_POSITION, NUM_LAYERS_POSITION))
    if not train or not p or layers < 2:
        return func(*args)

    def drop(output: Tensor) -> Tensor:
        return dropout(output, p, train)

    return run_layers(func, args, drop, train)


# Of the module, because compilers trace no cache.
_REPLACEMENTS = _replacements()
