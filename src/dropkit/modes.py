"""Training flags: saved and put back for every single module, whatever `train()` and `eval()` were overridden to do."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def kept(modules: Iterable[nn.Module]) -> Generator[None]:
    """Give each of these modules the training flag that it had, at the end of a `with` block.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
        >>> with kept(model.modules()):
        ...     _ = model.eval()
        >>> [module.training for module in model.modules()]
        [True, True, False]
    """
    flags = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in flags:
            if module.training is not training:
                module.training = training
