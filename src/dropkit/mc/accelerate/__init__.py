"""The two accelerators of `predict`, behind the interface of `dropkit.mc.accelerator`.

`PrefixCache` computes what comes before the first dropout once per batch. `PrunedNetworks` leaves dropped units out of
matrix products where the inputs of a batch share masks. If one fails for a model it is switched off, with a note.
"""

from __future__ import annotations

from torch import nn

from dropkit.mc.accelerate.prefix_cache import PrefixCache
from dropkit.mc.accelerate.pruned_networks import PrunedNetworks
from dropkit.mc.notes import Notes


class CachedAndPruned(PrefixCache, PrunedNetworks):
    """Both: the prefix cache takes the calls before the first dropout of a pass, and the pruned networks the others.

    Args:
        notes: gets a note on what is switched off.
        replay: use the prefix cache.
        thin: use pruned networks.
    """

    def __init__(self, model: nn.Module, notes: Notes, replay: bool, thin: bool) -> None:
        PrefixCache.__init__(self, model, notes, replay)
        PrunedNetworks.__init__(self, model, notes, thin)
