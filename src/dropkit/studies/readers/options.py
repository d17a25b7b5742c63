"""What every reader is given beside its target, and what several readers share."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dropkit.extras import needed_for
from dropkit.studies.data import Task

_PARTS = {
    **dict.fromkeys(("train", "training", "tr"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How data is read.

    Attributes:
        task: what targets are; None to choose by their type.
        size: height and width of images, in pixels; None to keep that of the file.
    """

    task: Task | None = None
    size: int | None = None


def need(module: str, what: str, extra: str | None) -> Any:
    """Import an optional package.

    Args:
        module: its full name.
        what: needs it.
        extra: of dropkit, that brings it; None for a package that none brings.

    Raises:
        ImportError: it is not installed; the message says how to install it.
        ValueError: it is installed, and its import fails.
    """
    package = module.partition(".")[0]
    with needed_for(what, extra):
        try:
            return import_module(module)
        except ImportError:
            raise
        except Exception as error:  # of the package
            raise ValueError(f"{package}, which {what} needs, cannot be imported: {error}") from error


def part_named(word: str) -> str | None:
    """Return the part of the data that a word in a name stands for, such as "val" for validation; None if none."""
    return _PARTS.get(word.lower())
