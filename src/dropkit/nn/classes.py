"""What the classes of dropkit's modules are to code that looks modules up by their exact class."""

from __future__ import annotations

import torch


class AsTorchs(type):
    """Makes dropkit's class of a module equal to torch's, though it is another object.

    torch's quantisation, and much else, looks modules up by their exact class: in lists, in tables, with ==. There ours
    is torch's. A subclass is itself, as one of torch's classes is.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is _torchs(cls)

    def __hash__(cls) -> int:
        return type.__hash__(_torchs(cls))


def _torchs(kind: type) -> type:
    """The class of torch's that `kind` stands for, or itself."""
    base = kind.__bases__[-1]
    return base if base.__module__ == torch.nn.Dropout.__module__ else kind
