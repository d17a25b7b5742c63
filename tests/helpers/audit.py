"""Models for tests of the auditor: one for each kind of dropout, and one that changes itself in every way."""

from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

import dropkit
from dropkit.trace import Phase


class Applied(nn.Module):
    """A function of the input and the training flag, as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, self.training)


class DropPath(nn.Module):
    """As in timm."""

    def __init__(self, drop_prob=0.3):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.drop_prob)
        return x * keep.div_(1 - self.drop_prob)


def by_hand(x, training):
    keep = torch.rand_like(x) >= 0.3
    return x * keep / 0.7 if training else x


def attention(x, training):
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if training else 0.0)


P = 0.3
ROWS, MAPS = (64, 12, 16), (32, 24, 4, 4)
# Name: how to make it, shape of its input, kind in the report, granularity.
KINDS = {
    "Dropout": (lambda: nn.Dropout(P), ROWS, "Dropout", "element"),
    "Dropout1d": (lambda: nn.Dropout1d(P), ROWS, "Dropout1d", "channel"),
    "Dropout2d": (lambda: nn.Dropout2d(P), MAPS, "Dropout2d", "channel"),
    "Dropout3d": (lambda: nn.Dropout3d(P), (16, 48, 2, 2, 2), "Dropout3d", "channel"),
    "AlphaDropout": (lambda: nn.AlphaDropout(P), ROWS, "AlphaDropout", "element"),
    "FeatureAlphaDropout": (lambda: nn.FeatureAlphaDropout(P), MAPS, "FeatureAlphaDropout", "channel"),
    "F.dropout": (lambda: Applied(lambda x, on: F.dropout(x, P, on)), ROWS, "dropout", "element"),
    "F.dropout2d": (lambda: Applied(lambda x, on: F.dropout2d(x, P, on)), MAPS, "dropout2d", "channel"),
    "native_dropout": (lambda: Applied(lambda x, on: torch.native_dropout(x, P, on)[0]), ROWS, "native_dropout",
                       "element"),
    "aten": (lambda: Applied(lambda x, on: torch.ops.aten.dropout(x, P, on)), ROWS, "dropout", "element"),
    "LSTM": (lambda: nn.LSTM(16, 8, 3, dropout=P), ROWS, "LSTM", "element"),
    "GRU": (lambda: nn.GRU(16, 8, 3, dropout=P), ROWS, "GRU", "element"),
    "RNN": (lambda: nn.RNN(16, 8, 2, dropout=P), ROWS, "RNN", "element"),
    "MultiheadAttention": (lambda: Attention(), ROWS, "MultiheadAttention", "element"),
    "SDPA": (lambda: Applied(attention), ROWS, "scaled_dot_product_attention", "element"),
    "DropPath": (DropPath, (400, 4), "DropPath", "sample"),
    "by hand": (lambda: Applied(by_hand), ROWS, "mask", "element"),
    "dropkit.nn.Dropout": (lambda: dropkit.nn.Dropout(P), ROWS, "Dropout", "element"),
    "dropkit.nn.Dropout2d": (lambda: dropkit.nn.Dropout2d(P), MAPS, "Dropout2d", "channel"),
    "dropkit.functional": (lambda: Applied(lambda x, on: dropkit.functional.dropout(x, P, on)), ROWS, "dropout",
                           "element"),
}  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, dropout=P, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Restless(nn.Module):
    """Changes everything that a forward can reach; raises an error in the mode `raises`."""

    def __init__(self, raises=None):
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.norm = nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 2)
        self.hidden = [nn.Dropout(0.5)]
        self.calls, self.seen, self.last = 0, [], deque(maxlen=2)
        self.average = torch.zeros(8)
        self.counts = {"calls": 0}
        self.generator = torch.Generator().manual_seed(3)
        self.raises = raises

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.shape)
        self.last.append(self.calls)
        self.counts["calls"] += 1
        self.cache = x
        with torch.no_grad():
            self.average.mul_(0.9).add_(x.mean(0))
            self.head.weight.clamp_(-0.01, 0.01)
        torch.rand(3, generator=self.generator)
        self.dropout.p = min(self.dropout.p + 0.01, 1.0)
        x = self.norm(self.linear(x))
        x = self.lstm(self.hidden[0](self.dropout(x)))[0]
        if self.raises == ("train" if self.training else "eval"):
            raise ArithmeticError(self.raises)
        return self.head(x)


def net():
    """A small network with one dropout, named "2"."""
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))


def only(report):
    """The only site of a report."""
    (site,) = report.sites
    return site


def activity(report):
    """Name, kind, and activity in training and in evaluation mode of each site."""
    return [(site.name, site.kind, site.was_active(Phase.TRAIN), site.was_active(Phase.EVAL)) for site in report.sites]
