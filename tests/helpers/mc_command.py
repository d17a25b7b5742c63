"""The program that tests of `dropkit mc` run the command on, and calls of the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from dropkit.cli.mc import command

PROGRAM = """
import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

x = torch.linspace(-2, 2, 48).view(12, 4)
y = torch.arange(12) % 3


def seeded(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def net(outputs=3):
    return seeded(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs)))


def value():
    return net(1)


def two():
    return net(2)


def one_logit():
    return nn.Sequential(net(1), nn.Flatten(0))


def of_images():
    return nn.Sequential(nn.Flatten(), seeded(nn.Linear(192, 4)), net())


def of_pixels():
    return nn.Sequential(nn.Dropout2d(0.3), seeded(nn.Conv2d(3, 3, 1)))


def misses_a_file():
    return torch.load("weights.bin")


def probabilities():
    return nn.Sequential(net(), nn.Softmax(1))


def sigmoids():
    return nn.Sequential(net(), nn.Sigmoid())


def tokens():
    return seeded(nn.Sequential(nn.Embedding(9, 8), nn.Dropout(0.5), nn.Linear(8, 5)))


def plain():
    return nn.Linear(4, 3)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, mask):
        return self.net(x) + mask


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("no such thing")


class Leaves(nn.Module):
    def forward(self, x):
        raise SystemExit(0)


class Loud(Named):
    def forward(self, x):
        print("in the model", flush=True)  # click 8.2's CliRunner forgets what is in the buffer
        return self.net(x)


class Broken(Named):
    def forward(self, x):
        return self.net(x).index_fill(0, torch.tensor([0]), float("nan"))


class Wide(Named):
    def forward(self, x):
        return self.net(x).repeat(1, 400)


def inputs(): return x
def array(): return x.double().numpy()
def pair(): return x, y
def array_pair(): return x.double().numpy()[::-1], y.numpy()
def without(): return x, None
def images(): return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), y
def pictures(): return images()[0]
def label_sets(): return x, (x > 0)[:, :3]
def values(): return x, x.sum(1)
def values_of_two(): return x, x[:, :2]
def batches(): return (pair for pair in zip(x.split(5), y.split(5)))
def loader(): return DataLoader(TensorDataset(x, y), batch_size=5)
def last_dropped(): return DataLoader(TensorDataset(x, y), batch_size=5, drop_last=True), y[:10]
def untrue(): return DataLoader(TensorDataset(x, y), batch_size=5), None
def bare(): return DataLoader(x, batch_size=5)
def named(): return {"x": x, "mask": torch.zeros(12, 1), "y": y}
def args(): return (x, torch.zeros(12, 1)), y
def sentences(): return torch.arange(24).view(6, 4) % 9, torch.arange(24).view(6, 4) % 5
def loud():
    print("in the data", flush=True)
    return x, y
def dataset(): return TensorDataset(x, y)
def uneven(): return iter([(x[:4], y[:4]), (x[4:], y[4:, None])])
def fails(): raise KeyError("no such data")
def empty(): return x[:0]
def scalar(): return torch.tensor(1.0)
"""
X = torch.linspace(-2, 2, 48).view(12, 4)
Y = torch.arange(12) % 3
# Begins a line of the report on classes.
ERROR = "error                                 "
NO_WEIGHTS = (
    "warning: no --weights given: unless the code of the model loads some itself, they are random, and these "
    "predictions mean nothing\n"
)


def program() -> dict[str, Any]:
    """The names that the program defines."""
    names: dict[str, Any] = {}
    exec(PROGRAM, names)
    return names


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def output(*arguments: object) -> str:
    """What a call that must not fail prints."""
    result = run(*arguments)
    assert (result.exit_code, result.exception) == (0, None), result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    """The one line with which a call is refused."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.partition("Error: ")[2].rstrip()


def records(*arguments: object) -> list[dict[str, Any]]:
    """The lines of JSON of a call, which must be all that it prints."""
    return [json.loads(line, parse_constant=pytest.fail) for line in output(*arguments, "--jsonl", "-").splitlines()]
