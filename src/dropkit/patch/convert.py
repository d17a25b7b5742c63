"""convert: turn torch's dropout modules into dropkit's, in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from dropkit.nn import LAYERS
from dropkit.nn.module import DropoutModule


@dataclass(frozen=True, slots=True)
class Converted:
    """A module that `convert` changed: its name in the model, its class before, and the module."""

    name: str
    before: type[torch.nn.Module]
    module: torch.nn.Module

    def __str__(self) -> str:
        return f"{self.name or '(the model itself)'}: torch.nn.{self.before.__name__} -> dropkit.nn.{self.module}"


def convert(model: torch.nn.Module) -> list[Converted]:
    """Turn every `torch.nn` dropout module of `model`, and `model` itself, into the dropkit module of the same name.

    Each module remains the same object, so its hooks, training flag, `p` and `inplace`, and all references to it, are
    kept. Subclasses of torch's modules, functional calls and the dropout inside `nn.LSTM` or `nn.MultiheadAttention`
    are not converted; `install` reaches them.

    Args:
        model: any module; not compiled or scripted.

    Returns:
        The changed modules, in the order of `model.named_modules()`; a shared module once, by its first name.

    Raises:
        TypeError: `model` is not a module.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1))
        >>> print(*dropkit.convert(model))
        1: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.1, inplace=False)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    classes = {layer.counterpart.module: layer.module for layer in LAYERS if layer.counterpart}
    changed: list[Converted] = []
    named = cast("Iterator[tuple[str, torch.nn.Module]]", model.named_modules())
    for name, module in named:
        before = type(module)
        if before in classes and not isinstance(module, DropoutModule):
            module.__class__ = classes[before]
            changed.append(Converted(name, before, module))
    return changed
