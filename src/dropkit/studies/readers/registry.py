"""The readers by prefix, and the choice of one by what a target says or is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import path as paths
from typing import Any

from dropkit import files
from dropkit.arguments import did_you_mean
from dropkit.array_files import FORMATS
from dropkit.studies import digits
from dropkit.studies.data import Data, Task
from dropkit.studies.readers import (
    array_file,
    csv_table,
    folder,
    hugging_face,
    idx,
    text,
    torchvision_dataset,
)
from dropkit.studies.readers.options import Options

TASKS: tuple[Task, ...] = ("classification", "regression")


@dataclass(frozen=True, slots=True)
class Reader:
    """A source of data.

    Attributes:
        form: how a target is written.
        description: what is read, for help texts.
        read: from what follows the prefix, the target itself if it has none, to the data.
        recipe: how networks are trained with it by default, as fields of `Recipe`, from the data.
    """

    form: str
    description: str
    read: Callable[[str, Options], Data]
    recipe: Callable[[Data], dict[str, Any]] = lambda data: {}


# By prefix; the readers of targets without one are called by what the target is.
READERS: dict[str, Reader] = {
    "digits": Reader(
        "digits", "handwritten digits that are installed", lambda target, options: digits.load(), digits.recipe
    ),
    "text": Reader("text", "characters of Python's own documentation", text.read, text.recipe),
    "arrays": Reader(
        "FILE.npz or FILE.pt", "x and y, or x_train, y_train, x_test and y_test, as arrays", array_file.read
    ),
    "npy": Reader("npy:INPUTS:TARGETS", "a .npy file of inputs and one of targets", array_file.read_pair),
    "csv": Reader("csv:FILE:TARGET", "a table, and the name of the column to predict", csv_table.read),
    "folder": Reader("FOLDER", "images, in a folder for each class; or IDX files", folder.read),
    "idx": Reader("idx:IMAGES:LABELS", "IDX files, MNIST's format, also with .gz", idx.read_pair),
    "hf": Reader("hf:NAME", "a dataset of Hugging Face that was downloaded before", hugging_face.read),
    "torchvision": Reader(
        "torchvision:NAME", "a dataset of torchvision that was downloaded before", torchvision_dataset.read
    ),
}


def read(target: str, size: int | None = None) -> Data:
    """Read the data that a target names, into memory.

    Args:
        target: in the form of one of `READERS`; ":classification" or ":regression" at its end says what the targets
            are, which is otherwise chosen by their type.
        size: height and width in pixels that images are resized to; None where all have one size.

    Raises:
        ValueError: there is no such data, or it is damaged; the message is one line that begins with the target.
        ImportError: a package is missing; the message says how to install it.

    Example:
        >>> read("digits").task
        'classification'
    """
    name, colon, ending = target.rpartition(":")
    task: Task | None = next((task for task in TASKS if colon and ending == task), None)
    try:
        return _read(target if task is None else name, Options(task, size))
    except OSError as error:
        where = "" if error.filename in (None, target) else f"{error.filename}: "
        problem = f"{where}{files.reason(error)}"
    except ValueError as error:
        problem = str(error)
    except MemoryError:
        problem = "there is not enough memory for it"
    raise ValueError(" ".join(f"{target}: {problem}".split()))


def recipe(target: str, data: Data) -> dict[str, Any]:
    """Return how networks are trained with the data of a target by default, as fields of `Recipe`."""
    return READERS[target].recipe(data) if target in READERS else {}


def _read(target: str, options: Options) -> Data:
    prefix, colon, rest = target.partition(":")
    if prefix in READERS and (colon or prefix in ("digits", "text")):
        return READERS[prefix].read(rest, options)
    if paths.isdir(target):
        return folder.read(target, options)
    if target.endswith(FORMATS):
        return array_file.read(target, options)
    if paths.exists(target):
        if target.endswith((".csv", ".tsv")):
            return csv_table.read(target, options)  # which says what its columns are
        raise ValueError(f"a file without a prefix must be named {', '.join(FORMATS)}")
    forms = ", ".join(reader.form for reader in READERS.values())
    raise ValueError(f"there is no such file or folder{did_you_mean(prefix, READERS)}; data must be {forms}")
