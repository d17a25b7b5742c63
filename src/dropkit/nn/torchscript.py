"""TorchScript: where it records or compiles a dropout, it gets torch's own, which needs no Python where it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from dropkit.nn.layer import Dropping, Layer


def traced(
    layer: Layer, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
) -> Tensor:
    """What `torch.jit.trace` records: an operator of dropkit would hold the sizes of the example for ever.

    Raises:
        NotImplementedError: a key or a generator is given, of which torch knows nothing.
    """
    for name, given in (("generator", generator), ("key", key)):
        if given is not None:
            raise NotImplementedError(f"{name} must be None under torch.jit.trace, got {given}; use torch.export")
    warnings.warn("torch.jit.trace records torch's own dropout: a seed gives torch's masks", stacklevel=1)
    return layer.by_torch(input, p, inplace)


def module(given: Dropping) -> torch.nn.Module:
    """What `torch.jit.script` compiles for a module: torch's of the same settings, hooks and training flag."""
    torchs: Any = next(base for base in type(given).__mro__ if base.__module__ == torch.nn.Dropout.__module__)
    warnings.warn(
        "torch.jit.script puts torch.nn's dropout in the place of dropkit's, also in the model that it is given: "
        "script copy.deepcopy(model), or call dropkit.convert(model) afterwards",
        stacklevel=1,
    )
    twin: torch.nn.Module = object.__new__(torchs)
    vars(twin).update(vars(given))
    return twin


def prepare(layer: Layer) -> None:
    """Let `torch.jit.script` compile torch's function where code calls ours."""

    def torchs() -> Callable[..., Any]:
        warnings.warn(f"torch.jit.script compiles torch's own {layer.function.__name__}", stacklevel=1)
        return layer.torch_function

    vars(layer.function)["__prepare_scriptable__"] = torchs
