"""Batches: what `predict` takes as inputs, as a stream of arguments for the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from dropkit.mc.outputs import Labels
from dropkit.torch_private import tree_flatten

# From what a loader yields to what the model is called with.
Adapt = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Arguments of one call.

    Attributes:
        args, kwargs: of the model.
        count: how many inputs these are: the first size of the first tensor.
        labels: those of the inputs, where they came with them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: Labels | None = None

    @staticmethod
    def of(value: Any) -> Batch:
        """A mapping by name, a tuple by position, anything else as the one argument.

        Raises:
            TypeError: there is no tensor in it, or a packed sequence.
        """
        if isinstance(value, PackedSequence):
            raise TypeError(
                "inputs must be padded tensors with their lengths beside them, got a PackedSequence; let the model pack"
            )
        if isinstance(value, Mapping):
            args, kwargs = (), dict(cast("Mapping[str, Any]", value))
        else:
            args, kwargs = cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,)), {}
        args = tuple(_as_tensor(one) for one in args)
        kwargs = {name: _as_tensor(one) for name, one in kwargs.items()}
        first = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.dim()), None)
        if first is None:
            kinds = ", ".join(type(one).__name__ for one in (*args, *kwargs.values()))
            raise TypeError(f"inputs must hold a tensor with a batch dimension, got {kinds or 'nothing'}")
        return Batch(args, kwargs, len(first))

    def map(self, change: Callable[[Any], Any]) -> Batch:
        kwargs = {name: change(one) for name, one in self.kwargs.items()}
        return replace(self, args=tuple(map(change, self.args)), kwargs=kwargs)

    def take(self, begin: int, end: int) -> Batch:
        """Inputs `begin` to `end`; what is not one for each input stays whole."""
        if (begin, end) == (0, self.count):
            return self
        part = self.map(lambda one: one[begin:end] if self._is_one_each(one) else one)
        return replace(part, count=end - begin)

    def kind(self) -> tuple[object, ...]:
        """What batches have in common whose inputs are of the same shapes."""
        leaves, spec = tree_flatten([self.args, self.kwargs])
        return (spec, *(self._kind_of(leaf) for leaf in leaves))

    def token_shapes(self) -> frozenset[tuple[int, ...]]:
        """The shapes of the arguments that hold integers at each position of each input, such as tokens."""
        tensors = (one for one in (*self.args, *self.kwargs.values()) if isinstance(one, Tensor))
        return frozenset(tuple(one.shape[1:]) for one in tensors if one.dim() > 1 and not one.is_floating_point())

    def spread(self, count: int) -> Batch:
        """So many of the inputs, evenly; all, if they are no more."""
        if count >= self.count:
            return self
        places = [place * self.count // count for place in range(count)]
        part = self.map(lambda one: _picked(one, places) if self._is_one_each(one) else one)
        return replace(part, count=count)

    def copied(self) -> Batch:
        """With tensors of its own."""
        return self.map(lambda one: one.clone() if isinstance(one, Tensor) else one)

    def rolled(self) -> Batch:
        """Each input in the next one's place."""
        return self.map(lambda one: _rolled(one) if self._is_one_each(one) else one)

    def to(self, device: torch.device) -> Batch:
        return self.map(lambda one: one.to(device) if isinstance(one, Tensor) else one)

    def _kind_of(self, leaf: Any) -> object:
        if not isinstance(leaf, Tensor):
            return type(leaf).__name__
        return leaf.dtype, tuple(leaf.shape[1:] if self._is_one_each(leaf) else leaf.shape)

    def _is_one_each(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return value.dim() > 0 and len(value) == self.count
        return type(value) in (list, tuple) and len(value) == self.count


def stream(inputs: Any, batch_size: int, adapt: Adapt | None) -> Iterator[Batch]:
    """The batches of a tensor, an array, a mapping or tuple of them, or of what yields batches.

    Raises:
        TypeError: inputs are of no such kind.
    """
    if is_whole(inputs):
        whole = Batch.of(inputs if adapt is None else adapt(inputs))
        for begin in range(0, whole.count, batch_size):
            yield whole.take(begin, min(begin + batch_size, whole.count))
        return
    if not isinstance(inputs, Iterable):
        raise TypeError(
            "inputs must be a tensor, an array, a mapping or tuple of them, or yield batches, got "
            f"{type(inputs).__name__}"
        )
    for one in cast("Iterable[Any]", inputs):
        yield replace(Batch.of((_first if adapt is None else adapt)(one)), labels=_labels(one))


def count(inputs: Any) -> int | None:
    """How many inputs there are; None if that is not known before they are read."""
    if is_whole(inputs):
        return Batch.of(inputs).count
    dataset = getattr(inputs, "dataset", None)
    try:
        return None if dataset is None else len(dataset)
    except TypeError:
        return None


def is_whole(inputs: Any) -> bool:
    """All inputs at once, to be cut into batches here."""
    if isinstance(inputs, (Tensor, Mapping, PackedSequence)) or _is_array(inputs):
        return True
    return isinstance(inputs, tuple) and all(isinstance(one, Tensor) or _is_array(one) for one in cast("Any", inputs))


def _first(batch: Any) -> Any:
    """Of a pair that a loader yields the inputs; the others are what is to be predicted."""
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence):
        return cast("list[Any]", batch)[0]
    return batch


def _labels(batch: Any) -> Labels | None:
    """The labels, if a loader yields them in a pair with the inputs."""
    if isinstance(batch, (list, tuple)) and len(cast("list[Any]", batch)) == 2:
        return Labels.of(cast("list[Any]", batch)[1])
    return None


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__")


def _as_tensor(value: Any) -> Any:
    return torch.as_tensor(value) if _is_array(value) else value


def _picked(value: Any, places: list[int]) -> Any:
    return value[places] if isinstance(value, Tensor) else type(value)([value[place] for place in places])


def _rolled(value: Any) -> Any:
    return value.roll(1, 0) if isinstance(value, Tensor) else type(value)([value[-1], *value[:-1]])
