"""DRP108: dropout written by hand in many forms, and random numbers that drop nothing or follow the mode."""

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
    "layer drop by a condition on the layer": """
class Encoder(nn.Module):
    def __init__(self, layers, layerdrop=0.1):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.layerdrop = layerdrop

    def forward(self, x):
        for layer in self.layers:
            if random.random() > self.layerdrop:
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
    "random integers": """
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
    "a function that drops connections": """
def drop_connect(inputs, p):
    batch_size = inputs.shape[0]
    keep_prob = 1 - p
    random_tensor = keep_prob
    random_tensor += torch.rand([batch_size, 1, 1, 1], dtype=inputs.dtype, device=inputs.device)
    binary_tensor = torch.floor(random_tensor)
    return inputs / keep_prob * binary_tensor

class MBConv(nn.Module):
    def __init__(self, c, rate):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
        self.rate = rate
    def forward(self, inputs):
        x = self.conv(inputs)
        x = drop_connect(x, self.rate)
        return x + inputs
""",
    "a mask of uniform numbers": """
class MaskedLinear(nn.Module):
    def __init__(self, i, o, p=0.4):
        super().__init__()
        self.lin = nn.Linear(i, o)
        self.p = p
    def forward(self, x: Tensor) -> Tensor:
        drop_mask = torch.zeros_like(x).uniform_() < self.p
        x = x.masked_fill(drop_mask, 0.)
        return self.lin(x / (1 - self.p))
""",
    "a binomial distribution": """
class Regularizer(nn.Module):
    def __init__(self, prob):
        super().__init__()
        self.prob = prob
    def forward(self, x):
        keep = torch.distributions.binomial.Binomial(probs=1 - self.prob).sample(x.size())
        return x * keep * (1.0 / (1 - self.prob))
""",
    "choices": """
class L(nn.Module):
    def __init__(self, drop_p):
        super().__init__()
        self.drop_p = drop_p
        self.f = nn.Linear(2, 2)
    def forward(self, x):
        m = np.random.choice([0, 1], size=x.shape, p=[self.drop_p, 1 - self.drop_p])
        return self.f(x * torch.as_tensor(m))
""",
    "weights of attention": """
class SelfAttn(nn.Module):
    def __init__(self, d, attn_drop):
        super().__init__()
        self.qkv = nn.Linear(d, 3 * d)
        self.attn_drop = attn_drop
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        w = torch.softmax(q @ k.transpose(-1, -2), -1)
        drop = torch.rand_like(w) < self.attn_drop
        w = w.masked_fill(drop, 0.0)
        return w @ v
""",
    "layers kept by chance": """
class Tr(nn.Module):
    def __init__(self, layers, p_layer_drop):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.p_layer_drop = p_layer_drop
    def forward(self, x):
        kept = [l for l in self.layers if random.random() > self.p_layer_drop]
        for l in kept:
            x = l(x)
        return x
""",
    "a branch by a flag": """
class StochasticBlock(nn.Module):
    def __init__(self, block, survival=0.8):
        super().__init__()
        self.block, self.survival = block, survival
    def forward(self, x):
        alive = torch.rand(1).item() < self.survival
        if alive:
            return x + self.block(x)
        else:
            return x
""",
    "a branch times a number": """
class Skip(nn.Module):
    def __init__(self, fn, prob):
        super().__init__()
        self.fn, self.prob = fn, prob
    def forward(self, x):
        b = torch.bernoulli(torch.tensor(1 - self.prob))
        return x + b * self.fn(x) / (1 - self.prob)
""",
    "rows of an embedding": """
class EmbDrop(nn.Module):
    def __init__(self, v, d, dropout=0.1):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        self.dropout = dropout
    def forward(self, words):
        kept = self.emb.weight.data.new().resize_((self.emb.weight.size(0), 1)).bernoulli_(1 - self.dropout)
        mask = kept.expand_as(self.emb.weight) / (1 - self.dropout)
        return F.embedding(words, mask * self.emb.weight)
""",
    "a mask with one more dimension": """
class D(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        dropped = (torch.rand(x.size(0), x.size(1)).to(x.device) <= self.p)[:, :, None]
        return torch.where(dropped, torch.zeros_like(x), x)
""",
    "zoneout": """
class ZoneoutLSTM(nn.Module):
    def __init__(self, i, h, zoneout=0.1):
        super().__init__()
        self.cell = nn.LSTMCell(i, h); self.zoneout = zoneout
    def forward(self, x, state):
        h, c = state
        nh, nc = self.cell(x, state)
        m = torch.bernoulli(torch.full_like(h, self.zoneout))
        return m * h + (1 - m) * nh, nc
""",
    "a static method": """
class Net(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p, self.l = p, nn.Linear(3, 3)
    @staticmethod
    def drop(t, p):
        return t * (torch.rand_like(t) > p).float() / (1 - p)
    def forward(self, x):
        return self.drop(self.l(x), self.p)
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
    "a flag of a function": """
def drop_path(x, drop_prob: float = 0., training: bool = False):
    if drop_prob == 0. or not training:
        return x
    keep_prob = 1 - drop_prob
    r = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_prob)
    return x * r.div_(keep_prob)
class DropPath(nn.Module):
    def __init__(self, p): super().__init__(); self.p = p
    def forward(self, x): return drop_path(x, self.p, self.training)
""",
    "masked tokens": """
class MaskTokens(nn.Module):
    def __init__(self, ratio): super().__init__(); self.ratio = ratio
    def forward(self, ids):
        m = torch.rand(ids.shape) < self.ratio
        keep = ~m
        return ids * keep + 103 * m
""",
    "noise of a router": """
class Router(nn.Module):
    def __init__(self, d, n): super().__init__(); self.w = nn.Linear(d, n)
    def forward(self, x):
        logits = self.w(x)
        return logits + torch.rand_like(logits) * self.training
""",
    "in the step of training": """
class M(nn.Module):
    def __init__(self, p): super().__init__(); self.p = p; self.f = nn.Linear(2, 2)
    def forward(self, x): return self.f(x)
    def training_step(self, batch, i):
        x, y = batch
        drop = torch.rand_like(x) < self.p
        return F.mse_loss(self(x.masked_fill(drop, 0)), y)
""",
    "another flag": """
class W(nn.Module):
    def __init__(self, p): super().__init__(); self.p = p; self.deterministic = False
    def forward(self, x):
        if self.deterministic: return x
        return x * torch.bernoulli(torch.full_like(x, 1 - self.p)) / (1 - self.p)
""",
    "random slopes": """
class RandomLeaky(nn.Module):
    def forward(self, x):
        a = torch.rand_like(x) * 0.2
        return torch.where(x >= 0, x, a * x)
""",
    "a mask of the constructor": """
class SparseLinear(nn.Linear):
    def __init__(self, i, o, keep):
        super().__init__(i, o)
        mask = (torch.rand(o, i) < keep).float()
        self.register_buffer("mask", mask)
        self.weight.data *= mask
    def forward(self, x): return F.linear(x, self.weight * self.mask, self.bias)
""",
    "scheduled sampling": """
class Dec(nn.Module):
    def __init__(self, c, p): super().__init__(); self.c = c; self.p = p
    def forward(self, x, y):
        for t in range(3):
            if random.random() < self.p:
                x = y[:, t]
            x = self.c(x)
        return x
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
