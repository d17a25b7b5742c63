"""Is dropout in recurrent networks faster than by the formulas of other libraries?

Forward and backward passes. The formulas are those of fastai (a mask that is multiplied, weights that are replaced, a
table of embeddings that is dropped as a whole), Keras (a loop over a cell) and fairseq (zoneout by a mask).
The sizes are those of the AWD-LSTM: 70 time steps, 64 sequences, 400 features, 1150 hidden units, 50 000 words; where
time steps run one by one 256 hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import Row, faster
from torch import Tensor, nn

from dropkit.functional import embedding_dropout, locked_dropout, word_dropout, zoneout
from dropkit.nn import RecurrentDropout, WeightDrop

STEPS, SEQUENCES, FEATURES, HIDDEN, WORDS = 70, 64, 400, 1150, 50_000


def step(call: Callable[[], Tensor], leaves: list[Tensor]) -> None:
    output = call()
    torch.autograd.grad(output, leaves, torch.ones_like(output))


def masks(like: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    return like.new_empty(shape).bernoulli_(1 - p).div_(1 - p)


def rows() -> list[Row]:
    return [*elementwise(), *embeddings(), *layers()]


def elementwise() -> list[Row]:
    x = torch.randn(STEPS, SEQUENCES, FEATURES, requires_grad=True)
    old, new = (torch.randn(SEQUENCES, HIDDEN, requires_grad=True) for _ in range(2))
    words = torch.randint(WORDS, (STEPS, SEQUENCES))

    def zoned() -> Tensor:
        mask = torch.empty_like(new).bernoulli_(0.1)
        return mask * old + (1 - mask) * new

    def worded() -> Tensor:
        return torch.where(torch.rand(words.shape) < 0.1, 0, words)

    return [
        faster(
            "locked dropout, fastai's formula",
            partial(step, lambda: locked_dropout(x, 0.4), [x]),
            partial(step, lambda: x * masks(x, (1, *x.shape[1:]), 0.4), [x]),
            ">= 1",
        ),
        faster(
            "zoneout, fairseq's formula",
            partial(step, lambda: zoneout(old, new, 0.1), [old, new]),
            partial(step, zoned, [old, new]),
            ">= 1",
        ),
        faster("word dropout, torch.rand", lambda: word_dropout(words, 0, 0.1), worded, ">= 1"),
    ]


def embeddings() -> list[Row]:
    words = torch.randint(WORDS, (STEPS, SEQUENCES))
    weight = torch.randn(WORDS, FEATURES, requires_grad=True)
    return [
        faster(
            "embedding dropout, fastai's formula",
            partial(step, lambda: embedding_dropout(words, weight, 0.1), [weight]),
            partial(step, lambda: F.embedding(words, weight * masks(weight, (WORDS, 1), 0.1)), [weight]),
            ">= 1",
        )
    ]


def layers() -> list[Row]:
    lstm, plain = nn.LSTM(FEATURES, HIDDEN), nn.LSTM(FEATURES, HIDDEN)
    x = torch.randn(20, 16, FEATURES)
    dropped = WeightDrop(lstm, ["weight_hh_l0"], 0.5)

    def replaced() -> Tensor:
        weight = F.dropout(plain.weight_hh_l0, 0.5)
        return torch.lstm(
            x, (x.new_zeros(1, 16, HIDDEN),) * 2, [plain.weight_ih_l0, weight, *plain.all_weights[0][2:]], True, 1, 0.0,
            True, False, False,
        )[0]  # fmt: skip

    table = [
        faster(
            "dropped hidden weights, fastai's formula",
            partial(step, lambda: dropped(x)[0], list(lstm.parameters())),
            partial(step, replaced, list(plain.parameters())),
            ">= 1",
        )
    ]
    sequence = torch.randn(STEPS, SEQUENCES, 128)
    for kind, cell_kind in ((nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)):
        layer, cell = RecurrentDropout(kind(128, 256), recurrent_p=0.3), cell_kind(128, 256)
        table.append(
            faster(
                f"dropped states, a loop over nn.{cell_kind.__name__}",
                partial(step, partial(outputs_of, layer, sequence), list(layer.parameters())),
                partial(step, partial(looped, cell, sequence), list(cell.parameters())),
                ">= 1",
            )
        )
    inner, torchs = RecurrentDropout(nn.LSTM(128, 256, 2), hidden_p=0.3), nn.LSTM(128, 256, 2, dropout=0.3)
    table.append(
        faster(
            "locked dropout between two layers, torch's dropout there",
            partial(step, partial(outputs_of, inner, sequence), list(inner.parameters())),
            partial(step, partial(outputs_of, torchs, sequence), list(torchs.parameters())),
            ">= 1",
        )
    )
    return table


def outputs_of(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)[0]


def looped(cell: nn.Module, x: Tensor) -> Tensor:
    """As Keras' cells: the state that enters the cell's product is dropped by one mask, also what a GRU carries."""
    is_lstm = isinstance(cell, nn.LSTMCell)
    h = c = x.new_zeros(x.shape[1], 256)
    mask, outputs = masks(h, (x.shape[1], 256), 0.3), []
    for x_t in x:
        if is_lstm:
            h, c = cell(x_t, (h * mask, c))
        else:
            h = cell(x_t, h * mask)
        outputs.append(h)
    return torch.stack(outputs)
