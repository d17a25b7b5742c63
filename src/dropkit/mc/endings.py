"""Endings: which of the last calls of a pass made its outputs, where that tells what they are."""

from __future__ import annotations

from enum import Enum
from typing import Any, cast
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor


class Ending(Enum):
    """What made a tensor."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


_special: Any = torch.special
_MADE: dict[Any, Ending] = {
    **dict.fromkeys(
        (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, _special.expit, F.sigmoid, F.hardsigmoid),
        Ending.SIGMOID,
    ),
    **dict.fromkeys((torch.softmax, Tensor.softmax, _special.softmax, F.softmax), Ending.SOFTMAX),
}
# What puts numbers elsewhere, or several tensors together, and changes no number.
_MOVED: frozenset[Any] = frozenset(
    {
        torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.column_stack, torch.clone,
        torch.squeeze, torch.unsqueeze, torch.reshape, torch.flatten, torch.transpose, torch.permute, torch.movedim,
        Tensor.clone, Tensor.contiguous, Tensor.detach, Tensor.to, Tensor.float, Tensor.double, Tensor.squeeze,
        Tensor.unsqueeze, Tensor.view, Tensor.reshape, Tensor.flatten, Tensor.unflatten, Tensor.transpose,
        Tensor.permute, Tensor.movedim, Tensor.__getitem__,
    }
)  # fmt: skip


class Endings:
    """The tensors of a pass that are known to have been made so; those that are gone are forgotten."""

    def __init__(self) -> None:
        self._known: dict[Ending, WeakValueDictionary[int, Tensor]] = {one: WeakValueDictionary() for one in Ending}

    def note(self, func: Any, args: Any, output: Any) -> None:
        """Take notice of a call of torch's and of what it gave."""
        try:
            ending = _MADE.get(func)
            if ending is None and func in _MOVED and any(self._known.values()):
                ending = self._common(args)
        except TypeError:  # some callables have no hash
            return
        if ending is not None and isinstance(output, Tensor):
            self._known[ending][id(output)] = output

    def of(self, tensor: Any) -> Ending | None:
        """What made this tensor, if that is known."""
        return next((one for one, known in self._known.items() if known.get(id(tensor)) is tensor), None)

    def _common(self, args: Any) -> Ending | None:
        """What made all tensors of a call."""
        first: Any = args[0] if args else None
        found = {self.of(one) for one in cast("list[Any]", first if isinstance(first, (list, tuple)) else (first,))}
        return found.pop() if len(found) == 1 else None
