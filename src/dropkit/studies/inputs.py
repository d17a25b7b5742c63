"""What `study` takes as models and data, in the forms that it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dropkit.arguments import check
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
    """Return the data of a pair, of a mapping of pairs by part, or of a Dataset.

    Raises:
        ValueError: it is none of these, or does not fit; the message names what.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Mapping):
        return _of_parts(cast("Mapping[str, Any]", data), name)
    if isinstance(data, (tuple, list)) and len(cast("list[Any]", data)) == 2:
        inputs, targets = cast("list[Any]", data)
        return _of_tensors(_tensor("inputs", inputs), _tensor("targets", targets), name, None)
    if isinstance(data, Dataset):
        return _of_parts({"": data}, name)
    wanted = "a pair of inputs and targets, a mapping of such pairs by part, or a Dataset"
    raise ValueError(f"data must be {wanted}, got {type(data).__name__}")


def _of_parts(parts: Mapping[str, Any], name: str) -> Data:
    unknown = [part for part in parts if part not in (*PARTS, "")]
    check("data", not unknown, f"a mapping with {', '.join(PARTS)}", ", ".join(map(repr, unknown)))
    pairs = {part: _pair(value) for part, value in parts.items()}
    inputs, targets = (torch.cat([pair[i] for pair in pairs.values()]) for i in range(2))
    if "" in pairs:
        return _of_tensors(inputs, targets, name, None)
    check("data", {"training", "test"} <= set(pairs), "a mapping with training and test", ", ".join(pairs))
    numbers = [torch.full((len(pair[1]),), PARTS.index(part)) for part, pair in pairs.items()]
    return _of_tensors(inputs, targets, name, torch.cat(numbers))


def _pair(value: Any) -> tuple[Tensor, Tensor]:
    if isinstance(value, Dataset):
        # A Dataset need not say its length, but one that is split at random must have one.
        examples = [cast("Any", value)[i] for i in range(len(cast("Any", value)))]
        check("data", bool(examples), "a Dataset with examples", "none")
        inputs, targets = zip(*examples, strict=True)
        return torch.stack([_tensor("inputs", x) for x in inputs]), torch.stack(
            [_tensor("targets", y) for y in targets]
        )
    inputs, targets = value
    return _tensor("inputs", inputs), _tensor("targets", targets)


def _tensor(argument: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument} must be a tensor or an array of numbers, got {type(value).__name__}") from error


def _of_tensors(inputs: Tensor, targets: Tensor, name: str, parts: Tensor | None) -> Data:
    """Integer targets are classes, from 0 to the largest one."""
    inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
    if targets.is_floating_point():
        return Data(inputs, targets.float(), name=name, parts=parts)
    targets = targets.long()
    check("targets", len(targets) > 0, "at least one", "none")
    largest = int(targets.max())
    wanted = f"classes from 0 to at most {_MAX_CLASSES - 1}; for values give floating-point numbers"
    check("targets", largest < _MAX_CLASSES, wanted, largest)
    classes = tuple(str(number) for number in range(largest + 1))
    return Data(inputs, targets, classes, name, parts)
