"""The modules of a model, including those in plain lists, dicts and sets, which torch does not register."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from torch import nn

from dropkit.catalog import DROPOUT_CLASS_NAME, RATE_ATTRIBUTES
from dropkit.dropout_functions import RATE_HOLDERS
from dropkit.torch_private import DROPOUTS, REGISTERED

# Longer containers are searched up to here.
MAX_ITEMS = 1_000
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """A module in reach of the model.

    Attributes:
        name: path from the model.
        is_registered: whether `model.named_modules()` reaches it.
        rate: its dropout rate; None if it does not drop or does not say.
    """

    module: nn.Module
    name: str
    is_registered: bool
    rate: float | bool | None


def module_entries(model: nn.Module) -> dict[int, ModuleEntry]:
    """Return every module in reach of `model` by its id; a shared module has its first name."""
    entries: dict[int, ModuleEntry] = {}
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        # What torch.compile wraps keeps its name.
        name = name.replace("_orig_mod.", "").removesuffix("._orig_mod")
        entries[id(module)] = ModuleEntry(module, name, True, rate_of(module))
    queue = list(entries.values())
    while queue:
        owner = queue.pop(0)
        for key, value in list(vars(owner.module).items()):
            if key in REGISTERED:
                continue
            path = f"{owner.name}.{key}" if owner.name else key
            for name, module in _modules_in(value, path, 0):
                for inner, submodule in cast("Iterator[tuple[str, nn.Module]]", module.named_modules()):
                    if id(submodule) not in entries:
                        full_name = f"{name}.{inner}" if inner else name
                        entry = ModuleEntry(submodule, full_name, False, rate_of(submodule))
                        entries[id(submodule)] = entry
                        queue.append(entry)
    return entries


def is_dropout(module: nn.Module) -> bool:
    """Whether a module only drops: torch's dropout layers, and by name other modules without submodules."""
    if isinstance(module, DROPOUTS):
        return True
    return DROPOUT_CLASS_NAME.search(type(module).__name__) is not None and next(module.children(), None) is None


def has_inner_dropout(module: nn.Module) -> bool:
    """Whether a module of torch's drops inside its own computation: attention and recurrent networks."""
    return isinstance(module, RATE_HOLDERS)


def rate_of(module: nn.Module) -> float | bool | None:
    """Return the dropout rate of a module that drops; None if it does not drop or does not say."""
    if has_inner_dropout(module):
        names = ("dropout",)
    elif is_dropout(module):
        names = RATE_ATTRIBUTES
    else:
        return None
    values = (vars(module).get(name) for name in names)
    return next((value for value in values if isinstance(value, (int, float))), None)


def _modules_in(value: Any, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules in a plain attribute or container."""
    if isinstance(value, nn.Module):
        yield name, value
    elif depth < _MAX_DEPTH and isinstance(value, dict):
        for key, item in islice(cast("dict[Any, Any]", value).items(), MAX_ITEMS):
            yield from _modules_in(item, f"{name}[{key!r}]", depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(islice(cast("list[Any]", value), MAX_ITEMS)):
            yield from _modules_in(item, f"{name}[{index}]", depth + 1)
