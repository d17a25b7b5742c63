"""Arrays of .npz, .npy and .pt files as data: which array is what follows from its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dropkit import array_files
from dropkit.arguments import check, did_you_mean
from dropkit.studies.data import Data
from dropkit.studies.inputs import as_data
from dropkit.studies.readers.options import Options, need, part_named

_INPUTS = ("x", "input", "inputs", "data", "feature", "features", "image", "images")
_TARGETS = ("y", "target", "targets", "label", "labels")
_ROLES = {"inputs": _INPUTS, "targets": _TARGETS}
_KNOWN = (*_INPUTS, *_TARGETS, *(f"{what}_{part}" for what in "xy" for part in ("train", "val", "test")))
_WANTED = "x and y, or x_train, y_train, x_test and y_test"


def read(path: str, options: Options) -> Data:
    """Read a file that holds inputs and targets, by name or as a pair."""
    loaded = _load(path, "it")
    if isinstance(loaded, (tuple, list)) and len(cast("list[Any]", loaded)) == 2:
        loaded = dict(zip(("x", "y"), cast("list[Any]", loaded), strict=True))
    if isinstance(loaded, Mapping):
        return data_of(cast("Mapping[Any, Any]", loaded), Path(path).name, options)
    raise ValueError(f"it must hold {_WANTED}, got {type(cast('Any', loaded)).__name__}")


def read_pair(pair: str, options: Options) -> Data:
    """Read a file of inputs and a file of targets."""
    inputs, colon, targets = pair.partition(":")
    check("data", bool(colon and inputs and targets), "npy:INPUTS:TARGETS", f"npy:{pair}")
    for path in (inputs, targets):
        check("files", path.endswith(".npy"), "named .npy", path)
    return data_of({"x": _load(inputs, "inputs"), "y": _load(targets, "targets")}, Path(inputs).name, options)


def _load(path: str, subject: str) -> Any:
    if not path.endswith(array_files.TORCH):
        need("numpy", path, "study")
    try:
        return array_files.read(path, is_strict=True)
    except ValueError as error:
        raise ValueError(f"{subject} must hold numbers: {error}") from error


def data_of(arrays: Mapping[Any, Any], name: str, options: Options) -> Data:
    """Return the arrays, whose names say what they are, as data.

    Raises:
        ValueError: names are unknown or do not fit together, or values are no numbers.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name_of_array, array in arrays.items():
        what, part = _role(str(name_of_array))
        check("names", what not in parts.setdefault(part, {}), f"one for {what}", f"{name_of_array!r} too")
        parts[part][what] = array
    if len(parts) > 1 and "" in parts:
        check("names", "training" not in parts, "x or x_train", "both")
        parts["training"] = parts.pop("")
    for part in parts.values():
        missing = [what for what in _ROLES if what not in part]
        check("arrays", not missing, f"both inputs and targets of each part, as {_WANTED}", ", ".join(map(str, arrays)))
    check("arrays", bool(parts), _WANTED, "none")
    pairs: dict[str, Any] = {
        part: (_tensor("inputs", pair["inputs"]), _targets(pair["targets"], options)) for part, pair in parts.items()
    }
    return as_data(pairs.get("", pairs), name)


def _role(name: str) -> tuple[str, str]:
    """What an array is, "inputs" or "targets", and the part that it belongs to, "" for all."""
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[xyXY])(?=train|test|val)", "_", name)
    words = [word for word in re.split(r"[^a-z0-9]+", separated.lower()) if word]
    whats = [what for what, names in _ROLES.items() for word in words if word in names]
    parts = [part for word in words if (part := part_named(word))]
    if len(whats) != 1 or len(parts) > 1 or len(words) > len(whats) + len(parts):
        raise ValueError(f"it must hold {_WANTED}, got {name!r}{did_you_mean(name.lower(), _KNOWN)}")
    return whats[0], parts[0] if parts else ""


def _tensor(name: str, value: Any) -> Tensor:
    """Numbers as a tensor that torch can compute with: float32, int64 or bytes."""
    if isinstance(value, Tensor):
        is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        check(name, is_plain and not value.is_complex(), "a dense tensor of real numbers", _describe(value))
        # A view with strides of 0 takes more memory as a copy than in its file.
        is_whole = value.numel() * value.element_size() <= value.untyped_storage().nbytes()
        check(name, is_whole, "saved after .contiguous()", f"an expanded view of shape {tuple(value.shape)}")
        tensor = value.detach().clone()
    else:
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        check(name, kind in ("f", "i", "u", "b"), "an array of numbers", _describe(value))
        if kind == "u" and value.dtype.itemsize == 8:
            check(name, not value.size or int(value.max()) < 2**63, "integers below 2**63", "larger ones")
        wide = "float32" if kind == "f" else "uint8" if value.dtype.itemsize == 1 and kind == "u" else "int64"
        tensor = torch.from_numpy(value.astype(wide, order="C"))
    check(name, tensor.dim() > 0, "an array with a first dimension of examples", "a number")
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype == torch.uint8 else tensor.long()


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"


def _targets(values: Any, options: Options) -> Tensor | list[str]:
    """Targets in the dtype of their task; a column of classes as a vector."""
    if getattr(getattr(values, "dtype", None), "kind", "") in ("U", "S"):
        check("targets", options.task != "regression", "numbers for regression", "text")
        return values.astype("U").reshape(-1).tolist()
    targets = _tensor("targets", values)
    if options.task == "regression":
        return targets.float()
    if options.task == "classification" and targets.is_floating_point():
        # Above 2^24 single precision has no fractions.
        is_whole = bool(((targets == targets.round()) & (targets.abs() < 2**24)).all())
        check("targets", is_whole, "whole numbers for classification", "fractions or NaN")
        targets = targets.long()
    is_column = targets.dim() == 2 and targets.shape[1] == 1 and not targets.is_floating_point()
    return targets[:, 0] if is_column else targets
