"""Load the model of a command from a checkpoint or from code, and a state dict into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import click
import torch
from torch import nn

from dropkit.array_files import TORCH
from dropkit.cli.actions.data_loading import alternatives, must_be_a_file, read_file
from dropkit.cli.actions.model_loading import load_object, make_model, must_be_module, search_working_folder, user_code
from dropkit.cli.options import Failed


def load_model(target: str, weights: str | None, trust: bool) -> nn.Module:
    """Load or make the model, and load its weights if a file of them is given.

    Args:
        target: a checkpoint, or FILE.py:NAME or package.module:NAME.
        trust: load a whole module, which runs code in the checkpoint.
    """
    if not target.endswith(TORCH) and ":" not in target:
        raise click.UsageError(
            f"MODEL must be FILE.py:NAME, package.module:NAME or {alternatives(TORCH)}, got {target!r}"
        )
    with user_code(target):
        loaded = (
            _checkpoint(target, trust) if target.endswith(TORCH) else make_model(load_object(target, "MODEL"), target)
        )
    module = must_be_module(loaded)
    if weights is not None:
        state = read_file(weights, "--weights")
        if isinstance(state, Mapping) and "state_dict" in state:  # as Lightning writes it
            state = cast("Mapping[str, Any]", state)["state_dict"]
        try:
            module.load_state_dict(cast("Any", state))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise Failed(f"--weights does not fit the model: {error}") from error
    return module


def _checkpoint(path: str, trust: bool) -> Any:
    must_be_a_file(path, "MODEL")
    search_working_folder()  # It may have the module's class.
    try:
        loaded = torch.load(path, weights_only=not trust, map_location="cpu")
    except Exception as error:  # damaged and foreign files raise errors of any kind
        message = str(error)
        if "TorchScript" in message:
            raise click.UsageError(f"{path} is scripted, and its dropout cannot be seen: give FILE.py:NAME") from error
        if not trust and "Unsupported global" in message:
            raise click.UsageError(f"{path} holds a whole module; loading it runs code in it: give --trust") from error
        raise Failed(f"{path} could not be loaded: {type(error).__name__}: {message.partition(chr(10))[0]}") from error
    if isinstance(loaded, Mapping):
        raise click.UsageError(f"{path} holds weights and no module: give FILE.py:NAME --weights {path}")
    return loaded
