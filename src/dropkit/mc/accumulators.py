"""Accumulators: they sum up the outputs of all samples of a batch, and compute its measures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.jackknife import Sums, Tensors, broadcast
from dropkit.mc.measures import (
    ClassMeasures,
    Measure,
    MultilabelMeasures,
    Prediction,
    SampleMeans,
    ValueMeasures,
    measures_of,
)
from dropkit.mc.selection import Selected, Selection
from dropkit.mc.standard_errors import Jackknife

# Numbers that are worked on at once, so that what is computed from them stays in the processor's cache.
_NUMBERS_AT_ONCE = 2**16
# The same for the measures, which are computed by many float64 operations.
_ESTIMATES_AT_ONCE = 2**15

_NEGATIVE_VARIANCE = '"mean_log_variance" where the variance is not positive', '"mean_variance" and negative numbers'

# Computes probabilities, (samples, N, ..., classes), and their entropies from outputs of the model.
Probabilities = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an accumulator computes.

    Attributes:
        samples: the largest number of samples.
        selection: which measures to compute.
        is_stratified: whether the samples are stratified.
        has_target: sum the squares whatever the measures, for `Sums.error_of_mean`.
    """

    samples: int
    selection: Selection
    is_stratified: bool = False
    has_target: bool = False


class Accumulator:
    """Sums up the outputs of a batch, in a subclass for each task.

    Args:
        plan: what to compute.
    """

    # The class of predictions that has the measures to compute.
    kind: type[Prediction]

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._inputs = 0
        # Both are made from the first outputs.
        self.sums: Sums
        self._selected: Selected

    def add(self, first: int, outputs: Tensor, active: Tensor | None, keep: bool = False) -> Tensor | None:
        """Add the outputs of some samples, (samples, N, ...), and return them as `keep_samples` does if `keep`.

        Args:
            first: the number of the first of them.
            active: (N,), bool: the inputs that still take samples. All if None.
        """
        if first == 0:
            self._begin(outputs)
        kept: list[Tensor] = []
        for rows in _blocks(self._inputs, outputs.numel(), _NUMBERS_AT_ONCE):
            active_rows = None if active is None else active[rows]
            values = self.values(outputs[:, rows])
            if self._selected.jackknifed:
                # Votes and jackknife go over the classes of each input again and again.
                values["value"] = values["value"].contiguous()
            self.sums.add(first, rows, active_rows, {**values, **self._statistics(values["value"])})
            if "votes" in self._selected.sums:
                self._vote(rows, active_rows, values["value"])
            if keep:
                kept.append(values["value"])
            del values  # before the next block, which needs as much memory
        return torch.cat(kept, 1) if keep else None

    def _begin(self, outputs: Tensor) -> None:
        self._inputs = outputs.shape[1]
        self._selected = self._plan.selection.select(self._known(), outputs[0, :1].numel())
        has_squares = self._plan.has_target or "square" in self._selected.sums
        self.sums = Sums(self._plan.samples, self._inputs, bool(self._selected.jackknifed), has_squares)

    def _known(self) -> Mapping[str, Measure]:
        """The measures that can be computed."""
        return measures_of(self.kind)

    @abstractmethod
    def values(self, outputs: Tensor) -> Tensors:
        """Compute from the outputs of some samples what is summed: "value", as samples are kept, and more."""

    def _vote(self, rows: slice, active: Tensor | None, p: Tensor) -> None:
        """Add up how often each class is the likeliest."""

    def _means(self, sums: Sums, rows: slice) -> SampleMeans:
        return sums.means({})

    def of_pass(self, outputs: Tensor) -> Tensor:
        """Return what a single pass predicts, as `add` returns it of samples.

        Args:
            outputs: (N, ...).
        """
        whole = torch.empty(0)
        for rows in _blocks(len(outputs), outputs.numel(), _NUMBERS_AT_ONCE):
            value = self.values(outputs[None, rows])["value"][0]
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
        count, means = sums.count, self._means(sums, rows)
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
        return measures, errors

    def _bessel(self, count: Tensor) -> Tensor:
        """Bessel's correction T / (T - 1) of a variance that was divided by T; not a number for T = 1.

        The mean of stratified samples hardly varies, so their variance needs no correction.
        """
        factor = count / (count - 1) if not self._plan.is_stratified else torch.ones_like(count)
        return torch.where(count > 1, factor, torch.nan)

    def _statistics(self, value: Tensor) -> Tensors:
        """Compute the statistics that measures need beyond those of all."""
        return {name: statistic(value) for name, statistic in self._selected.statistics.items()}


