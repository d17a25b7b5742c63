"""Source location of a call: the nearest line of the stack that belongs to neither torch nor dropkit."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

import dropkit
from dropkit.catalog import LAYER_DROP
from dropkit.trace import Place


def _folder(module: ModuleType) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(str(module.__file__))), "")


_LIBRARIES = (_folder(torch), _folder(dropkit))
_STDLIB = _folder(os)


def calling_line() -> Place | None:
    """Return the line that is running, in the program or in a library other than torch and dropkit."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if _is_users(file):
            return Place(_short_path(file), frame.f_lineno, frame.f_code.co_name, file)
        frame = frame.f_back
    return None


def layers_of_caller() -> nn.Module | None:
    """Return the list of layers in whose method dropkit chooses the layers of this pass; None if it does not."""
    frame = sys._getframe(1)
    while frame is not None and not _is_users(frame.f_code.co_filename):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and type(owner).__name__ == LAYER_DROP:
            return owner
        frame = frame.f_back
    return None


@lru_cache(maxsize=4096)
def _is_users(file: str) -> bool:
    if file.startswith(("<frozen", "<eval_with_key>", "<__array_function__")):
        return False
    full = os.path.abspath(file)
    return not full.startswith(_LIBRARIES) and not (full.startswith(_STDLIB) and "site-packages" not in full)


@lru_cache(maxsize=4096)
def _short_path(file: str) -> str:
    """Return a path relative to the working directory, or to site-packages for an installed package."""
    for marker in ("site-packages/", "dist-packages/"):
        if marker in file:
            return file.rpartition(marker)[2]
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        return file
