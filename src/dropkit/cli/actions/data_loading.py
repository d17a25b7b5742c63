"""Load the inputs of a prediction and their true labels or values, from files, functions and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, cast

import click
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dropkit import array_files
from dropkit.array_files import FORMATS, TORCH
from dropkit.arrays import as_input, is_array
from dropkit.cli.actions.class_names import names_in
from dropkit.cli.actions.model_loading import load_object, user_code
from dropkit.cli.options import Failed
from dropkit.extras import must_be_installed
from dropkit.mc import batch_stream
from dropkit.mc.batch_stream import BatchStream
from dropkit.mc.thumbnails import Collected

# So many names are listed.
_MOST_LISTED = 3
# Pictures of so many inputs are kept, in some kilobytes each.
_MOST_IMAGES = 10_000


class Collector:
    """Collect the truth, and pictures of images, from what a loader yields, while `predict` reads the inputs.

    Args:
        network: the model, which takes some entries of mappings.
        has_truth: whether what comes with the inputs is the truth; else it is left out.
    """

    def __init__(self, network: nn.Module, has_truth: bool) -> None:
        self._has_truth, self._truths = has_truth, list[Tensor]()
        self._stream = BatchStream(network, 1, None, 0)
        self.images: Collected = Collected(_MOST_IMAGES)

    def __call__(self, batch: Any) -> Any:
        inputs, truth = self._stream.inputs_of(batch), self._stream.labels_of(batch)
        self._truths += [truth.cpu()] if self._has_truth and isinstance(truth, Tensor) else []
        self.images.add(inputs)
        return inputs

    def joined(self) -> Tensor | None:
        """The truth of all inputs; None if the loader yielded no pairs."""
        try:
            return torch.cat(self._truths) if self._truths else None
        except RuntimeError as error:
            raise Failed(f"--data must yield labels of one shape: {error}") from error


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `predict` reads, and what its result is compared with.

    Attributes:
        inputs: of `predict`.
        truth: the true labels or values, if they are known before the inputs are read.
        classes: what the data calls the classes, if it does.
        collector: of what a loader yields.
    """

    inputs: Any
    truth: Tensor | None
    classes: list[str] | None = None
    collector: Collector | None = None


def load_data(target: str, labels: str | None, network: nn.Module, task: str) -> Loaded:
    """Return the inputs, and the truth if it is known."""
    value = _load_target(target)
    if _is_loader(value) and labels is None:
        return Loaded(value, None, names_in(value), Collector(network, has_truth=True))
    inputs, truth = _split_truth(value)
    classes = names_in(inputs)
    if isinstance(inputs, Mapping):
        inputs = _arguments(cast("Mapping[str, Any]", inputs), network, classes is not None)
    if labels is not None:
        truth = read_file(labels, "--labels")
        if isinstance(truth, Mapping):
            named = cast("Mapping[str, Any]", truth)
            if "y" not in named:
                raise click.BadParameter(f"must hold y, got {', '.join(named)}", param_hint="--labels")
            truth = named["y"]
    try:
        inputs = _in_dtype(inputs, network)
        # A loader may skip some of the inputs.
        count = None if _is_loader(inputs) else batch_stream.count(inputs)
    except TypeError as error:
        raise click.BadParameter(str(error), param_hint="--data") from error
    truth = checked_truth(truth, task, "--data" if labels is None else "--labels", count)
    return Loaded(inputs, truth, classes, Collector(network, has_truth=False) if _is_loader(inputs) else None)


def _split_truth(value: Any) -> tuple[Any, Any]:
    """Split what --data gives into inputs, and their truth or None."""
    if isinstance(value, Mapping):
        named = dict(cast("Mapping[str, Any]", value))
        truth = named.pop("y", None)
        return named, truth
    if isinstance(value, (tuple, list)) and len(cast("list[Any]", value)) == 2:
        inputs, truth = cast("list[Any]", value)
        return inputs, truth
    return cast("Any", value), None


def _arguments(named: Mapping[str, Any], network: nn.Module, has_classes: bool) -> Any:
    """Return x, or the arguments of the model by name, of what a file or a function gives.

    Args:
        has_classes: whether the names of the classes are beside them.
    """
    named = {name: array for name, array in named.items() if not (has_classes and name == "classes")}
    if list(named) == ["x"]:
        return named["x"]
    try:
        call = signature(network.forward)
    except (TypeError, ValueError):  # of a callable in C
        return named
    try:
        call.bind(**named)
        fits = bool(named)
    except TypeError:
        fits = False
    if not fits:
        wanted = f"x and, if it is known, y, or the model's arguments by name ({', '.join(call.parameters)})"
        got = listed([str(name) for name in named]) if named else "none besides y"
        raise click.BadParameter(f"must hold {wanted}, got {got}", param_hint="--data")
    return named


