"""Accelerator: the interface between the plain passes of `predict` and whatever saves work in them.

The passes of `passes.py` need nothing but this file. `accelerate` holds the implementations.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.masks import MaskSampler, SampledMask
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.site_mode import SiteDropout


class Accelerator:
    """Saves work in the passes over a batch without changing their results. This base class saves nothing."""

    def begin_batch(self, rows: BatchRows) -> None:
        """Forget what was learned from the previous batch."""

    def end_batch(self) -> None:
        """Free what was kept for the passes over a batch."""

    def begin_pass(self, batch: Batch, is_plain: bool = False) -> Batch | None:
        """Begin a pass, and return the arguments for the model, or None for a fresh copy of the batch.

        Args:
            is_plain: it is the pass without dropout.
        """
        return None

    def intercept(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        """Compute a call that is not random, or return NotImplemented to run it as usual."""
        return NotImplemented

    def before_site(self) -> None:
        """Prepare for random numbers, which are drawn next."""

    def drop(self, input: Tensor, dropout: SiteDropout, mask: SampledMask, sampler: MaskSampler) -> Tensor:
        """Apply the mask of a site, or return NotImplemented to apply it as usual."""
        return NotImplemented

    def materialize(self, tensor: Tensor) -> Tensor:
        """Return an ordinary tensor with the values of `tensor`."""
        return tensor

    def end_pass(self, has_hidden_randomness: bool) -> None:
        """End a pass, or raise an error if its output must not be used.

        Args:
            has_hidden_randomness: random numbers were drawn where the mode does not see it.
        """

    def failed(self, error: Exception) -> bool:
        """Switch off what may have caused the error of a pass, and return whether to run the pass again."""
        return False
