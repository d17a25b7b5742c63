"""Where in the user's program a call comes from: the nearest line that is neither torch's nor ours."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch

import dropkit
from dropkit.trace import Place


def _folder(module: ModuleType) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(str(module.__file__))), "")


_LIBRARIES = (_folder(torch), _folder(dropkit))
_STDLIB = _folder(os)


def here() -> Place | None:
    """The line that is running, as its author would name it."""
    frame = sys._getframe(1)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return Place(
                _short(frame.f_code.co_filename), frame.f_lineno, frame.f_code.co_name, frame.f_code.co_filename
            )
        frame = frame.f_back
    return None


@lru_cache(maxsize=4096)
def _is_users(file: str) -> bool:
    if file.startswith(("<frozen", "<eval_with_key>", "<__array_function__")):
        return False
    full = os.path.abspath(file)
    return not full.startswith(_LIBRARIES) and not (full.startswith(_STDLIB) and "site-packages" not in full)


@lru_cache(maxsize=4096)
def _short(file: str) -> str:
    """From the working directory if the file lies there, from its package if it is installed."""
    for marker in ("site-packages/", "dist-packages/"):
        if marker in file:
            return file.rpartition(marker)[2]
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        return file
