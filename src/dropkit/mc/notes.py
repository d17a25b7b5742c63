"""Notes: texts for a user of `predict` on how the result was computed."""

from __future__ import annotations

from collections.abc import Iterable


class Notes(list[str]):
    """The notes of one call of `predict`, in order."""

    _has_batching_note = False

    def masks_depend_on_batching(self, why: str, depend: str = "depend") -> None:
        """Note that the batch size changes masks, once: most batches have the same cause."""
        if not self._has_batching_note:
            self._has_batching_note = True
            self.append(f"masks {depend} on how inputs are batched: {why}")

    def unknown_batch_dims(self, sites: Iterable[int]) -> None:
        """Note the sites, if any, at which the batch dimension is unknown."""
        numbers = listed(sites)
        if numbers:
            self.masks_depend_on_batching(f"the batch dimension is unknown at dropout {numbers}")


def listed(sites: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(sites)))


def reason(error: Exception) -> str:
    """The text of an error for a note."""
    return str(error) or type(error).__name__
