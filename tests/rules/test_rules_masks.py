"""DRP108: dropout written by hand, as strangers write it, and random numbers that drop nothing or follow the mode."""

import pytest

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """\
import math
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Bernoulli

"""

BAD = {
    "word dropout in an encoder": """
class SentenceEncoder(nn.Module):
    def __init__(self, vocab, width, word_dropout=0.1):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.word_dropout = word_dropout

    def forward(self, tokens):
        embedded = self.embedding(tokens)
        keep = torch.rand(tokens.shape, device=tokens.device) > self.word_dropout
        embedded = embedded * keep.unsqueeze(-1)
        return self.lstm(embedded)[0]
""",
    "a mask in NumPy": """
class Regressor(nn.Module):
    def __init__(self, d, rate):
        super().__init__()
        self.l1 = nn.Linear(d, 64)
        self.l2 = nn.Linear(64, 1)
        self.rate = rate

    def forward(self, x):
        h = F.relu(self.l1(x))
        m = np.random.binomial(1, 1 - self.rate, size=h.shape) / (1 - self.rate)
        h = h * torch.tensor(m, dtype=h.dtype)
        return self.l2(h)
""",
    "a mask from NumPy by its bits": """
class Feats(nn.Module):
    def __init__(self, dropout_ratio):
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        mask = torch.from_numpy((np.random.rand(*x.shape) > self.dropout_ratio).astype(np.float32))
        return self.fc(x * mask.to(x.device))
""",
    "dropped connections": """
class DropConnectLinear(nn.Linear):
    def __init__(self, inp, out, prob=0.5):
        super().__init__(inp, out)
        self.prob = prob

    def forward(self, x):
        mask = torch.empty_like(self.weight).bernoulli_(1 - self.prob)
        return F.linear(x, self.weight * mask, self.bias)
""",
    "a distribution kept in an attribute": """
class InputDropout(nn.Module):
    def __init__(self, p=0.2):
        super().__init__()
        self.p = p
        self.bernoulli = Bernoulli(probs=torch.tensor(1 - p))

    def forward(self, x):
        return x * self.bernoulli.sample(x.size()).to(x) / (1 - self.p)
""",
    "a mask kept in an attribute": """
class LockedLayer(nn.Module):
    def __init__(self, size, dropout):
        super().__init__()
        self.cell = nn.GRUCell(size, size)
        self.dropout = dropout

    def forward(self, steps, h):
        self.mask = torch.bernoulli(torch.full_like(h, 1 - self.dropout)) / (1 - self.dropout)
        for x in steps:
            h = self.cell(x, h * self.mask)
        return h
""",
    "a method that returns the mask": """
class VariationalRNN(nn.Module):
    def __init__(self, size, p):
        super().__init__()
        self.rnn = nn.RNN(size, size)
        self.p = p

    def _dropout_mask(self, x):
        return torch.bernoulli(torch.ones(1, x.size(1), x.size(2)) * (1 - self.p)) / (1 - self.p)

    def forward(self, x):
        out, _ = self.rnn(x * self._dropout_mask(x))
        return out
""",
    "a function that returns the mask": """
def make_drop_mask(shape, rate):
    keep = 1.0 - rate
    return torch.rand(shape).lt(keep).float().div(keep)


class Tower(nn.Module):
    def __init__(self, n, rate):
        super().__init__()
        self.fc = nn.Linear(n, n)
        self.rate = rate

    def forward(self, x):
        return self.fc(x) * make_drop_mask(x.shape, self.rate)
""",
    "compared by a function": """
class ChannelDrop(nn.Module):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, feature_map):
        n, c = feature_map.shape[:2]
        keep = torch.ge(torch.rand(n, c, 1, 1, device=feature_map.device), self.drop_prob)
        return torch.mul(feature_map, keep)
""",
    "set to zero at once": """
class RandomZero(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.drop = drop
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        x = self.fc(x)
        x[torch.rand_like(x) < self.drop] = 0.0
        return x
""",
    "where with a number": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 100)
        self.fc2 = nn.Linear(100, 10)
        self.drop_p = 0.5

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        h = torch.where(torch.rand(h.shape) < self.drop_p, 0.0, h)
        return self.fc2(h)
""",
    "layer drop": """
class Encoder(nn.Module):
    def __init__(self, layers, layerdrop=0.1):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.layerdrop = layerdrop

    def forward(self, x):
        for layer in self.layers:
            if random.random() < self.layerdrop:
                continue
            x = layer(x)
        return x
""",
    "stochastic depth by a random number": """
class ResidualBlock(nn.Module):
    def __init__(self, width, drop_rate):
        super().__init__()
        self.branch = nn.Linear(width, width)
        self.drop_rate = drop_rate

    def forward(self, x):
        if torch.rand(1).item() < self.drop_rate:
            return x
        return x + self.branch(x)
""",
    "random positions": """
class TokenDropper(nn.Module):
    def __init__(self, drop_ratio):
        super().__init__()
        self.drop_ratio = drop_ratio
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        count = int(x.size(1) * self.drop_ratio)
        dropped = torch.randperm(x.size(1))[:count]
        x = x.clone()
        x[:, dropped] = 0
        return self.fc(x)
""",
    "a modality dropped": """
