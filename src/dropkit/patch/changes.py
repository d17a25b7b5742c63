"""What `convert` and `retrofit` report: a list of changes, and of what they left unchanged and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Left:
    """A dropout, or a place for one, that was left unchanged: its name in the model, and the reason."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.name)}: left, {self.reason}"


class Changes(list[_Record]):
    """The changes, in the order of `model.named_modules()`. `left` lists what was left unchanged.

    Printed, it has a line for each of both.
    """

    def __init__(self, changes: Iterable[_Record] = (), left: Iterable[Left] = ()) -> None:
        super().__init__(changes)
        self.left: list[Left] = list(left)

    def __str__(self) -> str:
        return "\n".join(map(str, [*self, *self.left])) or "nothing to change"


def shown(name: str) -> str:
    """The name of a module as it is printed."""
    return name or "(the model itself)"


def described(module: torch.nn.Module) -> str:
    """A module in one line, without the modules in it."""
    return f"{type(module).__name__}({module.extra_repr()})"


def checked_model(model: torch.nn.Module) -> torch.nn.Module:
    """Return `model`.

    Raises:
        TypeError: it is not a module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model
