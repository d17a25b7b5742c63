"""Find the outputs in what a model returns: a tensor, logits by name, a tuple, a dataclass, one entry for each head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

# The entries or attributes that hold the outputs of a model which returns several tensors.
_NAMES = ("logits", "out")
# The logits of the first and the last position of an answer, (N, T) each.
_SPAN = ("start_logits", "end_logits")
# What `outputs=` calls the second of two parts, by how the variance follows from it.
VARIANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_log_variance": torch.exp,
    "mean_variance": lambda variance: variance,
    "mean_std": torch.square,
}


class Reader:
    """Finds the outputs of one head.

    Args:
        head: the entry, attribute or index of what the model returns; None for its only output.
        form: the form of the outputs, of which those in `VARIANCES` have two parts.
        dim: the dimension that holds two parts in one tensor; 1 if None.

    Attributes:
        is_span: whether the outputs are logits of positions, (N, 2, T): where an answer begins, and where it ends.
        ignored: how many other tensors a tuple holds.
    """

    def __init__(self, head: str | int | None, form: str, dim: int | None) -> None:
        self.is_span: bool = False
        self.ignored: int = 0
        self._head, self._form, self._dim = head, form, dim

    def __call__(self, returned: Any) -> Tensor:
        """Return the outputs, (N, ...); with two parts (N, 2, ...).

        Raises:
            TypeError: they are not found.
        """
        if self._head is not None:
            returned = entry(returned, self._head)
        if self._form in VARIANCES:
            return self._parts(returned)
        return self._tensor(returned)

    def _tensor(self, returned: Any) -> Tensor:
        if isinstance(returned, Tensor):
            return returned
        named = _named(returned)
        if all(isinstance(named.get(name), Tensor) for name in _SPAN):
            self.is_span = True
            return torch.stack([named[name] for name in _SPAN], 1)
        for name in _NAMES:
            if isinstance(named.get(name), Tensor):
                return named[name]
        if isinstance(returned, Distribution):
            logits = getattr(returned, "logits", None)
            if logits is not None:
                return logits
            raise TypeError(_wanted(returned) + '; for its mean and variance give outputs="mean_variance"')
        if isinstance(returned, (tuple, list)):
            items = cast("list[Any]", returned)
            # Some models return their loss first.
            tensors = [item for item in items if isinstance(item, Tensor) and item.dim()]
            if tensors:
                self.ignored = sum(len(item) == len(tensors[0]) for item in tensors[1:] if item.is_floating_point())
                return tensors[0]
            if isinstance(returned, tuple) and items and _named(items[0]):
                return self._tensor(items[0])
        tensors = [value for value in named.values() if isinstance(value, Tensor) and value.is_floating_point()]
        if len(tensors) == 1:
            return tensors[0]
        hint = "; see output="
        if len(tensors) > 1:
            heads = ", ".join(f'"{name}": ...' for name, value in named.items() if isinstance(value, Tensor))
            hint = f"; name those to predict: task={{{heads}}}, or see output="
        elif isinstance(returned, list):
            hint = "; for lists of detections or texts use dropkit.mc.sampling()"
        raise TypeError(_wanted(returned) + hint)

    def _parts(self, returned: Any) -> Tensor:
        """The mean and its log variance, variance or standard deviation, (N, 2, ...)."""
        if isinstance(returned, Distribution):
            spread = {"mean_log_variance": returned.variance.log(), "mean_std": returned.stddev}
            return torch.stack([returned.mean, spread.get(self._form, returned.variance)], 1)
        named = _named(returned)
        items = list(named.values()) if named else returned
        if isinstance(items, (tuple, list)):
            tensors = [item for item in cast("list[Any]", items) if isinstance(item, Tensor)]
            if len(tensors) == 2 and tensors[0].shape == tensors[1].shape:
                return torch.stack(tensors, 1)
            if len(tensors) == 1:
                returned = tensors[0]
        dim = 1 if self._dim is None else self._dim
        if isinstance(returned, Tensor) and -returned.dim() <= dim < returned.dim() and returned.shape[dim] % 2 == 0:
            return torch.stack(returned.chunk(2, dim), 1)
        got = str(tuple(returned.shape)) if isinstance(returned, Tensor) else type(returned).__name__
        raise TypeError(
            f'the model must return two tensors of one shape for outputs="{self._form}", a distribution, or a tensor '
            f"with both in dimension {dim} (class_dim=), got {got}; see output="
        )


def tensor_of(returned: Any) -> Tensor:
    """Return the only outputs that a model returns.

    Raises:
        TypeError: they are not found.
    """
    return Reader(None, "logits", None)(returned)


def entry(returned: Any, head: str | int, argument: str = "task") -> Any:
    """Return the entry or attribute of this name, or the item with this index.

    Args:
        argument: what named it, for the error.

    Raises:
        TypeError: there is none.
    """
    if isinstance(head, int):
        items = cast("list[Any]", returned) if isinstance(returned, (tuple, list)) else []
        if -len(items) <= head < len(items):
            return items[head]
        names = f"{len(items)} items"
    else:
        named = _named(returned)
        if head in named:
            return named[head]
        names = ", ".join(map(str, named))
    kind = type(cast("Any", returned)).__name__
    got = f"{kind} with {names}" if names else kind
    raise TypeError(f"{argument} must name what the model returns, got {head!r} for a {got}")


def _named(returned: Any) -> dict[str, Any]:
    """The entries of a mapping, or the fields of a dataclass or named tuple."""
    if isinstance(returned, Mapping):
        return dict(cast("Mapping[str, Any]", returned))
    if isinstance(returned, (Tensor, Distribution)):
        return {}
    fields: tuple[str, ...] = getattr(returned, "__dataclass_fields__", ()) or getattr(returned, "_fields", ())
    names = fields or tuple(getattr(returned, "__dict__", ()))
    return {name: getattr(returned, name, None) for name in names}


def _wanted(returned: Any) -> str:
    return f"the model must return a tensor, logits, or a tuple that begins with one, got {type(returned).__name__}"
