"""The data and the models that `dropkit study` and `dropkit tune` are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import click

from dropkit.cli.actions.model_loading import load_object, user_code
from dropkit.cli.options import Failed
from dropkit.cli.study_options import usage_errors
from dropkit.studies.data import Data, Sizes
from dropkit.studies.inputs import MakeModel, as_data
from dropkit.studies.networks import NETWORKS, networks_for
from dropkit.studies.readers import read, recipe
from dropkit.studies.training import Recipe


def load_data(target: str, size: int | None) -> Data:
    """Return the examples of --data.

    Raises:
        Failed: they are not there, or damaged.
    """
    source = target.rpartition(":")[0]
    try:
        if not source.endswith(".py"):
            return _noted(read(target, size), target)
        with user_code(target):
            value = load_object(target, "--data")
            return as_data(value() if callable(value) else value, target)
    except (ValueError, ImportError) as error:
        raise Failed(f"--data {error}") from error


def _noted(data: Data, target: str) -> Data:
    """Say on standard error what was decided about the data."""
    if data.note:
        click.echo(f"{target}: {data.note}", err=True)
    return data


def load_models(targets: Sequence[str], data: Data) -> dict[str, MakeModel]:
    """Return the functions that make the models, by name; without targets those that fit the data."""
    names = [target for target in targets if target in NETWORKS]
    with usage_errors():
        models = networks_for(data, names) if names or not targets else {}
    for target in targets:
        if target in NETWORKS:
            continue
        with user_code(target):
            make = load_object(target, "MODEL")
        name = target.rpartition(":")[2]
        models[name if name not in models else target] = make
    return models


def recipe_fields(options: Mapping[str, Any], target: str, data: Data) -> dict[str, Any]:
    """Return the fields of `Recipe`: those that are given, and for built-in data those that suit it."""
    given = {field.name: options[field.name] for field in fields(Recipe) if options.get(field.name) is not None}
    if "sizes" in given:
        given["sizes"] = Sizes(*given["sizes"])
    return recipe(target, data) | given
