"""Characters of the language reference that Python itself installs, for a small character model.

Each example is a window of characters, and its targets are the characters that follow each of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from dropkit.arguments import check
from dropkit.studies.data import Data, Sizes
from dropkit.studies.readers.options import Options

_WINDOW = 64
_WINDOWS = 2000
# Rarer characters become a space: with few examples nothing is learned about them.
_CHARACTERS = 64


def read(rest: str, options: Options) -> Data:
    """Read the text; `rest` must be empty."""
    check("data", not rest and options.task != "regression", "text, for classification", f"text:{rest}")
    from pydoc_data.topics import topics  # half a megabyte, in every installation of Python

    joined = "\n".join(" ".join(topics[name].lower().split()) for name in sorted(topics))
    text = joined[: _WINDOW * _WINDOWS + 1]
    frequent = sorted(character for character, _ in Counter(text).most_common(_CHARACTERS))
    space = frequent.index(" ")
    numbers = {character: number for number, character in enumerate(frequent)}
    codes = torch.tensor([numbers.get(character, space) for character in text])
    inputs, targets = codes[:-1].view(-1, _WINDOW), codes[1:].view(-1, _WINDOW)
    return Data(inputs, targets, tuple(frequent), "Python's language reference")


def recipe(data: Data) -> dict[str, Any]:
    """Return how a character model is trained by default, as fields of `Recipe`.

    With 250 windows it learns them by heart within 30 epochs, so that there is something for dropout to prevent.
    """
    sizes = Sizes(250, 400, 400)
    return {"sizes": sizes, "epochs": 30, "batch_size": 25, "optimizer": "adamw", "learning_rate": 0.005}
