"""TorchScript: a scripted or traced program holds torch's own dropout, which needs no Python where it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from dropkit.nn.by_torch import drop_by_torch
from dropkit.nn.checks import refuse_random_source
from dropkit.nn.layer import Layer


def drop_traced(
    layer: Layer, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
) -> Tensor:
    """Run torch's dropout under `torch.jit.trace`: dropkit's operator would fix the sizes of the example."""
    refuse_random_source(generator, key, "under torch.jit.trace", "; use torch.export")
    warnings.warn("torch.jit.trace records torch's own dropout: a seed gives torch's masks", stacklevel=1)
    return drop_by_torch(layer, input, p, inplace)


def substitute(module: torch.nn.Module, torch_class: type[torch.nn.Module] | None) -> torch.nn.Module:
    """Return what `torch.jit.script` compiles for a module: torch's of the same settings, hooks and training flag."""
    if torch_class is None:
        raise NotImplementedError(no_counterpart(type(module).__name__))
    warnings.warn(
        "torch.jit.script puts torch.nn's dropout in the place of dropkit's, also in the model that it is given: "
        "script copy.deepcopy(model), or call dropkit.convert(model) afterwards",
        stacklevel=1,
    )
    substitute: torch.nn.Module = object.__new__(torch_class)
    vars(substitute).update(vars(module))
    return substitute


def prepare(layer: Layer) -> None:
    """Let `torch.jit.script` compile torch's function where code calls ours, or say that there is none."""
    name = layer.function.__name__

    def torch_function() -> Callable[..., Any]:
        if layer.counterpart is None:
            raise NotImplementedError(no_counterpart(name))
        warnings.warn(f"torch.jit.script compiles torch's own {name}", stacklevel=1)
        return layer.counterpart.function

    vars(layer.function)["__prepare_scriptable__"] = torch_function


def no_counterpart(name: str) -> str:
    """The refusal of a layer or function of this name."""
    return (
        f"torch.jit.script cannot compile {name}, which torch does not have: use torch.jit.trace or torch.export, or "
        "put torch.nn.Identity in its place in a model that only predicts"
    )
