"""The two accelerators of `predict`, behind the interface of `dropkit.mc.accelerator`.

`PrefixCache` computes what comes before the first dropout once per batch. `PrunedNetworks` leaves dropped units out of
matrix products where the inputs of a batch share masks. If one fails for a model it is switched off, with a note.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dropkit.mc.accelerate.prefix_cache import PrefixCache
from dropkit.mc.accelerate.pruned_networks import PrunedNetworks
from dropkit.mc.accelerator import Accelerator, Site
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.notes import Notes


class CachedAndPruned(Accelerator):
    """Both: the prefix cache takes the calls before the first dropout of a pass, and the pruned networks the others.

    Args:
        notes: gets a note on what is switched off.
        replay: use the prefix cache.
        thin: use pruned networks.
    """

    def __init__(self, model: nn.Module, notes: Notes, replay: bool, thin: bool) -> None:
        self._cache = PrefixCache(model, notes, is_on=replay)
        self._pruned = PrunedNetworks(model, notes, is_on=thin)

    def begin_batch(self, rows: BatchRows) -> None:
        self._pruned.begin_batch(rows)

    def end_batch(self) -> None:
        self._cache.end_batch()

    def begin_pass(self, batch: Batch) -> Batch | None:
        self._pruned.begin_pass(batch)
        return self._cache.begin_pass(batch)

    def intercept(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        output = self._cache.intercept(func, types, args, kwargs)
        return self._pruned.intercept(func, types, args, kwargs) if output is NotImplemented else output

    def before_site(self) -> None:
        self._cache.before_site()

    def drop(self, input: Tensor, site: Site) -> Tensor:
        return self._pruned.drop(input, site)

    def materialize(self, tensor: Tensor) -> Tensor:
        return self._pruned.materialize(tensor)

    def end_pass(self, has_hidden_randomness: bool) -> None:
        self._pruned.end_pass(has_hidden_randomness)
        self._cache.end_pass(has_hidden_randomness)

    @property
    def prefix(self) -> Accelerator:
        return self._cache

    def failed(self, error: Exception) -> bool:
        return self._pruned.failed(error) or self._cache.failed(error)
