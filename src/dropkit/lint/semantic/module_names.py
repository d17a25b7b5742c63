"""The names under which files of a project know each other's functions: "module.function"."""

from __future__ import annotations

from pathlib import PurePath

from dropkit.lint.semantic.model import SourceFile


def module_key(source: SourceFile, dotted: str) -> str:
    """The last two parts of a dotted name: "metrics.evaluate" of `project.metrics.evaluate`, or of `.metrics.evaluate`.

    A function that the package itself exports, as in `from . import evaluate`, has the name of the folder.
    """
    parts = [part for part in dotted.split(".") if part]
    return ".".join(parts[-2:]) if len(parts) > 1 else f"{PurePath(source.path).parent.name}.{dotted.lstrip('.')}"


def own_key(source: SourceFile, function: str) -> str:
    """The name under which other files import a function of this file."""
    path = PurePath(source.path)
    return f"{path.parent.name if path.stem == '__init__' else path.stem}.{function}"