class Classification(Accumulator):
    """Class probabilities.

    Args:
        plan: as for `Accumulator`.
        probabilities: computes probabilities, (samples, N, ..., classes), and their entropies from outputs of the
            model, (samples, N, ...).
        check: raises an error if the outputs of some samples are not what `probabilities` takes.
    """

    kind: type[Prediction] = ClassMeasures

    def __init__(self, plan: Plan, probabilities: Probabilities, check: Callable[[Tensor], None]) -> None:
        super().__init__(plan)
        self._probabilities, self._check = probabilities, check
        self._votes = torch.empty(0)

    def _begin(self, outputs: Tensor) -> None:
        # Here alone: the outputs of all samples come from the same calls.
        self._check(outputs)
        super()._begin(outputs)

    def values(self, outputs: Tensor) -> Tensors:
        p, entropies = self._probabilities(outputs)
        return {"value": p, "sample entropy": entropies}

    def _vote(self, rows: slice, active: Tensor | None, p: Tensor) -> None:
        if not len(self._votes):
            self._votes = p.new_zeros((self._inputs, *p.shape[2:]))
        votes = p.argmax(-1).movedim(0, -1)
        counts = torch.ones_like(p[0, ..., :1]) if active is None else broadcast(active, p[0]).to(p.dtype)
        self._votes[rows].scatter_add_(-1, votes, counts.expand(votes.shape))

    def _means(self, sums: Sums, rows: slice) -> SampleMeans:
        return sums.means({"votes": self._votes[rows]})


class Multilabel(Accumulator):
    """The probability of each label.

    Args:
        plan: as for `Accumulator`.
        probabilities: computes probabilities and their entropies, both (samples, N, ...), from outputs of the model.
    """

    kind: type[Prediction] = MultilabelMeasures

    def __init__(self, plan: Plan, probabilities: Probabilities) -> None:
        super().__init__(plan)
        self._probabilities = probabilities

    def values(self, outputs: Tensor) -> Tensors:
        p, entropies = self._probabilities(outputs)
        return {"value": p, "sample entropy": entropies}


class Regression(Accumulator):
    """Values, (N, ...).

    Args:
        plan: as for `Accumulator`.
        variance: from the second part of outputs, (samples, N, 2, ...), to the variance of the noise; None if there is
            but one, (samples, N, ...).
    """

    kind: type[Prediction] = ValueMeasures

    def __init__(self, plan: Plan, variance: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(plan)
        self._variance = variance

    def _known(self) -> Mapping[str, Measure]:
        known = super()._known().items()
        return {name: measure for name, measure in known if self._variance is not None or not measure.needs}

    def values(self, outputs: Tensor) -> Tensors:
        y = outputs.float()
        if self._variance is None:
            return {"value": y}
        y, spread = y.unbind(2)
        noise = self._variance(spread)
        check("outputs", not bool((noise < 0).any()), *_NEGATIVE_VARIANCE)
        return {"value": y, "aleatoric_variance": noise}

    def _estimates_of(self, rows: slice) -> tuple[Tensors, Tensors]:
        measures, errors = super()._estimates_of(rows)
        if "total_variance" in measures:
            # The variance between samples is divided by one less than their number.
            sums = self.sums.part(rows)
            means = sums.means({})
            between = means.variance.float()
            between = between * broadcast(self._bessel(sums.count), between)
            # Rounded like the parts, whose sum it is.
            measures["total_variance"] = between + means.of("aleatoric_variance").float()
        return measures, errors


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