def _is_loader(value: Any) -> bool:
    return isinstance(value, (DataLoader, Iterator)) or batch_stream.is_dataset(value)


def _load_target(target: str) -> Any:
    if target.endswith(FORMATS):
        return read_file(target, "--data")
    if ":" not in target:
        must_be_a_file_if_it_is_named_as_one(target, "--data")
        wanted = f"FILE.py:NAME or {alternatives(FORMATS)}"
        raise click.BadParameter(f"must be {wanted}, got {target!r}", param_hint="--data")
    with user_code(target):
        value = load_object(target, "--data")
        return value() if callable(value) else value


def read_file(path: str, hint: str) -> Any:
    """Return the contents of a file: of an .npz the arrays by name, or the only array."""
    must_be_a_file(path, hint)
    if not path.endswith(FORMATS):
        raise click.BadParameter(f"must be {alternatives(FORMATS)}, got {path!r}", param_hint=hint)
    if not path.endswith(TORCH):
        must_be_installed(path, "mc", "numpy")
    try:
        arrays = array_files.read(path)
    except (ValueError, OSError) as error:
        raise click.BadParameter(f"must hold numbers, got {path!r}: {error}", param_hint=hint) from error
    is_one = path.endswith(".npz") and len(arrays) == 1 and not arrays.keys() & {"x", "y"}
    return arrays.popitem()[1] if is_one else arrays


def must_be_a_file(path: str, hint: str) -> None:
    """Raise a one-line error unless this is an existing file."""
    if not Path(path).is_file():
        raise click.BadParameter(f"file not found: {path}", param_hint=hint)


def must_be_a_file_if_it_is_named_as_one(path: str, hint: str) -> None:
    """Raise a one-line error if this has a folder or a suffix, as paths do, and does not exist."""
    if (Path(path).suffix or "/" in path) and not Path(path).exists():
        raise click.BadParameter(f"file not found: {path}", param_hint=hint)


def _in_dtype(inputs: Any, network: nn.Module) -> Any:
    """NumPy arrays as tensors, also in a dict or tuple; floats in the model's dtype."""
    if isinstance(inputs, Mapping):
        return {name: _in_dtype(array, network) for name, array in cast("Mapping[str, Any]", inputs).items()}
    if isinstance(inputs, tuple):
        return tuple(_in_dtype(array, network) for array in cast("tuple[Any, ...]", inputs))
    return as_input(inputs, network) if is_array(inputs) else inputs


def checked_truth(value: Any, task: str, hint: str, count: int | None) -> Tensor | None:
    """Return the truth as a tensor, validated as far as that needs no prediction.

    Args:
        hint: the option that it comes from.
        count: how many inputs there are, if that is known.
    """
    if value is None:
        return None
    try:
        truth = torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise click.BadParameter(f"labels must be numbers: {error}", param_hint=hint) from error
    wanted, is_valid = "finite numbers, got NaN or infinity", bool(truth.isfinite().all())
    if task == "classification":
        is_valid = not truth.is_floating_point() and not truth.is_complex()
        wanted = f"integers, got {truth.dtype}; for real values give --task regression"
    elif task == "multilabel":
        is_valid = bool(((truth == 0) | (truth == 1)).all())
        wanted = "0 or 1 for each label with --task multilabel"
    if is_valid:
        is_valid = truth.dim() > 0 and count in (None, len(truth))
        wanted = f"one for each of {count} inputs, got shape {tuple(truth.shape)}"
    if not is_valid:
        raise click.BadParameter(f"labels must be {wanted}", param_hint=hint)
    return truth.double() if task == "regression" else truth.long()


def listed(names: list[str]) -> str:
    """Return the first names of a list in a sentence, and how many there are."""
    shown = ", ".join(names[:_MOST_LISTED])
    return shown if len(names) <= _MOST_LISTED else f"{shown}, ... ({len(names)} in all)"


def alternatives(names: tuple[str, ...]) -> str:
    """Return names as a list in a sentence: "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
