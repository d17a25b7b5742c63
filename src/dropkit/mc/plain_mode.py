"""PlainMode: the function mode of the plain pass of `predict`, in evaluation mode and without dropout.

What comes before the first dropout is reused from the samples, which have computed it. A dropout does what it does in
evaluation mode: nothing, unless the model says otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from dropkit.dropout_functions import DROPOUT_POSITION, RECURRENT, DropoutFunction, dropout_functions, multi_head_code
from dropkit.mc.accelerator import Accelerator
from dropkit.mc.mode import RANDOM, Args, Kwargs
from dropkit.nn.recurrent_layers import is_packed


class PlainMode(TorchFunctionMode):
    """Runs every call as evaluation mode does.

    Like every function mode, it keeps torch from its fused encoder layer, whose outputs may have another shape.

    Args:
        prefix: computes the calls before the first dropout.
    """

    def __init__(self, prefix: Accelerator) -> None:
        super().__init__()
        self._prefix = prefix

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            # The samples run its Python code, too.
            with self:
                return multi_head_code()(*args, **kwargs)
        function = _dropout_function(func)
        if function is not None and not function.attention and function.arguments(args, kwargs)[0] == 0:
            # As the samples call it.
            args, kwargs = function.with_training(args, kwargs)
        elif _is_random_in_samples(func, function, args, kwargs):
            self._prefix.before_site()
            self._prefix = Accelerator()
        output = self._prefix.intercept(func, types, args, kwargs)
        return func(*args, **kwargs) if output is NotImplemented else output


def _dropout_function(func: Any) -> DropoutFunction | None:
    try:
        return dropout_functions().get(func)
    except TypeError:  # some callables have no hash
        return None


def _is_random_in_samples(func: Any, function: DropoutFunction | None, args: Args, kwargs: Kwargs) -> bool:
    """Whether samples may differ by this call."""
    if function is not None:
        return not function.attention or bool(function.arguments(args, kwargs)[0])
    if not isinstance(func, Hashable):
        return False
    return func in RANDOM or (func in RECURRENT and bool(args[DROPOUT_POSITION + is_packed(args)]))
