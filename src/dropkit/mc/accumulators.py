"""Accumulator: it sums up the outputs of all samples of a batch, and computes its measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from dropkit.mc.jackknife import Sums, Tensors, broadcast
from dropkit.mc.measures import Measure
from dropkit.mc.options import Settings
from dropkit.mc.selection import Selected, select
from dropkit.mc.standard_errors import Jackknife

# Numbers that are worked on at once, so that what is computed from them stays in the processor's cache.
_NUMBERS_AT_ONCE = 2**16
# The same for the measures, which are computed by many float64 operations.
_ESTIMATES_AT_ONCE = 2**15


class Accumulator:
    """Sums up the outputs of a batch.

    Args:
        settings: which measures to compute, and from how many samples at most.
        known: the measures that can be computed, by name.
        values: computes from the outputs of some samples, (samples, N, ...), what is summed: "value", as samples are
            kept, and more.
        check: raises an error if the outputs of some samples are not what `values` takes.

    Attributes:
        samples: if they are kept, (some, N, ...) each, on the CPU.
    """

    def __init__(
        self,
        settings: Settings,
        known: Mapping[str, Measure],
        values: Callable[[Tensor], Tensors],
        check: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._settings, self._known, self._values, self._check = settings, known, values, check
        self.samples: list[Tensor] = []
        self._inputs = 0
        # These are made from the first outputs.
        self.sums: Sums
        self._selected: Selected
        self._votes: Tensor | None = None

    def add(self, first: int, outputs: Tensor, active: Tensor | None = None) -> None:
        """Add the outputs of some samples, (samples, N, ...).

        Args:
            first: the number of the first of them.
            active: (N,), bool: the inputs that still take samples. All if None.
        """
        if first == 0:
            self._begin(outputs)
        kept: list[Tensor] = []
        for rows in _blocks(self._inputs, outputs.numel(), _NUMBERS_AT_ONCE):
            active_rows = None if active is None else active[rows]
            values = self._values(outputs[:, rows])
            if self._selected.jackknifed:
                # Votes and jackknife go over the classes of each input again and again.
                values["value"] = values["value"].contiguous()
            statistics = self._selected.statistics.items()
            more = {name: statistic(values["value"]) for name, statistic in statistics}
            self.sums.add(first, rows, active_rows, {**values, **more})
            if "votes" in self._selected.sums:
                self._vote(rows, active_rows, values["value"])
            if self._settings.keep_samples:
                kept.append(values["value"])
            del values, more  # before the next block, which needs as much memory
        if kept:
            self.samples.append(torch.cat(kept, 1).cpu())

    def _begin(self, outputs: Tensor) -> None:
        if self._check is not None:
            # Here alone: the outputs of all samples come from the same calls.
            self._check(outputs)
        settings, self._inputs = self._settings, outputs.shape[1]
        self._selected = select(settings.measures, settings.errors, self._known, outputs[0, :1].numel())
        has_squares = settings.target_standard_error is not None or "square" in self._selected.sums
        self.sums = Sums(settings.samples, self._inputs, bool(self._selected.jackknifed), has_squares)

    def _vote(self, rows: slice, active: Tensor | None, p: Tensor) -> None:
        """Add up how often each class is the likeliest."""
        if self._votes is None:
            self._votes = p.new_zeros((self._inputs, *p.shape[2:]))
        votes = p.argmax(-1).movedim(0, -1)
        counts = torch.ones_like(p[0, ..., :1]) if active is None else broadcast(active, p[0]).to(p.dtype)
        self._votes[rows].scatter_add_(-1, votes, counts.expand(votes.shape))

    def of_pass(self, outputs: Tensor) -> Tensor:
        """Return what a single pass predicts, as `add` returns it of samples.

        Args:
            outputs: (N, ...).
        """
        whole = torch.empty(0)
        for rows in _blocks(len(outputs), outputs.numel(), _NUMBERS_AT_ONCE):
            value = self._values(outputs[None, rows])["value"][0]
            if rows.start == 0:
                whole = value.new_empty((len(outputs), *value.shape[1:]))
            whole[rows] = value
        return whole

    def estimates(self) -> tuple[Tensors, Tensors]:
        """Return the measures of each input, and the standard errors of those that have one, by name; float32.

        Called once, since they are written over the sums where these have their shape.
        """
        estimates: tuple[Tensors, Tensors] = {}, {}
        spare = self.sums.of_all_samples()
        for rows in _blocks(self._inputs, self.sums.center.numel(), _ESTIMATES_AT_ONCE):
            for target, part in zip(estimates, self._estimates_of(rows), strict=True):
                for name, value in part.items():
                    if name not in target:
                        target[name] = _place((self._inputs, *value.shape[1:]), value, spare)
                    target[name][rows] = value
        return estimates

    def _estimates_of(self, rows: slice) -> tuple[Tensors, Tensors]:
        sums, selected = self.sums.part(rows), self._selected
        count, means = sums.count, sums.means({} if self._votes is None else {"votes": self._votes[rows]})
        jackknifed, their_errors, means.bias_corrected = sums.jackknife(selected.jackknifed, means)
        measures: Tensors = {}
        errors: Tensors = {}
        for name, measure in selected.measures.items():
            method = measure.standard_error
            value = (jackknifed[name] if name in jackknifed else measure.function(means)).float()
            error = their_errors[name].float() if name in their_errors else None
            if isinstance(method, Jackknife):
                if method.is_positive:
                    value = value.clamp(min=0)
                if method.divides_by_one_less:
                    factor = broadcast(self._bessel(count), value)
                    value, error = value * factor, None if error is None else error * factor
            elif method is not None:
                counts = broadcast(count, value)
                error = torch.where(counts > 1, method(value, counts), torch.nan)
            measures[name] = value
            if error is not None and selected.has_errors:
                errors[name] = error
        if "total_variance" in measures:
            # The variance between samples is divided by one less than their number, and rounded like the other part.
            between = means.variance.float()
            between = between * broadcast(self._bessel(count), between)
            measures["total_variance"] = between + means.of("aleatoric_variance").float()
        return measures, errors

    def _bessel(self, count: Tensor) -> Tensor:
        """Bessel's correction T / (T - 1) of a variance that was divided by T; not a number for T = 1.

        The mean of stratified samples hardly varies, so their variance needs no correction.
        """
        factor = count / (count - 1) if not self._settings.is_stratified else torch.ones_like(count)
        return torch.where(count > 1, factor, torch.nan)


def _place(shape: tuple[int, ...], value: Tensor, spare: list[Tensor]) -> Tensor:
    """Return memory for values like this one: one of the spare tensors if it fits."""
    for index, tensor in enumerate(spare):
        if tensor.shape == shape and tensor.dtype == value.dtype and tensor.is_contiguous():
            return spare.pop(index)
    return value.new_empty(shape)


def _blocks(inputs: int, numbers: int, at_once: int) -> Iterator[slice]:
    """The rows of so many inputs, with so many numbers in all, a few at a time."""
    rows = max(1, at_once * inputs // max(numbers, 1))
    return (slice(begin, min(begin + rows, inputs)) for begin in range(0, inputs, rows))
