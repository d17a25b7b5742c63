"""The batch that an audit runs: the first of a loader, with arrays as tensors."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from dropkit.arrays import as_input, is_array
from dropkit.auditor.snapshot import generators_restored
from dropkit.containers import map_leaves


def first_batch(value: Any, model: nn.Module) -> Any:
    """Return an argument of the model: of a loader its first batch; arrays as tensors, anything else as it is.

    Raises:
        ValueError: the loader yields nothing.
    """
    if isinstance(value, DataLoader):
        loader = cast("DataLoader[Any]", value)
        with _unchanged(loader):
            batch = next(iter(loader), None)
        if batch is None:
            raise ValueError("inputs must be a loader that yields a batch, got an empty one")
        return _with_tensors(batch, model)
    return _with_tensors(value, model)


def _with_tensors(value: Any, model: nn.Module) -> Any:
    """Replace NumPy arrays, also in containers, by tensors."""
    if isinstance(value, Mapping) and type(cast("Any", value)) is not dict:
        named = cast("Mapping[Any, Any]", value)
        return _with_tensors(dict(named), model) if any(map(is_array, named.values())) else named
    return map_leaves(lambda leaf: as_input(leaf, model) if is_array(leaf) else leaf, value)


@contextmanager
def _unchanged(loader: DataLoader[Any]) -> Generator[None]:
    """Restore the generators that shuffle at the end of a `with` block."""
    with ExitStack() as stack:
        stack.enter_context(generators_restored())
        owners: list[Any] = [loader, loader.sampler, loader.batch_sampler]
        for owner in [*owners, getattr(owners[-1], "sampler", None)]:
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                stack.callback(generator.set_state, generator.get_state())
        yield
