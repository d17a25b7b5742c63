"""Datasets of torchvision that are on this machine; nothing is downloaded."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from dropkit.arguments import check, did_you_mean
from dropkit.studies.data import Data
from dropkit.studies.inputs import as_data
from dropkit.studies.readers import images
from dropkit.studies.readers.options import Options, need

# Where torchvision's own examples keep them.
_FOLDER = "data"


def read(rest: str, options: Options) -> Data:
    """Read "NAME" or "NAME:FOLDER": a class of torchvision.datasets, and the folder that it was downloaded to."""
    name, _, folder = rest.partition(":")
    folder = folder or _FOLDER
    datasets = need("torchvision.datasets", f"torchvision:{name}", None)
    found = getattr(datasets, name, None)
    if not isinstance(found, type) or not issubclass(found, torch.utils.data.Dataset):
        hint = did_you_mean(name, datasets.__all__) or did_you_mean(name.upper(), datasets.__all__)
        raise ValueError(f"the name must be that of a class of torchvision.datasets, got {name!r}{hint}")
    parts = {part: _part(found, name, folder, arguments, options) for part, arguments in _parts(found).items()}
    return as_data(parts.get("", parts), name)


def _parts(dataset: Any) -> dict[str, dict[str, Any]]:
    """The arguments that select each part; classes of torchvision differ in them."""
    parameters = inspect.signature(dataset).parameters
    if "train" in parameters:
        return {"training": {"train": True}, "test": {"train": False}}
    if "split" in parameters and parameters["split"].default == "train":
        return {"training": {"split": "train"}, "test": {"split": "test"}}
    return {"": {}}


def _part(dataset: Any, name: str, folder: str, arguments: dict[str, Any], options: Options) -> tuple[Tensor, Tensor]:
    if "root" in inspect.signature(dataset).parameters:
        arguments = {"root": folder, **arguments}
    try:
        examples = dataset(**arguments)
        pairs = [examples[i] for i in range(len(examples))]
    except Exception as error:  # each class has its own errors for what is missing or damaged
        shown = ", ".join(f"{argument}={value!r}" for argument, value in arguments.items())
        why = " ".join(str(error).split()).rstrip(".")
        download = f"torchvision.datasets.{name}({shown}, download=True)"
        raise ValueError(f"it could not be read from {folder} ({why}); in Python, {download} downloads it") from error
    check("dataset", bool(pairs) and all(map(_is_example, pairs)), "of images and classes", name)
    inputs = images.join("image", [images.to_tensor(image, options.size) for image, _ in pairs])
    return inputs, torch.tensor([target for _, target in pairs])


def _is_example(pair: Any) -> bool:
    return len(pair) == 2 and hasattr(pair[0], "convert") and isinstance(pair[1], int)
