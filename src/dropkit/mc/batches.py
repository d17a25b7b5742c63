"""Batch: the arguments of one call of the model, and the stream of batches from the inputs of `predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from dropkit.mc.outputs import Labels
from dropkit.torch_private import tree_flatten

# Returns the arguments of the model from what a loader yields.
PrepareBatch = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model.

    Attributes:
        args, kwargs: by position and by name.
        count: the number of inputs, which is the first size of the first tensor.
        labels: the labels of the inputs, if the loader yielded them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: Labels | None = None

    @staticmethod
    def of(value: Any) -> Batch:
        """Make a batch from a mapping (arguments by name), a tuple (by position) or a single argument.

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
        args = tuple(_as_tensor(argument) for argument in args)
        kwargs = {name: _as_tensor(argument) for name, argument in kwargs.items()}
        arguments = [*args, *kwargs.values()]
        first = next((argument for argument in arguments if isinstance(argument, Tensor) and argument.dim()), None)
        if first is None:
            types = ", ".join(type(argument).__name__ for argument in arguments)
            raise TypeError(f"inputs must hold a tensor with a batch dimension, got {types or 'nothing'}")
        return Batch(args, kwargs, len(first))

    def take(self, begin: int, end: int) -> Batch:
        """Inputs `begin` to `end`; arguments without an entry for each input stay whole."""
        if (begin, end) == (0, self.count):
            return self
        return replace(self._map_batched(lambda argument: argument[begin:end]), count=end - begin)

    def spread(self, count: int) -> Batch:
        """At most `count` of the inputs, evenly spaced."""
        if count >= self.count:
            return self
        indices = [index * self.count // count for index in range(count)]
        return replace(self._map_batched(lambda argument: _select(argument, indices)), count=count)

    def rolled(self) -> Batch:
        """Each input in the place of the next."""
        return self._map_batched(_roll)

    def copied(self) -> Batch:
        """With copies of the tensors."""
        return self._map(lambda argument: argument.clone() if isinstance(argument, Tensor) else argument)

    def to(self, device: torch.device) -> Batch:
        return self._map(lambda argument: argument.to(device) if isinstance(argument, Tensor) else argument)

    def kind(self) -> tuple[object, ...]:
        """A key of the shapes and dtypes of a single input, which batches of any size share."""
        leaves, spec = tree_flatten([self.args, self.kwargs])
        return (spec, *(self._kind_of(leaf) for leaf in leaves))

    def token_shapes(self) -> frozenset[tuple[int, ...]]:
        """The shapes of the arguments that hold integers at each position of each input, such as tokens."""
        tensors = (argument for argument in (*self.args, *self.kwargs.values()) if isinstance(argument, Tensor))
        return frozenset(
            tuple(tensor.shape[1:]) for tensor in tensors if tensor.dim() > 1 and not tensor.is_floating_point()
        )

    def _map(self, change: Callable[[Any], Any]) -> Batch:
        kwargs = {name: change(argument) for name, argument in self.kwargs.items()}
        return replace(self, args=tuple(map(change, self.args)), kwargs=kwargs)

    def _map_batched(self, change: Callable[[Any], Any]) -> Batch:
        return self._map(lambda argument: change(argument) if self._is_batched(argument) else argument)

    def _is_batched(self, value: Any) -> bool:
        """Whether an argument has an entry for each input."""
        if isinstance(value, Tensor):
            return value.dim() > 0 and len(value) == self.count
        return type(value) in (list, tuple) and len(value) == self.count

    def _kind_of(self, leaf: Any) -> object:
        if not isinstance(leaf, Tensor):
            return type(leaf).__name__
        return leaf.dtype, tuple(leaf.shape[1:] if self._is_batched(leaf) else leaf.shape)


def stream(inputs: Any, batch_size: int, prepare_batch: PrepareBatch | None) -> Iterator[Batch]:
    """Yield the batches of a tensor, an array, a mapping or tuple of them, or of an iterable of batches.

    Raises:
        TypeError: `inputs` are none of these.
    """
    if is_whole(inputs):
        whole = Batch.of(inputs if prepare_batch is None else prepare_batch(inputs))
        for begin in range(0, whole.count, batch_size):
            yield whole.take(begin, min(begin + batch_size, whole.count))
        return
    if not isinstance(inputs, Iterable):
        raise TypeError(
            "inputs must be a tensor, an array, a mapping or tuple of them, or yield batches, got "
            f"{type(inputs).__name__}"
        )
    for batch in cast("Iterable[Any]", inputs):
        yield replace(Batch.of((prepare_batch or _first)(batch)), labels=_labels(batch))


def count(inputs: Any) -> int | None:
    """Return the number of inputs; None if it is not known before they are read."""
    if is_whole(inputs):
        return Batch.of(inputs).count
    dataset = getattr(inputs, "dataset", None)
    try:
        return None if dataset is None else len(dataset)
    except TypeError:
        return None


def is_whole(inputs: Any) -> bool:
    """Whether these are all inputs at once, and not an iterable of batches."""
    if isinstance(inputs, (Tensor, Mapping, PackedSequence)) or _is_array(inputs):
        return True
    return isinstance(inputs, tuple) and all(
        isinstance(part, Tensor) or _is_array(part) for part in cast("tuple[Any, ...]", inputs)
    )


def _first(batch: Any) -> Any:
    """The inputs of a batch, which may come in a list or tuple with labels."""
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence):
        return cast("list[Any]", batch)[0]
    return batch


def _labels(batch: Any) -> Labels | None:
    """The labels of a batch, if it is a pair of inputs and labels."""
    if isinstance(batch, (list, tuple)) and len(cast("list[Any]", batch)) == 2:
        return Labels.of(cast("list[Any]", batch)[1])
    return None


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__")


def _as_tensor(value: Any) -> Any:
    return torch.as_tensor(value) if _is_array(value) else value


def _select(value: Any, indices: list[int]) -> Any:
    return value[indices] if isinstance(value, Tensor) else type(value)([value[index] for index in indices])


def _roll(value: Any) -> Any:
    return value.roll(1, 0) if isinstance(value, Tensor) else type(value)([value[-1], *value[:-1]])
