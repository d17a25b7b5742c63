"""The stream of batches from the inputs of `predict`: tensors, arrays, frames, data sets, loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dropkit.arrays import as_input, is_array
from dropkit.containers import map_leaves
from dropkit.mc.batches import Batch, BatchDims

# Returns the arguments of the model from what a loader yields.
PrepareBatch = Callable[[Any], Any]
# What mappings call the labels of a batch; but for the first, where the model does not take it.
_LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True, slots=True)
class BatchStream:
    """Makes batches.

    Args:
        model: floats of arrays are converted to its dtype, since float64 is only NumPy's default.
        batch_size: inputs in a batch, where `inputs` are not batches already.
        prepare_batch: from a batch to the argument of the model, or a tuple or mapping of its arguments.
        batch_dim: as for `Batch.of`.
    """

    model: nn.Module
    batch_size: int
    prepare_batch: PrepareBatch | None
    batch_dim: BatchDims

    def of(self, inputs: Any) -> Iterator[Batch]:
        """Yield the batches of inputs.

        Raises:
            TypeError: they are none of the kinds that `predict` takes.
        """
        if is_whole(inputs):
            whole = self._batch(inputs if self.prepare_batch is None else self.prepare_batch(inputs))
            for begin in range(0, whole.count, self.batch_size):
                yield whole.take(begin, min(begin + self.batch_size, whole.count))
            return
        yields_rows = is_dataset(inputs)
        if yields_rows:
            # A generator of its own, so that torch's is left as it was.
            inputs = DataLoader(inputs, self.batch_size, generator=torch.Generator())
        if not isinstance(inputs, Iterable):
            raise TypeError(
                "inputs must be a tensor, an array, a frame, a mapping or tuple of them, a Dataset, or yield batches, "
                f"got {type(inputs).__name__}"
            )
        for batch in cast("Iterable[Any]", inputs):
            batch = map_leaves(self._in_dtype, batch) if yields_rows else batch
            yield replace(self._batch((self.prepare_batch or self.inputs_of)(batch)), labels=self.labels_of(batch))

    def inputs_of(self, batch: Any) -> Any:
        """Return the inputs of a batch: the first of a list or tuple, or of a mapping what the model takes."""
        if isinstance(batch, Mapping):
            return self._accepted(cast("Mapping[str, Any]", batch))
        if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence):
            return cast("list[Any]", batch)[0]
        return batch

    def _accepted(self, entries: Mapping[str, Any]) -> Mapping[str, Any]:
        """The entries that the model takes; all if it takes any name or none of these."""
        parameters = signature(self.model.forward).parameters
        if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return entries
        return {name: value for name, value in entries.items() if name in parameters} or entries

    def labels_of(self, batch: Any) -> Any:
        """Return the labels of a batch, if it is a pair of inputs and labels, or a mapping that names them."""
        if isinstance(batch, (list, tuple)) and len(cast("list[Any]", batch)) == 2:
            return cast("list[Any]", batch)[1]
        if not isinstance(batch, Mapping):
            return None
        entries, taken = cast("Mapping[str, Any]", batch), signature(self.model.forward).parameters
        names = [name for name in _LABELS if name in entries and (name == _LABELS[0] or name not in taken)]
        return entries[names[0]] if names else None

    def _batch(self, value: Any) -> Batch:
        return Batch.of(value, self._as_tensor, self.batch_dim)

    def _as_tensor(self, value: Any) -> Any:
        if _is_frame(value):
            value = _numbers(value)
            if not any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in self.model.modules()):
                value = value.astype(float)  # nothing takes whole numbers
        return as_input(value, self.model) if is_array(value) else value

    def _in_dtype(self, value: Any) -> Any:
        """Numbers of a data set, whose arrays torch has made tensors of."""
        is_double = isinstance(value, Tensor) and value.dtype == torch.float64
        return as_input(value.numpy(), self.model) if is_double else value


def count(inputs: Any, batch_dim: BatchDims = 0) -> int | None:
    """Return the number of inputs; None if it is not known before they are read."""
    if is_whole(inputs):
        return Batch.of(
            inputs, lambda value: torch.as_tensor(value) if is_array(value) else _shaped(value), batch_dim
        ).count
    dataset = inputs if is_dataset(inputs) else getattr(inputs, "dataset", None)
    try:
        return None if dataset is None else len(dataset)
    except TypeError:
        return None


def is_whole(inputs: Any) -> bool:
    """Whether these are all inputs at once, and not an iterable of batches."""
    if isinstance(inputs, (Tensor, Mapping, PackedSequence)) or is_array(inputs) or _is_frame(inputs):
        return True
    return isinstance(inputs, tuple) and all(
        isinstance(part, Tensor) or is_array(part) or _is_frame(part) for part in cast("tuple[Any, ...]", inputs)
    )


def _is_frame(value: Any) -> bool:
    """Whether this is a frame or a series, as of pandas and polars."""
    return hasattr(value, "to_numpy") and hasattr(value, "shape")


def is_dataset(value: Any) -> bool:
    """Whether this is a data set of single inputs, of torch or with its methods; a list holds batches."""
    if isinstance(value, (Dataset, IterableDataset)):
        return True
    has_items = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return has_items and not isinstance(value, (Mapping, list, tuple, str, bytes, nn.Module)) and not is_whole(value)


def _numbers(frame: Any) -> Any:
    """The numbers of a frame as an array.

    Raises:
        TypeError: a column holds something else.
    """
    array = frame.to_numpy()
    if array.dtype.kind in "biuf":
        return array
    columns: list[Any] = []
    for name in getattr(frame, "columns", [getattr(frame, "name", None)]):
        column = frame[name] if hasattr(frame, "columns") else frame
        try:
            columns.append(column.to_numpy().astype(float))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"inputs must hold numbers, got column {name!r} of {column.dtype}; encode it first"
            ) from error
    return import_module("numpy").stack(columns, -1).reshape(array.shape)


def _shaped(value: Any) -> Any:
    """A tensor without memory of the shape of a frame; anything else as it is."""
    return torch.empty(value.shape, device="meta") if _is_frame(value) and not isinstance(value, Tensor) else value
