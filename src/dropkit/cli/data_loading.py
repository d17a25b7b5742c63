"""What a command is given to predict from: inputs and their truth, out of files, functions and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import click
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dropkit.cli.model_loading import Failed, load, user_code
from dropkit.mc import batches

TORCH = (".pt", ".pth", ".ckpt")
FILES = (".npy", ".npz", *TORCH)


class Pairs:
    """Takes the truth from the pairs that a loader yields, as they pass."""

    def __init__(self) -> None:
        self._truths: list[Tensor] = []

    def __call__(self, batch: Any) -> Any:
        if not isinstance(batch, (tuple, list)):
            return batch
        parts = cast("list[Any]", batch)
        if len(parts) == 2 and isinstance(parts[1], Tensor):
            self._truths.append(parts[1].cpu())
        return parts[0]

    def joined(self) -> Tensor | None:
        try:
            return torch.cat(self._truths) if self._truths else None
        except RuntimeError as error:
            raise Failed(f"--data must yield truths of one shape: {error}") from error


def given(target: str, labels: str | None, network: nn.Module, task: str) -> tuple[Any, Tensor | Pairs | None]:
    """The inputs, and the truth if it is known or may come with them."""
    value = _value(target)
    if _yields(value) and labels is None:
        return value, Pairs()
    inputs, truth = _parted(value)
    if labels is not None:
        truth = read(labels, "--labels")
        if isinstance(truth, Mapping):
            named = cast("Mapping[str, Any]", truth)
            if "y" not in named:
                raise click.BadParameter(f"must hold y, got {', '.join(named)}", param_hint="--labels")
            truth = named["y"]
    try:
        inputs = _in_dtype(inputs, network)
        # A loader may leave some of its inputs out.
        count = None if _yields(inputs) else batches.count(inputs)
    except TypeError as error:
        raise click.BadParameter(str(error), param_hint="--data") from error
    return inputs, checked(truth, task, "--data" if labels is None else "--labels", count)


def _parted(value: Any) -> tuple[Any, Any]:
    """Inputs, and their truth if it is there."""
    if isinstance(value, Mapping):
        named = dict(cast("Mapping[str, Any]", value))
        truth = named.pop("y", None)
        return named["x"] if list(named) == ["x"] else named, truth
    if isinstance(value, (tuple, list)) and len(cast("list[Any]", value)) == 2:
        inputs, truth = cast("list[Any]", value)
        return inputs, truth
    return cast("Any", value), None


def _yields(value: Any) -> bool:
    return isinstance(value, (DataLoader, Iterator))


def _value(target: str) -> Any:
    if target.endswith(FILES):
        return read(target, "--data")
    if ":" not in target:
        raise click.BadParameter(f"must be FILE.py:NAME or {either(FILES)}, got {target!r}", param_hint="--data")
    with user_code(target):
        made = load(target, "--data")
        return made() if callable(made) else made


def read(path: str, hint: str) -> Any:
    """What a file holds; of an .npz its arrays by name, or its only one."""
    must_exist(path, hint)
    if not path.endswith(FILES):
        raise click.BadParameter(f"must be {either(FILES)}, got {path!r}", param_hint=hint)
    if not path.endswith(TORCH):
        need("numpy", f"to read {path}")
    try:
        if path.endswith(TORCH):
            return torch.load(path, weights_only=True, map_location="cpu")
        with Path(path).open("rb") as file:
            found = import_module("numpy").load(file)
            arrays = {"": found} if path.endswith(".npy") else {name: found[name] for name in found.files}
    except Exception as error:  # what lies in a file may fail in any way
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        if "pickl" in why.lower():  # both torch and NumPy then say how to be less careful, which is no option here
            why = "it holds objects, or is damaged"
        raise click.BadParameter(f"must hold numbers, got {path!r}: {why}", param_hint=hint) from error
    return arrays.popitem()[1] if len(arrays) == 1 and "x" not in arrays else arrays


def must_exist(path: str, hint: str) -> None:
    if not Path(path).is_file():
        raise click.BadParameter(f"must name a file, got {path!r}", param_hint=hint)


def _in_dtype(inputs: Any, network: nn.Module) -> Any:
    """Arrays of NumPy as tensors, their floats in the model's dtype: float64 is NumPy's custom and nobody's choice."""
    if isinstance(inputs, Mapping):
        return {name: _in_dtype(one, network) for name, one in cast("Mapping[str, Any]", inputs).items()}
    if isinstance(inputs, tuple):
        return tuple(_in_dtype(one, network) for one in cast("tuple[Any, ...]", inputs))
    if not hasattr(inputs, "__array_interface__"):
        return inputs
    # torch takes neither the byte order of another machine nor negative strides.
    array = import_module("numpy").asarray(inputs)
    tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    dtype = next((one.dtype for one in network.parameters() if one.is_floating_point()), tensor.dtype)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def checked(value: Any, task: str, hint: str, count: int | None) -> Tensor | None:
    """The truth as a tensor, as far as it can be judged before the prediction; `count` inputs, if that is known."""
    if value is None:
        return None
    try:
        truth = torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise click.BadParameter(f"the truth must be numbers: {error}", param_hint=hint) from error
    wanted, holds = "finite numbers, got others", bool(truth.isfinite().all())
    if task == "classification":
        holds = not truth.is_floating_point() and not truth.is_complex()
        wanted = f"classes as integers, got {truth.dtype}; values are for --task regression"
    if holds:
        holds = truth.dim() > 0 and count in (None, len(truth))
        wanted = f"one for each of {count} inputs, got shape {tuple(truth.shape)}"
    if not holds:
        raise click.BadParameter(f"the truth must be {wanted}", param_hint=hint)
    return truth.long() if task == "classification" else truth.double()


def need(package: str, why: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise Failed(f'{package} is needed {why}: pip install "dropkit[mc]"') from error


def either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
