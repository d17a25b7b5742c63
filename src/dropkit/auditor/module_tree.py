"""The modules of a model, also those that it holds where torch does not look: in plain lists, dicts and sets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from torch import nn

from dropkit.torch_private import DROPOUTS, REGISTERED

# A layer that drops and is none of torch's: by the last word of its name.
_DROPPING = re.compile(
    r"(drop_?out|drop_?path|stochastic_?depth|drop_?block|drop_?connect|drop_?key)\w{0,3}$", re.IGNORECASE
)
# Of a longer container the rest is not looked at.
LONG = 1_000
# What such layers call their rate.
_RATES = ("p", "drop_prob", "dropout", "dropout_p", "drop_rate", "rate", "prob", "drop")


@dataclass(frozen=True, slots=True)
class Held:
    """A module, what it is called in the tree, whether the tree knows it, and its rate if it drops."""

    module: nn.Module
    name: str
    registered: bool
    rate: float | bool | None


def tree(model: nn.Module) -> dict[int, Held]:
    """Every module in reach of `model`, by its id; a shared one once, by its first name."""
    found: dict[int, Held] = {}
    named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    for name, module in named:
        # What torch.compile wraps keeps its name.
        found[id(module)] = Held(
            module, name.replace("_orig_mod.", "").removesuffix("._orig_mod"), True, rate_of(module)
        )
    queue = list(found.values())
    while queue:
        holder = queue.pop(0)
        for key, value in list(vars(holder.module).items()):
            if key in REGISTERED:
                continue
            prefix = f"{holder.name}.{key}" if holder.name else key
            for name, module in _within(value, prefix, 0):
                for inner, one in cast("Iterator[tuple[str, nn.Module]]", module.named_modules()):
                    if id(one) not in found:
                        found[id(one)] = Held(one, f"{name}.{inner}" if inner else name, False, rate_of(one))
                        queue.append(found[id(one)])
    return found


def drops(module: nn.Module) -> bool:
    """Whether a module does nothing but drop: torch's layers, and others by their name if they hold no module."""
    if isinstance(module, DROPOUTS):
        return True
    return _DROPPING.search(type(module).__name__) is not None and next(module.children(), None) is None


def holds_rate(module: nn.Module) -> bool:
    """Whether a module drops inside: attention, and recurrent networks."""
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase))


def rate_of(module: nn.Module) -> float | bool | None:
    """The rate that a dropping module was given; None if it does not say."""
    if not drops(module) and not holds_rate(module):
        return None
    names = ("dropout",) if holds_rate(module) else _RATES
    for name in names:
        value: Any = vars(module).get(name)
        if isinstance(value, (int, float)):
            return value
    return None


def _within(value: Any, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a plain container, or the one that a plain attribute holds."""
    if isinstance(value, nn.Module):
        yield name, value
    elif depth < 3 and isinstance(value, dict):
        for key, one in islice(cast("dict[Any, Any]", value).items(), LONG):
            yield from _within(one, f"{name}[{key!r}]", depth + 1)
    elif depth < 3 and isinstance(value, (list, tuple, set, frozenset)):
        for index, one in enumerate(islice(cast("list[Any]", value), LONG)):
            yield from _within(one, f"{name}[{index}]", depth + 1)
