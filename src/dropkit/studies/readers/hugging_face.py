"""Datasets of the Hugging Face Hub that are on this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.studies.data import Data
from dropkit.studies.inputs import as_data
from dropkit.studies.readers import images
from dropkit.studies.readers.options import Options, need, part_named

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def read(rest: str, options: Options) -> Data:
    """Read "NAME" or "NAME:INPUT:TARGET": a dataset, and the names of its columns where they are not evident."""
    name, _, columns = rest.partition(":")
    datasets = need("datasets", f"hf:{name}", None)
    splits = _load(datasets, name)
    found = {part: split for key, split in splits.items() if (part := part_named(key))}
    check("dataset", bool(found), "one with a split named train", ", ".join(map(str, splits)))
    features = next(iter(found.values())).features
    source, target = columns.split(":") if columns.count(":") == 1 else _columns(features)
    check("columns", source in features and target in features, f"two of {', '.join(features)}", f"{source}, {target}")
    pairs: Any = {part: _pair(split, source, target, options) for part, split in found.items()}
    if not {"training", "test"} <= pairs.keys():
        pairs = next(iter(pairs.values()))
    data = as_data(pairs, name)
    names = getattr(features[target], "names", None)
    if data.task == "regression" or names is None:
        return data
    return Data(data.inputs, data.targets, tuple(map(str, names)), name, data.parts)


def _load(datasets: Any, name: str) -> Any:
    try:
        with _offline(datasets):
            return datasets.load_dataset(name)
    except Exception as error:  # each format and cache has errors of its own
        why = " ".join(str(error).split()).rstrip(".")
        download = f"datasets.load_dataset({name!r})"
        raise ValueError(f"it could not be read ({why}); in Python, {download} downloads it") from error


@contextmanager
def _offline(datasets: Any) -> Generator[None]:
    """Let the library look on this machine only; of the environment's variables it takes notice at its import alone."""
    modules = [datasets.config, import_module("huggingface_hub.constants")]
    before = [(module, name, getattr(module, name)) for module in modules for name in _OFFLINE if hasattr(module, name)]
    try:
        for module, name, _ in before:
            setattr(module, name, True)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _columns(features: Any) -> tuple[str, str]:
    """The columns of inputs and targets: the only classes, and the only other column."""
    targets = [name for name, feature in features.items() if hasattr(feature, "names")]
    others = [name for name in features if name not in targets]
    is_evident = len(targets) == len(others) == 1
    wanted = "hf:NAME:INPUT:TARGET, unless there is one column of inputs and one of classes"
    check("data", is_evident, wanted, f"columns {', '.join(features)}")
    return others[0], targets[0]


def _pair(split: Any, source: str, target: str, options: Options) -> tuple[Tensor, Any]:
    targets = list(split[target])
    return _inputs(split[source], source, options), torch.tensor(
        targets
    ).float() if options.task == "regression" else targets


def _inputs(values: Iterable[Any], name: str, options: Options) -> Tensor:
    """Images, lists of numbers of one length, or single numbers, which are vectors of one feature."""
    values = list(values)
    if values and hasattr(values[0], "convert"):
        return images.join(name, [images.to_tensor(value, options.size) for value in values])
    try:
        inputs = torch.tensor(values)
        return inputs if inputs.dim() > 1 else inputs.unsqueeze(1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"column {name!r} must be images or numbers, got {type(values[0]).__name__}") from error
