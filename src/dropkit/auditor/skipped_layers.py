"""Find layers that a training step skipped at random, as LayerDrop and stochastic depth by hand do.

Python decides which layers run, so no mask is applied to a tensor: that a layer ran in evaluation mode and not in
training mode shows it, together with random numbers that Python read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from dropkit.auditor.module_tree import ModuleEntry
from dropkit.catalog import LAYER_DROP, RATE_ATTRIBUTES
from dropkit.trace import Form, Phase, Place, Site, Visit

_RATE = re.compile(r"layer_?drop", re.IGNORECASE)


def skipped_layers(
    entries: Mapping[int, ModuleEntry],
    ran: Mapping[Phase, set[int]],
    choices: Mapping[str, Place | None],
    has_other_choices: bool,
) -> Iterator[Site]:
    """Yield a site for each list of layers, or module with layers, of which some are skipped at random.

    Args:
        entries: the model's modules, by id.
        ran: ids of the modules that ran, by phase.
        choices: by name of a module the line that drew a random number which Python read.
        has_other_choices: whether other generators, such as Python's, were used: any module may have asked them.
    """
    for owner in entries.values():
        if id(owner.module) not in ran[Phase.TRAIN] or not (owner.name in choices or has_other_choices):
            continue
        place = choices.get(owner.name)
        alone: list[nn.Module] = []
        for child in owner.module.children():
            if not isinstance(child, nn.ModuleList):
                alone.append(child)
            else:
                layers, rate = list(child.children()), _rate(child, owner.module)
                yield from _site(entries[id(child)].name, layers, ran, rate, place)
        if not any(id(child) in ran[Phase.TRAIN] for child in alone):
            yield from _site(owner.name, alone, ran, None, place, count=1)


def _site(
    name: str,
    layers: list[nn.Module],
    ran: Mapping[Phase, set[int]],
    rate: float | None,
    place: Place | None,
    count: int | None = None,
) -> Iterator[Site]:
    """Yield a site if some of these layers were skipped, or have a rate. `count` is their number if all go together."""
    layers = [layer for layer in layers if id(layer) in ran[Phase.TRAIN] | ran[Phase.EVAL]]
    skipped = sum(id(layer) not in ran[Phase.TRAIN] for layer in layers)
    if not layers or not (skipped or rate):
        return
    shape = (count or len(layers),)
    visit = Visit(Phase.TRAIN, place, shape, rate, is_active=True, is_used=True, covers="layer")
    visit.mask_shape, visit.mask_elements, visit.dropped = shape, shape[0], min(skipped, shape[0])
    yield Site(name, LAYER_DROP, Form.MASK, place, p=rate, visits=[visit])


def _rate(layers: nn.ModuleList, owner: nn.Module) -> float | None:
    """The rate of a list of layers: its own, or what its owner or the owner's configuration calls LayerDrop."""
    own = vars(layers)
    named = [own.get(name) for name in RATE_ATTRIBUTES if _RATE.search(type(layers).__name__)]
    config = getattr(owner, "config", None)
    for values in (own, vars(owner), cast("dict[str, Any]", getattr(config, "__dict__", {}))):
        named += [value for name, value in values.items() if _RATE.search(name)]
    return next((value for value in named if isinstance(value, float) and 0 < value <= 1), None)
