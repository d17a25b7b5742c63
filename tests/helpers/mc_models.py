"""Models for tests of Monte Carlo dropout: each kind of dropout, and each dimension in which inputs may lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from helpers.rounding import equal_but_for_rounding
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropkit.nn


class Calls(nn.Module):
    """A model with this function as its forward pass, which finds the layers as attributes."""

    def __init__(self, forward: Callable[[Calls, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Functional(nn.Module):
    """`F.dropout` that follows the module's flag."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training)


class Attention(nn.Module):
    """`F.scaled_dot_product_attention`, with a rate that the module sets to 0 in evaluation mode."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (2, 4)).transpose(1, 2)
        out = F.scaled_dot_product_attention(x, x, x, dropout_p=self.p if self.training else 0.0)
        return out.transpose(1, 2).flatten(2)


class DropPath(nn.Module):
    """DropPath as in timm, which makes its mask itself: one mask element per sample."""

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.drop_prob, self.training)


def drop_path(x: Tensor, drop_prob: float, training: bool) -> Tensor:
    if drop_prob == 0.0 or not training:
        return x
    keep = x.new_empty((len(x),) + (1,) * (x.dim() - 1)).bernoulli_(1 - drop_prob)
    return x * keep / (1 - drop_prob)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Around(nn.Module):
    """A layer with dropout behind batch norm; (N, 5, 8) to (N, 5)."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.norm, self.layer, self.head = nn.BatchNorm1d(5), layer, nn.Linear(8, 5)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        out = self.layer(x.reshape(len(x), *self.shape) if self.shape else x)
        out = out[0] if isinstance(out, tuple) else out
        return self.head(torch.tanh(out.reshape(len(x), -1, 8)).mean(1))


# Twelve kinds of layer with dropout, and dropkit's own.
KINDS: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: Around(nn.Dropout()),
    "Dropout1d": lambda: Around(nn.Dropout1d()),
    "Dropout2d": lambda: Around(nn.Dropout2d(), (5, 2, 4)),
    "Dropout3d": lambda: Around(nn.Dropout3d(), (5, 2, 2, 2)),
    "AlphaDropout": lambda: Around(nn.AlphaDropout()),
    "FeatureAlphaDropout": lambda: Around(nn.FeatureAlphaDropout()),
    "F.dropout": lambda: Around(Functional()),
    "LSTM": lambda: Around(nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)),
    "MultiheadAttention": lambda: Around(SelfAttention()),
    "TransformerEncoderLayer": lambda: Around(nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True)),
    "scaled_dot_product_attention": lambda: Around(Attention()),
    "DropPath": lambda: Around(DropPath()),
    "dropkit.nn.Dropout": lambda: Around(dropkit.nn.Dropout()),
}


class SequenceFirst(nn.Module):
    """Inputs in the second dimension, as torch's recurrent networks and transformers have them by default."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x.transpose(0, 1))
        return self.head((out[0] if isinstance(out, tuple) else out).mean(0))


class Folded(nn.Module):
    """Inputs folded into one dimension with tokens: first (inputs, tokens), then (tokens, inputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        x = F.dropout(self.first(x).view(-1, 8), 0.3, self.training).view(count, tokens, 8)
        x = F.dropout(x.transpose(0, 1).reshape(-1, 8), 0.2, self.training)
        return self.head(x.view(tokens, count, 8).mean(0))


class Residual(nn.Module):
    """Uses again what was dropped in place, and what was computed before the first dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Dropout(0.5)
        self.last_drop, self.head = nn.Dropout(0.5, inplace=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.mean(1))
        h = self.drop(F.relu(self.shared(self.drop(F.relu(x)))))
        return self.head(self.last_drop(h + x))


class Packed(nn.Module):
    """Sequences of several lengths, packed."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.inner, self.head = kind(8, 8, 3, dropout=0.4), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        lengths = 1 + (x[:, 0, 0].abs() * 100).long() % 5
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.inner(packed)[0], batch_first=True)
        return self.head(out.sum(1) / lengths[:, None])


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerDecoderLayer(8, 2, 16, 0.2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(5)
        return self.head(self.layer(x, x.flip(1), tgt_is_causal=True, tgt_mask=causal).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(40, 64), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(64, 48), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(48, 5)),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 5)), nn.Conv2d(1, 6, 3, padding=1), nn.Dropout2d(0.3), nn.ReLU(), nn.Conv2d(6, 12, 3)),
        *(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(36, 20), nn.Sigmoid()),
        *(nn.Dropout(0.5), nn.Linear(20, 5)),
    )


# All take (N, 5, 8) and return (N, 5).
MODELS: dict[str, Callable[[], nn.Module]] = {
    **KINDS,
    "mlp": mlp,
    "cnn": cnn,
    "GRU, sequence first": lambda: SequenceFirst(nn.GRU(8, 4, 3, dropout=0.4, bidirectional=True)),
    "RNN": lambda: Around(nn.RNN(8, 8, 2, dropout=0.4, batch_first=True)),
    "encoder, sequence first": lambda: SequenceFirst(nn.TransformerEncoderLayer(8, 2, 16, 0.2)),
    "decoder layer": Decoder,
    "LSTM, packed": lambda: Packed(nn.LSTM),
    "GRU, packed": lambda: Packed(nn.GRU),
    "folded": Folded,
    "residual": Residual,
}


def made(name: str) -> nn.Module:
    """Make a model with the same weights each time, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]().eval()


def inputs(count: int) -> Tensor:
    return torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(1))


def flags(model: nn.Module) -> list[tuple[type[Any], Any]]:
    """The class and the training flag of every module."""
    return [(type(module), vars(module)["training"]) for module in model.modules()]


def spread(model: nn.Module, x: Tensor, samples: int = 8) -> Tensor:
    """The largest variance of an output over several passes."""
    return torch.stack([model(x) for _ in range(samples)]).var(0).amax()


def close(result: Tensor, expected: Tensor) -> bool:
    """Compare outputs that were computed with sums in another order.

    The longest sums are those of `mlp`: a value passes dot products of 40, 64 and 48 terms, and three elementwise
    functions. Intermediate values of all models here are of the size of the outputs.
    """
    return equal_but_for_rounding(result, expected, 40 + 64 + 48 + 3)
