"""The names of classes: from an option, from data sets, and from the configuration of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click

# Begins the names in configurations of models whose classes have none.
_UNNAMED = "LABEL_"


def names_of_option(value: str) -> list[str]:
    """Return names that are separated by commas, or those of a file: a line each, or a JSON list or mapping.

    Raises:
        click.BadParameter: the file is missing or holds something else.
    """
    path = Path(value)
    if not path.is_file():
        if "," not in value and (path.suffix or "/" in value):
            raise click.BadParameter(f"file not found: {value}", param_hint="--classes")
        return [name.strip() for name in value.split(",")]
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        names = _in_order(json.loads(text))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value} could not be read: {error}", param_hint="--classes") from error
    if names is None:
        raise click.BadParameter(
            f"{value} must hold a list of names, or a name for each number", param_hint="--classes"
        )
    return names


def names_in(data: Any) -> list[str] | None:
    """Return what data calls its classes: an attribute of a data set, or of that of a loader, or an entry of a file."""
    if isinstance(data, Mapping):
        return _in_order(cast("Mapping[str, Any]", data).get("classes"))
    for _ in range(3):  # a loader of a subset of a data set
        names = _in_order(getattr(data, "classes", None))
        if names is not None:
            return names
        data = getattr(data, "dataset", None)
    return None


def names_in_model(network: Any) -> list[str] | None:
    """Return what the configuration of a model of transformers calls its classes."""
    names = _in_order(getattr(getattr(network, "config", None), "id2label", None))
    return None if names is None or all(name.startswith(_UNNAMED) for name in names) else names


def _in_order(value: Any) -> list[str] | None:
    """Names in the order of their classes, if these are some."""
    if isinstance(value, Mapping):
        numbered = {str(number): name for number, name in cast("Mapping[Any, Any]", value).items()}
        value = [numbered.get(str(number)) for number in range(len(numbered))]
    if hasattr(value, "tolist"):
        value = value.tolist()
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    names = list(cast("Sequence[Any]", value)) if is_list else []
    return names if names and all(isinstance(name, str) for name in names) else None
