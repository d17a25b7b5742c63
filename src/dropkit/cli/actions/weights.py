"""Weights from checkpoints as programs write them: the state dict is found, and its names become those of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import click
import torch
from torch import Tensor, nn

from dropkit import array_files
from dropkit.arrays import is_array
from dropkit.cli.actions.data_loading import alternatives, listed, must_be_a_file
from dropkit.cli.actions.model_loading import search_working_folder
from dropkit.cli.options import Failed
from dropkit.extras import needed_for

SAFETENSORS = ".safetensors"
FORMATS = (*array_files.TORCH, ".bin", ".tar", SAFETENSORS)
# What programs call the state dict of the model, the likeliest first.
_KNOWN = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net")
# Averages over training, which are taken only where there is nothing else.
_AVERAGE = re.compile(r"(?:^|_|\b)(?:ema|swa|average|averaged|shadow)(?:_|\b|$)")
# What DistributedDataParallel and torch.compile put before names, at any depth.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Counts the updates of an average, beside torch's averaged model.
_COUNT = "n_averaged"

State = Mapping[str, Any]


def load_weights(module: nn.Module, path: str, trust: bool) -> list[str]:
    """Load weights into a model, and return notes on what was left out.

    Args:
        path: a file of one of `FORMATS`: a state dict, or a checkpoint that has one.
        trust: read files that hold objects, which runs code in them.

    Raises:
        Failed: the weights do not fit.
        click.BadParameter: there is no such file, or no state dict in it.
    """
    state, notes = _state_dict(_read(path, trust))
    state = {n: torch.as_tensor(v) for n, v in state.items()} if any(map(is_array, state.values())) else state
    # A compiled model has the parameters of the original one, under longer names.
    module = dict(module.named_children()).get("_orig_mod", module)
    expected = cast("State", module.state_dict())
    renamed, left_out = _renamed(state, expected)
    differences = _differences(renamed, expected)
    try:
        if differences:
            raise ValueError("; ".join(differences))
        module.load_state_dict(renamed)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise Failed(f"--weights does not fit the model: {error}") from error
    if left_out:
        notes.append(f"--weights holds more than the model, which was left out: {listed(left_out)}")
    return notes


def read_checkpoint(path: str, trust: bool) -> Any:
    """Return what torch.save wrote to a file.

    Raises:
        Failed: it is damaged.
        click.UsageError: it holds a program, or objects, which are not to be trusted.
    """
    search_working_folder()  # It may have the classes of objects.
    try:
        return torch.load(path, weights_only=not trust, map_location="cpu")
    except Exception as error:  # damaged and foreign files raise errors of any kind
        message = str(error)
        if "TorchScript" in message:
            raise click.UsageError(f"{path} is scripted, and its dropout cannot be seen: give FILE.py:NAME") from error
        if not trust and "Unsupported global" in message:
            raise click.UsageError(
                f"{path} holds a whole module or other objects; loading it runs code in it: give --trust"
            ) from error
        raise Failed(f"{path} could not be loaded: {type(error).__name__}: {message.partition(chr(10))[0]}") from error


def modules_in(loaded: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the whole modules that a checkpoint holds, with their names, the likeliest first."""
    if isinstance(loaded, Mapping):
        entries = cast("State", loaded)
        yield from ((str(name), entries[name]) for name in _in_order(entries) if isinstance(entries[name], nn.Module))


def _read(path: str, trust: bool) -> Any:
    must_be_a_file(path, "--weights")
    if path.endswith(SAFETENSORS):
        return _read_safetensors(path)
    if not path.endswith(FORMATS):
        raise click.BadParameter(f"must be {alternatives(FORMATS)}, got {path!r}", param_hint="--weights")
    return read_checkpoint(path, trust)


def _read_safetensors(path: str) -> Any:
    with needed_for(path, None):
        from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] (partly untyped)
    try:
        return load_file(path)
    except Exception as error:  # of its own class, which is no part of its interface
        raise Failed(f"{path} could not be loaded: {error}") from error


