"""What `study` takes as models and data, in the forms that it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dropkit.arguments import check, did_you_mean
from dropkit.studies.data import PARTS, Data

MakeModel = Callable[[], nn.Module]

# More are values, or damage; as classes they could take all memory.
_MAX_CLASSES = 100_000


def as_models(model: Any) -> dict[str, MakeModel]:
    """Return functions that make models, by name.

    Raises:
        ValueError: `model` is neither a module, nor a function, nor a mapping of them.
    """
    if isinstance(model, Mapping):
        return {str(name): _as_function(make) for name, make in cast("Mapping[Any, Any]", model).items()}
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
    return {"model" if name == "<lambda>" else name: _as_function(model)}


def _as_function(model: Any) -> MakeModel:
    if isinstance(model, nn.Module):
        return partial(deepcopy, model)
    check("model", callable(model), "a module, or a function that makes one", type(model).__name__)
    return model


def as_data(data: Any, name: str = "data") -> Data:
    """Return the data of a pair, of a mapping of pairs by part, of a Dataset or of a DataLoader.

    Integers, booleans and text as targets are classes, floating-point numbers are values.

    Args:
        data: a pair is one of inputs and targets, or of a data frame and the name of the column with the targets.
        name: what reports call it.

    Raises:
        ValueError: it is none of these, or does not fit; the message names what.
    """
    if isinstance(data, Data):
        return data
    if not isinstance(data, Mapping):
        return _of_tensors(*_pair(data), name, None)
    pairs = {str(part): _pair(value) for part, value in cast("Mapping[Any, Any]", data).items()}
    for part in pairs:
        check("data", part in PARTS, f"a mapping with {', '.join(PARTS)}", f"{part!r}{did_you_mean(part, PARTS)}")
    check("data", {"training", "test"} <= set(pairs), "a mapping with training and test", ", ".join(pairs) or "none")
    inputs, targets = zip(*pairs.values(), strict=True)
    parts = [torch.full((len(values),), PARTS.index(part)) for part, values in zip(pairs, inputs, strict=True)]
    return _of_tensors(_joined("inputs", inputs), _joined("targets", targets), name, torch.cat(parts))


# A column of numbers, or of text.
_Column = Tensor | list[str]


def _pair(value: Any) -> tuple[_Column, _Column]:
    """The inputs and targets of one part."""
    if isinstance(value, (DataLoader, Dataset)):
        return _read(value)
    pair: list[Any] = list(cast("list[Any]", value)) if isinstance(value, (tuple, list)) else []
    wanted = "a pair of inputs and targets, a mapping of such pairs by part, a Dataset or a DataLoader"
    what = type(cast("Any", value)).__name__
    check("data", len(pair) == 2, wanted, f"{what} of {len(pair)}" if pair else what)
    inputs, targets = pair
    if isinstance(targets, str) and hasattr(inputs, "columns"):
        others = [column for column in inputs.columns if column != targets]
        is_column = len(others) < len(inputs.columns)
        hint = did_you_mean(targets, map(str, others))
        check("targets", is_column, "a column of the data frame", repr(targets) + hint)
        inputs, targets = inputs[others], inputs[targets]
    return _column("inputs", inputs), _column("targets", targets)


def _read(source: Any) -> tuple[_Column, _Column]:
    """All examples of a Dataset, or all batches of a DataLoader, joined."""
    # A Dataset with a length is indexed up to it; others are read to their end.
    is_indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    items: list[Any] = [source[i] for i in range(len(source))] if is_indexed else list(source)
    kind = type(source).__name__
    check("data", bool(items), "with examples", f"a {kind} without any")
    is_pair = isinstance(items[0], (tuple, list)) and len(cast("list[Any]", items[0])) == 2
    check("data", is_pair, f"a {kind} of pairs of inputs and targets", type(cast("Any", items[0])).__name__)
    # Examples become batches of one.
    batches = items if isinstance(source, DataLoader) else [_batch_of_one(item) for item in items]
    inputs, targets = (
        _joined(argument, [_column(argument, batch[place]) for batch in batches])
        for place, argument in enumerate(("inputs", "targets"))
    )
    return inputs, targets


def _batch_of_one(item: Any) -> list[Any]:
    return [[value] if isinstance(value, (str, int, float)) else torch.as_tensor(value)[None] for value in item]


def _joined(argument: str, columns: Sequence[_Column]) -> _Column:
    tensors = [column for column in columns if isinstance(column, Tensor)]
    if not tensors:
        return [text for column in columns for text in cast("list[str]", column)]
    shapes = sorted({tuple(tensor.shape[1:]) for tensor in tensors})
    check(argument, len(tensors) == len(columns), "all numbers or all text", "both")
    check(argument, len(shapes) == 1, "of one shape", " and ".join(map(str, shapes[:2])))
    return torch.cat(tensors)


def _column(argument: str, value: Any) -> _Column:
    """Numbers as a tensor, on the CPU; text as it is. Columns of a data frame are numbers, whatever their dtype."""
    is_frame = hasattr(value, "columns")
    if is_frame:
        texts = [str(name) for name in value.columns if getattr(value[name].dtype, "kind", "O") not in "biuf"]
        check(argument, not texts, "columns of numbers", f"{', '.join(texts)} with something else")
    if hasattr(value, "to_numpy"):
        value = value.to_numpy().copy()  # what pandas returns may be read-only, of which torch warns
    if getattr(getattr(value, "dtype", None), "kind", "") in ("O", "U", "T"):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
        texts = [text for text in cast("list[Any]", value) if isinstance(text, str)]
        others = len(cast("list[Any]", value)) - len(texts)
        check(argument, others == 0, "all numbers or all text", f"text and {others} others")
        return texts
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "; for models of several inputs give `train`" if isinstance(value, (Mapping, tuple)) else ""
        got = f"{type(cast('Any', value)).__name__}{hint}"
        raise ValueError(f"{argument} must be a tensor or an array of numbers, got {got}") from error
    check(argument, not tensor.is_complex(), "real numbers", "complex ones")
    return tensor.float() if is_frame else tensor


def _of_tensors(inputs: _Column, targets: _Column, name: str, parts: Tensor | None) -> Data:
    """Data of these columns; classes that are not 0, 1, 2 ... get these numbers in sorted order."""
    if not isinstance(inputs, Tensor):
        raise ValueError("inputs must be a tensor or an array of numbers, got text")
    for argument, column in (("inputs", inputs), ("targets", targets)):
        has_rows = isinstance(column, list) or column.dim() > 0
        check(argument, has_rows and len(column) > 0, "a row for each example", "none")
    inputs = inputs.float() if inputs.is_floating_point() or inputs.dtype == torch.bool else inputs
    if isinstance(targets, list):
        classes = tuple(sorted(set(targets)))
        numbers = {text: number for number, text in enumerate(classes)}
        return Data(inputs, torch.tensor([numbers[text] for text in targets]), classes, name, parts)
    if targets.is_floating_point():
        return Data(inputs, targets.float(), name=name, parts=parts)
    targets = targets.long()
    largest = int(targets.max())
    wanted = f"classes from 0 to at most {_MAX_CLASSES - 1}; for values give floating-point numbers"
    check("targets", largest < _MAX_CLASSES, wanted, largest)
    if targets.min() == 0:
        return Data(inputs, targets, tuple(map(str, range(largest + 1))), name, parts)
    values, targets = cast("tuple[Tensor, Tensor]", targets.unique(return_inverse=True))
    return Data(inputs, targets, tuple(map(str, cast("list[int]", values.tolist()))), name, parts)
