"""The dropout between the layers of `nn.LSTM`, `nn.GRU` and `nn.RNN` when a compiler decomposes them.

torch 2.13 has Python decompositions of the recurrent operators, used under `torch._dynamo.config.allow_rnn`. They lose
the dropout: a condition on the layer's number is never true. All of them run their layers by one function of torch's,
which is replaced by one that calls it for a single layer at a time, with the dropout between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.torch_private import recurrent_layer, recurrent_walk, set_recurrent_walk


def keep_dropout() -> None:
    """Make torch's decompositions drop between layers; do nothing if this torch has no such function."""
    if recurrent_walk is not None:
        set_recurrent_walk(_run_with_dropout)


def restore() -> None:
    """Undo `keep_dropout`."""
    if recurrent_walk is not None:
        set_recurrent_walk(recurrent_walk)


def _run_with_dropout(
    input: Tensor,
    hidden: Sequence[Any],
    params: Sequence[Sequence[Tensor]],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    layer: Callable[..., Any],
) -> tuple[Tensor, list[Any]]:
    if layer is recurrent_layer("mkldnn_one_layer_lstm") and _differentiated(input, params):
        # torch checks the input alone, and this function has no gradient.
        layer = recurrent_layer("one_layer_lstm")
    run: Any = recurrent_walk
    directions = 2 if bidirectional else 1
    # Time first, as in eager mode, so that the masks are the same.
    output = input.transpose(0, 1) if batch_first else input
    last: list[Any] = []
    for index in range(num_layers):
        if index > 0 and train and dropout:
            output = torch.dropout(output, dropout, True)
        own = slice(index * directions, (index + 1) * directions)
        output, hiddens = run(output, hidden[own], params[own], has_biases, 1, 0.0, train, bidirectional, False, layer)
        last.extend(hiddens)
    return (output.transpose(0, 1) if batch_first else output), last


def _differentiated(input: Tensor, params: Sequence[Sequence[Tensor]]) -> bool:
    tensors = [input, *(param for layer in params for param in layer)]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
