"""convert: turn the dropout modules of torch, and of other libraries, into dropkit's, in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from dropkit.catalog import DROPOUT_CLASS_NAME
from dropkit.nn.module import DropoutModule
from dropkit.patch import counterparts
from dropkit.patch.changes import Changes, Left, checked_model, described, shown
from dropkit.patch.rate_sites import rates_of_other


@dataclass(frozen=True, slots=True)
class Converted:
    """A module that `convert` changed: its name in the model, its class before, and the module."""

    name: str
    before: type[torch.nn.Module]
    module: torch.nn.Module

    def __str__(self) -> str:
        return f"{shown(self.name)}: {counterparts.full_name(self.before)} -> dropkit.nn.{described(self.module)}"


def convert(model: torch.nn.Module, *, other_libraries: bool = False) -> Changes[Converted]:
    """Turn every `torch.nn` dropout module of `model`, and `model` itself, into the dropkit module of the same name.

    Each module remains the same object, so its hooks, training flag, `p` and `inplace`, and all references to it, are
    kept. What remains of other dropout is listed with the reason, as the attribute `left` of what is returned:
    subclasses of torch's modules, other libraries' modules, the dropout inside `nn.LSTM` and `nn.MultiheadAttention`,
    and rates that the model may pass to functions. `install` reaches those that end in torch's operators.

    Args:
        model: any module; not compiled or scripted.
        other_libraries: turn timm's and transformers' `DropPath` and torchvision's `StochasticDepth` into
            `dropkit.nn.DropPath`, too. Their masks then follow from keys; `drop_prob` can still be read and set.

    Returns:
        The changed modules, in the order of `model.named_modules()`; a shared module once, by its first name.

    Raises:
        TypeError: `model` is not a module.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.LSTM(4, 4, num_layers=2, dropout=0.3))
        >>> print(dropkit.convert(model))
        0: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.1, inplace=False)
        1: left, the dropout inside LSTM is part of its kernel; dropkit.install() reaches it
    """
    changes: Changes[Converted] = Changes()
    named = cast("Iterator[tuple[str, torch.nn.Module]]", checked_model(model).named_modules())
    for name, module in named:
        before = type(module)
        new = counterparts.of_torch(module)
        example = counterparts.of_another_library(module) if other_libraries and new is None else None
        if new is not None:
            module.__class__ = new
        elif example is not None:
            counterparts.become(module, example)
        else:
            changes.left += _left(name, module, other_libraries)
            continue
        changes.append(Converted(name, before, module))
    return changes


def _left(name: str, module: torch.nn.Module, other_libraries: bool) -> list[Left]:
    kind = type(module)
    if isinstance(module, torch.nn.RNNBase):
        reason = f"the dropout inside {kind.__name__} is part of its kernel; dropkit.install() reaches it"
        return [Left(name, reason)] if module.dropout > 0 and module.num_layers > 1 else []
    if isinstance(module, torch.nn.MultiheadAttention):
        reason = f"the dropout inside {kind.__name__} is a call of a function; dropkit.install() reaches it"
        return [Left(name, reason)] if module.dropout > 0 else []
    if isinstance(module, DropoutModule) or counterparts.full_name(kind).startswith("dropkit."):
        return []
    if DROPOUT_CLASS_NAME.search(kind.__name__) and next(module.children(), None) is None:
        if not other_libraries and counterparts.of_another_library(module) is not None:
            return [
                Left(name, f"{counterparts.full_name(kind)} is another library's; other_libraries=True converts it")
            ]
        return [
            Left(name, f"dropkit does not know whether {counterparts.full_name(kind)} does what a layer of its does")
        ]
    prefix = f"{name}." if name else ""
    return [
        Left(prefix + attribute, "a rate that the model may pass to a function; dropkit.install() reaches torch's")
        for attribute in rates_of_other(module)
        if getattr(module, attribute) > 0
    ]