def _state_dict(loaded: Any) -> tuple[State, list[str]]:
    """Find the state dict in what a file holds.

    Raises:
        click.BadParameter: there is none, or several of which none is known to be the model's.
    """
    if isinstance(loaded, nn.Module):
        return loaded.state_dict(), []
    if not isinstance(loaded, Mapping):
        raise click.BadParameter(
            f"must hold a state dict, names with tensors, got {type(loaded).__name__}", param_hint="--weights"
        )
    entries = cast("State", loaded)
    if _is_state_dict(entries):
        return entries, []
    inner = {str(name): entries[name] for name in _in_order(entries) if _holds_weights(entries[name])}
    if not inner:
        got = listed([repr(name) for name in entries]) if entries else "an empty one"
        raise click.BadParameter(f"must hold a state dict, names with tensors, got {got}", param_hint="--weights")
    name, *others = inner
    plain = [other for other in others if not _is_average(other)]
    if name not in _KNOWN and plain:
        names = ", ".join(inner)
        raise click.BadParameter(
            f"must hold the weights of one model, got {names}; save the model's alone", param_hint="--weights"
        )
    state, notes = _state_dict(inner[name])
    if _is_average(name):
        notes = [f"--weights has no other weights than {name!r}, an average over training", *notes]
    return state, notes


def _in_order(entries: State) -> list[str]:
    """The names of entries, the likeliest to be the model's first."""
    return sorted(
        entries, key=lambda name: (_is_average(str(name)), _KNOWN.index(name) if name in _KNOWN else len(_KNOWN))
    )


def _is_average(name: str) -> bool:
    return _AVERAGE.search(name) is not None


def _is_state_dict(value: Any) -> bool:
    """Whether every entry is a tensor, or other state that a module saved."""
    if not isinstance(value, Mapping) or not value:
        return False
    entries = cast("State", value).items()
    kept = [entry for name, entry in entries if not str(name).endswith("_extra_state")]
    return all(isinstance(entry, Tensor) or is_array(entry) for entry in kept)


def _holds_weights(value: Any) -> bool:
    if isinstance(value, nn.Module) or _is_state_dict(value):
        return True
    if not isinstance(value, Mapping):
        return False
    return any(name in _KNOWN and _holds_weights(entry) for name, entry in cast("State", value).items())


def _renamed(state: State, expected: State) -> tuple[State, list[str]]:
    """Give weights the names that the model expects, without prefixes of wrappers.

    Returns:
        The weights, and the names of those that lie beside the model, as a loss in a Lightning module does.
    """
    if state.keys() == expected.keys():
        return state, []
    plain = {_without_wrappers(name): name for name in expected}
    state = {_without_wrappers(str(name)): value for name, value in state.items() if name != _COUNT or name in expected}
    prefix = _prefix(state, plain)
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    # The other way round: the model is a wrapper of what was saved, and of nothing else.
    added = "" if prefix else _prefix(plain, state)
    added = added if plain.keys() == {added + name for name in state} else ""
    renamed = {plain.get(added + name, name): value for name, value in inside.items()}
    return renamed, [name for name in state if not name.startswith(prefix)]


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _prefix(longer: Iterable[str], shorter: Iterable[str]) -> str:
    """The prefix with which most of the shorter names are among the longer ones; empty if none has more of them."""
    names, wanted = set(longer), set(shorter)
    parts = [name.split(".") for name in longer]
    deepest = max(map(len, parts), default=0)
    found = {".".join((*part[:depth], "")) for depth in range(1, deepest) for part in parts if depth < len(part)}

    def rank(prefix: str) -> tuple[int, bool, bool, bool, int, str]:
        count = sum(prefix + name in names for name in wanted)
        return -count, prefix != "", _is_average(prefix), prefix != "model.", len(prefix), prefix

    return min(["", *found], key=rank)


def _differences(state: State, expected: State) -> list[str]:
    """What is missing, unexpected, and of another shape, in words."""
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {_shape(value)} for {_shape(expected[name])} in the model"
        for name, value in state.items()
        if name in expected and _shape(value) != _shape(expected[name])
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{what}: {listed(names)}" for what, names in found if names]


def _shape(value: Any) -> Any:
    """The shape, or None where a lazy module or an object has none."""
    if not isinstance(value, Tensor) or nn.parameter.is_lazy(value):
        return None
    return tuple(value.shape)
