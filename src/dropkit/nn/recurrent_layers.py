"""torch's recurrent functions, one layer after the other, with dropout of one's own between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_packed(args: Sequence[Any]) -> bool:
    """Whether the arguments of a recurrent function are those for packed sequences: one more, the second."""
    return isinstance(args[-1], bool) and not isinstance(args[3], bool)


def run_layers(func: Any, args: Sequence[Any], drop: Callable[[Tensor], Tensor], train: bool) -> tuple[Any, ...]:
    """Compute `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`, calling `drop` between its layers.

    Args:
        func: the function.
        args: its arguments, all by position. Its rate and flag are not read.
        drop: from the output of a layer to the input of the next. Of packed sequences both are packed.
        train: the flag for each layer.
    """
    count = 1 + is_packed(args)
    inputs, (state, params, biases, layers, _, _, bidirectional, *batch_first) = args[:count], args[count:]
    output, directions, each = inputs[0], 1 + bidirectional, len(params) // layers
    states: list[Any] = []
    for layer in range(layers):
        if layer:
            output = drop(output)
        own = slice(layer * directions, (layer + 1) * directions)
        start = state[own] if isinstance(state, Tensor) else [part[own] for part in state]
        weights = params[layer * each : (layer + 1) * each]
        output, *last = func(output, *inputs[1:], start, weights, biases, 1, 0.0, train, bidirectional, *batch_first)
        states.append(last)
    return output, *(torch.cat(ends) for ends in zip(*states, strict=True))
