"""A folder of images, with a sub-folder for each class, in folders for training and test if there are such.

It may also hold IDX files.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dropkit import files
from dropkit.arguments import check
from dropkit.studies.data import PARTS, Data
from dropkit.studies.readers import idx, images
from dropkit.studies.readers.options import Options, part_named

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pnm")
# What systems leave in folders.
_IGNORED = ("thumbs.db", "desktop.ini")


def read(path: str, options: Options) -> Data:
    """Read a folder."""
    root = Path(path)
    if idx.is_folder(root):
        return idx.read_folder(root, options)
    check("targets", options.task != "regression", "numbers for regression", "folders, which are classes")
    found_parts = {part: root / name for name in _names(root) if (part := part_named(name))}
    parts = {part: found_parts[part] for part in PARTS if part in found_parts}
    if not {"training", "test"} <= parts.keys():
        parts = {"": root}
    classes = tuple(dict.fromkeys(sorted(name for folder in parts.values() for name in _names(folder))))
    found: list[tuple[str, Any]] = []
    targets: list[int] = []
    numbers: list[int] = []
    for part, folder in parts.items():
        for name in _names(folder):
            check(str((folder / name).relative_to(root)), (folder / name).is_dir(), "a folder of a class", "a file")
            paths = _images(root, folder / name)
            found += [(str(file.relative_to(root)), partial(files.read, file)) for file in paths]
            targets += [classes.index(name)] * len(paths)
            numbers += [PARTS.index(part) if part else 0] * len(paths)
    check("the folder", bool(found), "a folder for each class, with images", "none")
    inputs = images.stack(found, options.size)
    stated = None if "" in parts else torch.tensor(numbers)
    return Data(inputs, torch.tensor(targets), classes, root.resolve().name, stated)


def _names(folder: Path) -> list[str]:
    return sorted(n for n in os.listdir(folder) if not n.startswith(".") and n.lower() not in _IGNORED)


def _images(root: Path, folder: Path) -> list[Path]:
    """The images of a class."""
    paths = [folder / name for name in _names(folder)]
    check(str(folder.relative_to(root)), bool(paths), "a folder of images", "an empty one")
    for path in paths:
        wanted = f"a regular file named {', '.join(_SUFFIXES)}"
        is_image = path.suffix.lower() in _SUFFIXES and path.is_file()
        check(str(path.relative_to(root)), is_image, wanted, "a folder" if path.is_dir() else "another")
    return paths
