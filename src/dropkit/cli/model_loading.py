"""Targets: what FILE.py:NAME or package.module:NAME on the command line stands for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from torch import nn

FAILED = 2


class Failed(click.ClickException):
    """What the user's own code, or the model, did not do."""

    exit_code = FAILED


def load(target: str, hint: str) -> Any:
    """What FILE.py:NAME or package.module:NAME stands for."""
    source, colon, name = target.rpartition(":")
    if not colon or not source or not name:
        raise click.BadParameter(f"must be FILE.py:NAME or package.module:NAME, got {target!r}", param_hint=hint)
    module = _imported_file(source, hint) if source.endswith(".py") else _imported(source, hint)
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = ", ".join(one for one in dir(module) if not one.startswith("_"))
            raise click.BadParameter(f"{source} must have {name}; it has {names or 'nothing'}", param_hint=hint)
        found = getattr(found, part)
    return found


def _imported_file(source: str, hint: str) -> Any:
    path = Path(source)
    if not path.is_file():
        raise click.BadParameter(f"must name a file, got {source!r}", param_hint=hint)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # what lies beside the file can be imported, as when it is run
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"must name a Python file, got {source!r}", param_hint=hint)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _imported(name: str, hint: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise click.BadParameter(f"must name a module that can be imported, got {name!r}", param_hint=hint) from error


def called(made: Any, target: str) -> Any:
    """A module as it is; what makes one, called."""
    if isinstance(made, nn.Module):
        return made
    if not callable(made):
        raise click.UsageError(f"{target} must be a module or make one, got {type(made).__name__}")
    return made()


@contextmanager
def users_own(target: str) -> Generator[None]:
    """What is imported and called is the user's, and may fail in any way."""
    try:
        yield
    except click.ClickException:
        raise
    except (Exception, SystemExit) as error:
        raise Failed(f"{target} could not be made: {type(error).__name__}: {error}") from error
