"""Notes: what a user of `predict` should know about the way in which the result was computed."""

from __future__ import annotations

from collections.abc import Iterable


class Notes(list[str]):
    """Texts in the order in which they came up."""

    _has_batch_note = False

    def masks_depend_on_batches(self, note: str) -> None:
        """Add a note on masks that the batch size changes; only the first, since most batches have the same cause."""
        if not self._has_batch_note:
            self._has_batch_note = True
            self.append(note)

    def unknown_batch_dims(self, sites: Iterable[int], why: str = "") -> None:
        """Add a note on the sites, if any, of which the batch dimension is not known."""
        numbers = ", ".join(map(str, sorted(sites)))
        if numbers:
            why = why or "masks depend on the batches: inputs cannot be told apart at draw"
            self.masks_depend_on_batches(f"{why} {numbers}")


def reason(error: Exception) -> str:
    """The text of an error for a note."""
    return str(error) or type(error).__name__
