"""Load what FILE.py:NAME or package.module:NAME on the command line refers to."""

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

from dropkit.cli.options import Failed


def load_object(target: str, hint: str) -> Any:
    """Import and return the object that FILE.py:NAME or package.module:NAME refers to."""
    source, colon, name = target.rpartition(":")
    if not colon or not source or not name:
        raise click.BadParameter(f"must be FILE.py:NAME or package.module:NAME, got {target!r}", param_hint=hint)
    # A module has no slash in its name.
    is_file = source.endswith(".py") or "/" in source
    module = _import_file(source, hint) if is_file else _import_module(source, hint)
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            names = ", ".join(public for public in dir(module) if not public.startswith("_"))
            raise click.BadParameter(f"{source} has no {name}; it has {names or 'no names'}", param_hint=hint)
        value = getattr(value, part)
    return value


def _import_file(source: str, hint: str) -> Any:
    path = Path(source)
    if not path.is_file():
        raise click.BadParameter(f"file not found: {source}", param_hint=hint)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as when the file is run, so that it can import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"must be a Python file, got {source!r}", param_hint=hint)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str, hint: str) -> Any:
    search_working_folder()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise click.BadParameter(f"module not found: {name}", param_hint=hint) from error


def search_working_folder() -> None:
    """Let imports find the modules of the working folder, as Python does for a script in it."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def make_model(loaded: Any, target: str) -> Any:
    """Return a module as it is, or the result of calling a class or function without arguments."""
    if isinstance(loaded, nn.Module):
        return loaded
    if not callable(loaded):
        raise click.UsageError(f"{target} must be a module or make one, got {type(loaded).__name__}")
    return loaded()


def must_be_module(value: Any) -> nn.Module:
    """Return a module.

    Raises:
        click.UsageError: it is none.
    """
    if not isinstance(value, nn.Module):
        raise click.UsageError(f"MODEL must be or make a torch.nn.Module, got {type(value).__name__}")
    return value


@contextmanager
def user_code(target: str, action: str = "loaded") -> Generator[None]:
    """Turn any exception of the user's code into an error message of the command: `target` could not be `action`."""
    try:
        yield
    except click.ClickException:
        raise
    except (Exception, SystemExit) as error:
        raise Failed(f"{target} could not be {action}: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return the kind and the text of an error; of a missing file that, and its path."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"file not found: {error.filename}"
    return f"{type(error).__name__}: {error}"