class Fusion(nn.Module):
    def __init__(self, d, modality_dropout=0.3):
        super().__init__()
        self.audio, self.video = nn.Linear(d, d), nn.Linear(d, d)
        self.modality_dropout = modality_dropout

    def forward(self, a, v):
        a, v = self.audio(a), self.video(v)
        if np.random.rand() < self.modality_dropout:
            a = torch.zeros_like(a)
        return torch.cat([a, v], -1)
""",
    "uniform numbers in place": """
class Head(nn.Module):
    def __init__(self, keep_prob):
        super().__init__()
        self.keep_prob = keep_prob
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        noise = torch.empty(x.size(), device=x.device).uniform_(0, 1)
        gate = (noise <= self.keep_prob).type_as(x)
        return self.out(x * gate / self.keep_prob)
""",
    "coins": """
class HalfDropout(nn.Module):
    def forward(self, x):
        coin = torch.randint(0, 2, x.shape, device=x.device)
        return 2 * x * coin
""",
    "in two steps, multiplied in place": """
class Mlp(nn.Module):
    def __init__(self, dims, p_drop):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:]))
        self.p_drop = p_drop

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
            probabilities = torch.full_like(x, 1 - self.p_drop)
            x.mul_(torch.bernoulli(probabilities)).div_(1 - self.p_drop)
        return x
""",
    "in a class that inherits": """
class Base(nn.Module):
    def __init__(self, width, p=0.5):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.p = p

    def regularise(self, h):
        return h


class Dropped(Base):
    def regularise(self, h):
        return h * torch.bernoulli((1 - self.p) * torch.ones_like(h)) / (1 - self.p)

    def forward(self, x):
        return self.regularise(self.fc(x))
""",
    "edges of a graph": """
class GraphConv(nn.Module):
    def __init__(self, d, edge_dropout):
        super().__init__()
        self.lin = nn.Linear(d, d)
        self.edge_dropout = edge_dropout

    def forward(self, x, adj):
        mask = (torch.rand_like(adj) > self.edge_dropout).float()
        return torch.matmul(adj * mask, self.lin(x))
""",
}
RIGHT = {
    "returned in evaluation": """
class Drop(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.training is False or self.p == 0:
            return x
        return x * torch.bernoulli(torch.full_like(x, 1 - self.p)) / (1 - self.p)
""",
    "layer drop in training": """
class Encoder(nn.Module):
    def __init__(self, layers, layerdrop):
        super().__init__()
        self.layers, self.layerdrop = nn.ModuleList(layers), layerdrop

    def forward(self, x):
        for layer in self.layers:
            skip = self.training and random.random() < self.layerdrop
            if not skip:
                x = layer(x)
        return x
""",
    "a rate of zero in evaluation": """
class TokenDrop(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        p = self.p if self.training else 0.0
        return x * (torch.rand(x.shape[0], 1) >= p)
""",
    "labels that are sampled": """
class ScheduledDecoder(nn.Module):
    def __init__(self, cell, out, teacher_forcing_ratio=0.5):
        super().__init__()
        self.cell, self.out, self.ratio = cell, out, teacher_forcing_ratio

    def forward(self, x, target):
        for t in range(target.size(1)):
            x = self.cell(x)
            use_teacher = torch.rand(1).item() < self.ratio
            x = target[:, t] if use_teacher else self.out(x)
        return x
""",
    "a random initial state": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask = torch.rand(8, 8) > 0.5
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return F.linear(x, self.fc.weight * self.mask)
""",
    "an augmentation of images": """
class RandomErasing(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, img):
        if torch.rand(1) < self.p:
            img = img.flip(-1)
        return img
""",
    "a mask that is passed in": """
class Cell(nn.Module):
    def forward(self, x, h, dropout_mask):
        return x * dropout_mask + h
""",
    "a mask made in training": """
class Rnn(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        self.fc = nn.Linear(3, 3)

    def _mask(self, x):
        return torch.bernoulli(torch.full_like(x, 1 - self.p)) / (1 - self.p)

    def forward(self, x):
        if self.training:
            x = x * self._mask(x)
        return self.fc(x)
""",
    "a loss that corrupts": """
class MaskedAutoencoder(nn.Module):
    def __init__(self, mask_ratio):
        super().__init__()
        self.mask_ratio = mask_ratio
        self.net = nn.Linear(8, 8)

    def loss(self, x):
        keep = torch.rand_like(x) > self.mask_ratio
        return F.mse_loss(self.net(x * keep), x)
""",
    "a token of padding": """
class Embed(nn.Module):
    def forward(self, x, lengths):
        keep = torch.arange(x.size(1)) < lengths[:, None]
        return x * keep.unsqueeze(-1)
""",
    "unconditional guidance": """
class Denoiser(nn.Module):
    def __init__(self, cond_drop_prob):
        super().__init__()
        self.cond_drop_prob = cond_drop_prob

    def forward(self, x, cond, cond_drop_prob=None):
        keep = torch.rand(x.shape[0]) > default(cond_drop_prob, self.cond_drop_prob)
        return x + torch.where(keep[:, None], cond, self.null)
""",
}


def found(source):
    findings = check(read("example.py", Text((HEAD + source).encode())), [r for r in RULES if r.code == "DRP108"])
    return [finding.severity.value for finding in findings]


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_a_mask_that_ignores_the_mode_is_found(source):
    """Each is reported once, as a warning."""
    assert found(source) == ["warning"]


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
def test_other_random_numbers_are_left_alone(source):
    """What follows the mode, or drops nothing, is no warning."""
    assert "warning" not in found(source)
