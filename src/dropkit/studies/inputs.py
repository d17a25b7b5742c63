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
    is_pair = isinstance(value, (tuple, list)) and len(cast("list[Any]", value)) == 2
    wanted = "a pair of inputs and targets, a mapping of such pairs by part, a Dataset or a DataLoader"
    check("data", is_pair, wanted, type(value).__name__)
    inputs, targets = cast("list[Any]", value)
    if isinstance(targets, str) and hasattr(inputs, "columns"):
        columns = [str(column) for column in inputs.columns]
        check(
            "targets", targets in columns, "a column of the data frame", repr(targets) + did_you_mean(targets, columns)
        )
        inputs, targets = inputs[[column for column in inputs.columns if column != targets]], inputs[targets]
    return _column("inputs", inputs), _column("targets", targets)


def _read(source: Any) -> tuple[_Column, _Column]:
    """All examples of a Dataset, or all batches of a DataLoader, joined."""
    # A Dataset with a length is indexed up to it; one without is read to its end.
    items: list[Any] = [source[i] for i in range(len(source))] if hasattr(source, "__getitem__") else list(source)
    kind = type(source).__name__
    check("data", bool(items), "with examples", f"a {kind} without any")
    is_pair = isinstance(items[0], (tuple, list)) and len(items[0]) == 2
    check("data", is_pair, f"a {kind} of pairs of inputs and targets", type(items[0]).__name__)
    is_loader = isinstance(source, DataLoader)
    columns: list[_Column] = []
    for argument, values in zip(("inputs", "targets"), zip(*items, strict=True), strict=True):
        if all(isinstance(value, str) for value in values):
            columns.append(list(values))
        else:
            parts = [_column(argument, value) for value in values]
            columns.append(_joined(argument, parts if is_loader else [_alone(part) for part in parts]))
    return columns[0], columns[1]


def _alone(value: _Column) -> _Column:
    return value[None] if isinstance(value, Tensor) else value


def _joined(argument: str, columns: Sequence[_Column]) -> _Column:
    if all(isinstance(column, list) for column in columns):
        return [text for column in columns for text in column]
    tensors = [column for column in columns if isinstance(column, Tensor)]
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
        value = value.to_numpy()
    items: Any = value.tolist() if getattr(getattr(value, "dtype", None), "kind", "") in ("O", "U", "T") else value
    if isinstance(items, (list, tuple)) and items and isinstance(items[0], str):
        texts = [text for text in cast("list[Any]", items) if isinstance(text, str)]
        check(argument, len(texts) == len(items), "all numbers or all text", f"{len(items) - len(texts)} others")
        return texts
    try:
        tensor = torch.as_tensor(items).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "; for models of several inputs give `train`" if isinstance(value, (Mapping, tuple)) else ""
        got = f"{type(value).__name__}{hint}"
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
    if targets.min() == 0 and targets.max() < _MAX_CLASSES:
        return Data(inputs, targets, tuple(map(str, range(int(targets.max()) + 1))), name, parts)
    values, targets = cast("tuple[Tensor, Tensor]", targets.unique(return_inverse=True))
    return Data(inputs, targets, tuple(map(str, values.tolist())), name, parts)
