"""Batch: the arguments of one call of the model, with the inputs in their first dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from dropkit.arguments import check
from dropkit.containers import map_leaves
from dropkit.torch_private import tree_flatten

# An argument of the model, by its position or its name.
Place = int | str
# One dimension for all arguments, or by argument.
BatchDims = int | Mapping[Place, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one call of the model.

    Attributes:
        args, kwargs: by position and by name.
        count: the number of inputs, which is the first size of the first tensor.
        labels: the labels of the inputs, if they are known; those of several heads in a mapping or a tuple.
        valid: (N, ...), where outputs count, if the user gave it as a tensor.
        batch_dims: the dimension of the inputs in what the model receives, where it is not the first.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: Any = None
    valid: Tensor | None = None
    batch_dims: Mapping[Place, int] = field(default_factory=dict[Place, int])

    @staticmethod
    def of(value: Any, as_tensor: Callable[[Any], Any] = lambda value: value, batch_dim: BatchDims = 0) -> Batch:
        """Make a batch from a mapping (arguments by name), a tuple (by position) or a single argument.

        Args:
            as_tensor: makes tensors of arrays.
            batch_dim: the dimension of the inputs: of all arguments that have their number there, or by argument.

        Raises:
            TypeError: there is no tensor in it, or a packed sequence.
            ValueError: no tensor has such a dimension.
        """
        if isinstance(value, PackedSequence):
            raise TypeError(
                "inputs must be padded tensors with their lengths beside them, got a PackedSequence; let the model pack"
            )
        if isinstance(value, Mapping):
            args, kwargs = (), dict(cast("Mapping[str, Any]", value))
        else:
            args, kwargs = cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,)), {}
        places: dict[Place, Any] = {
            place: as_tensor(argument) for place, argument in (*enumerate(args), *kwargs.items())
        }
        tensors = {place: value for place, value in places.items() if isinstance(value, Tensor) and value.dim()}
        if not tensors:
            types = ", ".join(type(argument).__name__ for argument in places.values())
            raise TypeError(f"inputs must hold a tensor with a batch dimension, got {types or 'nothing'}")
        count, batch_dims = _batch_dims(tensors, batch_dim)
        for place, dim in batch_dims.items():
            places[place] = places[place].movedim(dim, 0)
        args = tuple(places[index] for index in range(len(args)))
        return Batch(args, {name: places[name] for name in kwargs}, count, batch_dims=batch_dims)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the model receives them, by position and by name."""
        if not self.batch_dims:
            return self.args, self.kwargs

        def moved(place: Place, value: Any) -> Any:
            return value.movedim(0, self.batch_dims[place]) if place in self.batch_dims else value

        args = tuple(moved(index, value) for index, value in enumerate(self.args))
        return args, {name: moved(name, value) for name, value in self.kwargs.items()}

    def take(self, begin: int, end: int) -> Batch:
        """Inputs `begin` to `end`; arguments without an entry for each input stay whole."""
        if (begin, end) == (0, self.count):
            return self
        rows = slice(begin, end)
        part = self._map_batched(lambda argument: argument[rows])
        labels = map_leaves(lambda leaf: leaf[rows] if self._is_batched(leaf) else leaf, self.labels)
        valid = None if self.valid is None else self.valid[rows]
        return replace(part, count=end - begin, labels=labels, valid=valid)

    def selected(self, indices: list[int]) -> Batch:
        """These inputs, without their labels."""

        def select(value: Any) -> Any:
            return value[indices] if isinstance(value, Tensor) else type(value)(value[index] for index in indices)

        return replace(self._map_batched(select), count=len(indices), labels=None, valid=None)

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
        is_tensor = isinstance(leaf, Tensor)
        return (leaf.dtype, leaf.shape[self._is_batched(leaf) :]) if is_tensor else type(leaf).__name__


def taken(labels: Any, rows: slice) -> Any:
    """Return the labels of some inputs, of one head or of several in a mapping."""
    return map_leaves(lambda leaf: leaf[rows], labels)


def _batch_dims(tensors: Mapping[Place, Tensor], batch_dim: BatchDims) -> tuple[int, dict[Place, int]]:
    """Return the number of inputs, and the dimension of the inputs of each tensor where it is not the first."""
    if isinstance(batch_dim, Mapping):
        unknown = [place for place in batch_dim if place not in tensors]
        names = ", ".join(map(repr, tensors))
        check("batch_dim", not unknown, f"by argument, of {names}", repr(unknown[0]) if unknown else None)
    chosen = batch_dim if isinstance(batch_dim, Mapping) else dict.fromkeys(tensors, batch_dim)
    dims = {place: dim for place, dim in chosen.items() if -tensors[place].dim() <= dim < tensors[place].dim()}
    first = next(iter(tensors), None)
    if first is not None and first not in dims and isinstance(batch_dim, int):
        check("batch_dim", False, f"a dimension of the inputs, {tuple(tensors[first].shape)}", batch_dim)
    assert first is not None
    count = tensors[first].shape[dims.get(first, 0)]
    moved = {place: dim % tensors[place].dim() for place, dim in dims.items() if tensors[place].shape[dim] == count}
    return count, {place: dim for place, dim in moved.items() if dim}
