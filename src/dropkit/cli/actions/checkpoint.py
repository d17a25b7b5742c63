"""Load the model of a command from a checkpoint or from code, and a state dict into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from torch import nn

from dropkit.array_files import TORCH
from dropkit.cli.actions.data_loading import alternatives, must_be_a_file, must_be_a_file_if_it_is_named_as_one
from dropkit.cli.actions.model_loading import load_object, make_model, must_be_module, user_code
from dropkit.cli.actions.weights import SAFETENSORS, load_weights, modules_in, read_checkpoint

_ONLY_WEIGHTS = "{path} holds weights and no module: give FILE.py:NAME --weights {path}"


def load_model(target: str, weights: str | None, trust: bool) -> tuple[nn.Module, list[str]]:
    """Load or make the model, and load its weights if a file of them is given; return notes on what was left out.

    Args:
        target: a checkpoint, or FILE.py:NAME or package.module:NAME.
        trust: load a whole module, or weights beside objects, which runs code in the file.
    """
    if target.endswith(SAFETENSORS):
        raise click.UsageError(_ONLY_WEIGHTS.format(path=target))
    if not target.endswith(TORCH) and ":" not in target:
        must_be_a_file_if_it_is_named_as_one(target, "MODEL")
        raise click.UsageError(
            f"MODEL must be FILE.py:NAME, package.module:NAME or {alternatives(TORCH)}, got {target!r}"
        )
    with user_code(target):
        loaded = (
            _checkpoint(target, trust) if target.endswith(TORCH) else make_model(load_object(target, "MODEL"), target)
        )
    module = must_be_module(loaded)
    return module, [] if weights is None else load_weights(module, weights, trust)


def _checkpoint(path: str, trust: bool) -> Any:
    must_be_a_file(path, "MODEL")
    loaded = read_checkpoint(path, trust)
    if isinstance(loaded, Mapping):
        _, module = next(modules_in(loaded), ("", None))
        if module is None:
            raise click.UsageError(_ONLY_WEIGHTS.format(path=path))
        return module
    return loaded
