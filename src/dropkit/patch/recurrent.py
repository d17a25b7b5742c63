"""The dropout between the layers of `nn.LSTM`, `nn.GRU` and `nn.RNN` when a compiler decomposes them.

torch 2.13 has Python decompositions of the recurrent operators, used under `torch._dynamo.config.allow_rnn`. They lose
the dropout: a condition on the layer's number is never true. All of them run their layers by `_rnn_helper`,
which is replaced by a function that calls it for one layer at a time and drops between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.torch_private import rnn_helper, rnn_layer, set_rnn_helper


def keep_dropout() -> None:
    """Make torch's decompositions drop between layers; do nothing if this torch has no such function."""
    if rnn_helper is not None:
        set_rnn_helper(_run_with_dropout)


def restore() -> None:
    """Undo `keep_dropout`."""
    if rnn_helper is not None:
        set_rnn_helper(rnn_helper)


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
    if layer is rnn_layer("mkldnn_one_layer_lstm") and _differentiated(input, params):
        # torch checks the input alone, and this function has no gradient.
        layer = rnn_layer("one_layer_lstm")
    run: Any = rnn_helper
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
