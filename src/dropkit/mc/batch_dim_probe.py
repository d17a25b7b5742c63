"""Find the batch dimension at each dropout of a model, by three small passes without dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from dropkit.mc.batch_dim import BatchDim, Sketch, SmallerBatch, fitting_shape
from dropkit.mc.batches import Batch
from dropkit.mc.generators import fork_python, fork_torch
from dropkit.mc.notes import Notes, listed, reason
from dropkit.mc.site_mode import SiteDropout, SiteMode
from dropkit.torch_private import functorch_is_active, no_torch_function

# Inputs in a probe: few other dimensions have this size. More are needed where the first inputs are alike.
_FEW, _MORE = 3, 32

# What a probe records at a site: the tensor that is dropped, the shape of a mask that the model makes itself, or the
# batch dimension if it is known beforehand; None if nothing shows it.
_Seen = Tensor | torch.Size | BatchDim | None
T = TypeVar("T")


class BatchDimFinder:
    """Finds batch dimensions, once for all batches with the same `Batch.kind`.

    Args:
        run: runs the model on a batch.
        notes: gets a note on the sites without one.
    """

    def __init__(self, run: Callable[[Batch], Any], notes: Notes) -> None:
        self._run, self._notes = run, notes
        self._known: dict[tuple[object, ...], Sequence[BatchDim | None]] = {}

    def find(self, batch: Batch) -> Sequence[BatchDim | None]:
        """Return the batch dimension at each site; nothing for a single input, which cannot be rolled."""
        kind = batch.kind()
        if kind in self._known or batch.count < 2:
            return self._known.get(kind, ())
        try:
            fitting = self._probe(batch)
        except Exception as error:
            why = f"the batch dimension cannot be found by rolling the inputs ({reason(error)})"
            self._notes.masks_depend_on_batching(why)
            fitting = []
        batch_dims = [candidates[0] if candidates else None for candidates in fitting]
        self._notes.unknown_batch_dims(site for site, batch_dim in enumerate(batch_dims) if batch_dim is None)
        ambiguous = [site for site, candidates in enumerate(fitting) if len(candidates) > 1]
        if ambiguous:
            self._notes.masks_depend_on_batching(
                f"the inputs are all alike at dropout {listed(ambiguous)}", "may depend"
            )
        else:
            self._known[kind] = batch_dims
        return batch_dims

    def _probe(self, batch: Batch) -> list[list[BatchDim]]:
        try:
            fitting = probe(self._run, batch.take(0, min(batch.count, _FEW)))
            if all(len(candidates) < 2 for candidates in fitting):
                return fitting
            count = min(batch.count, _MORE)
            return probe(self._run, batch.selected([index * batch.count // count for index in range(count)]))
        except Exception:
            # Some models need batches of one size.
            return probe(self._run, batch)


class ProbeMode(SiteMode):
    """Drops nothing, and records every site.

    Args:
        record: from the number of a site and what is seen there to what is kept of it.

    Attributes:
        seen: what is kept of each site.
    """

    def __init__(self, record: Callable[[int, _Seen], Any] = lambda _, seen: seen) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self._record = record

    def _see(self, seen: _Seen) -> None:
        with no_torch_function():
            self.seen.append(self._record(len(self.seen), seen))

    def drop(self, input: Tensor, dropout: SiteDropout) -> Tensor:
        # The tensors of a functorch transform do not outlive it.
        self._see(None if functorch_is_active() else dropout.batch_dim or input.detach())
        if dropout.inplace and not input.is_inference():
            # Dropout would have written over it.
            torch.autograd.graph.increment_version(input)
        return input

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        self._see(shape)
        return torch.full(shape, 0.5, dtype=torch.float64, device=device)

    def run_seeded(self, call: Callable[[], Any]) -> Any:
        self._see(None)
        return call()


def probe(run: Callable[[Batch], Any], batch: Batch) -> list[list[BatchDim]]:
    """Run a batch, the same batch rolled by one, and a smaller batch, and compare the tensors at each site.

    Returns the batch dimensions that fit at each site, the likeliest first: several where the inputs are alike.

    Args:
        run: runs the model.
        batch: at least two inputs.
    """
    few = min(2, batch.count - 1)

    def keep(site: int, seen: _Seen) -> Sketch | list[BatchDim]:
        smaller = SmallerBatch(shapes[site] if site < len(shapes) else None, few)
        if isinstance(seen, Tensor):
            return Sketch.of(seen, batch.count, smaller)
        if isinstance(seen, torch.Size):
            # Rolling the inputs does not roll a mask that is not computed from them.
            return fitting_shape(seen, batch.count, smaller)[:1]
        return [] if seen is None else [seen]

    def fitting(first: Sketch | list[BatchDim], second: Sketch | list[BatchDim]) -> list[BatchDim]:
        if isinstance(first, Sketch):
            return first.fitting(second) if isinstance(second, Sketch) else []
        return first

    with fork_torch(), fork_python():
        try:
            shapes = _sites(run, batch.take(0, few), lambda _, seen: _shape(seen))
        except Exception:
            # Some models need batches of one size.
            shapes = []
        before = _sites(run, batch, keep)
        if shapes and len(shapes) != len(before):
            shapes = []
            before = _sites(run, batch, keep)
        after = _sites(run, batch.selected([*range(-1, batch.count - 1)]), keep)
    return list(map(fitting, before, [*after, *([] for _ in before)]))


def _sites(run: Callable[[Batch], Any], batch: Batch, record: Callable[[int, _Seen], T]) -> list[T]:
    mode, inputs = ProbeMode(record), batch.copied()  # the model may write over its inputs
    with mode:
        run(inputs)
    return mode.seen


def _shape(seen: _Seen) -> torch.Size | None:
    return seen.shape if isinstance(seen, Tensor) else seen if isinstance(seen, torch.Size) else None
