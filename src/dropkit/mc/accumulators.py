"""Accumulators: they sum up the outputs of all samples of a batch, and compute its measures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.jackknife import Sums, Tensors, broadcast
from dropkit.mc.measures import ClassMeasures, MultilabelMeasures, Prediction, ValueMeasures, measures_of
from dropkit.mc.standard_errors import Jackknife

_NEGATIVE_VARIANCE = '"mean_log_variance" where the variance is not positive', '"mean_variance" and negative numbers'


class Accumulator:
    """Sums up the outputs of a batch, in a subclass for each task.

    Args:
        samples: the largest number of samples.
        is_stratified: whether the samples are stratified.
    """

    # The class of predictions that has the measures to compute.
    kind: type[Prediction]

    def __init__(self, samples: int, is_stratified: bool = False) -> None:
        self.sums, self._is_stratified = Sums(samples), is_stratified
        self._measures = measures_of(self.kind)
        self._shift: Tensor | None = None

    @abstractmethod
    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        """Add the outputs of some samples, (samples, N, ...), and return them as `keep_samples` keeps them."""

    def estimates(self) -> tuple[Tensors, Tensors]:
        """Return the measures of each input, and the standard errors of those that have one, by name."""
        count = self.sums.count
        jackknifed = {
            name: measure for name, measure in self._measures.items() if isinstance(measure.standard_error, Jackknife)
        }
        measures, errors, means = self.sums.jackknife(jackknifed, self._shift, self._vote_fractions())
        for name, measure in self._measures.items():
            method = measure.standard_error
            if isinstance(method, Jackknife):
                if method.is_positive:
                    measures[name] = measures[name].clamp(min=0)
                if method.divides_by_one_less:
                    factor = broadcast(self._bessel(count), measures[name])
                    measures[name], errors[name] = measures[name] * factor, errors[name] * factor
                continue
            measures[name] = measure.function(means).float()
            if method is not None:
                counts = broadcast(count, measures[name])
                errors[name] = torch.where(counts > 1, method(measures[name], counts), torch.nan)
        return measures, errors

    def _vote_fractions(self) -> Tensor | None:
        """The fraction of samples in which each class is the likeliest."""
        return None

    def _bessel(self, count: Tensor) -> Tensor:
        """Bessel's correction T / (T - 1) of a variance that was divided by T; not a number for T = 1.

        The mean of stratified samples hardly varies, so their variance needs no correction.
        """
        factor = count / (count - 1) if not self._is_stratified else torch.ones_like(count)
        return torch.where(count > 1, factor, torch.nan)

    def _shifted(self, value: Tensor) -> Tensor:
        """Subtract the first sample of all: sums of squares would lose the digits that the samples share."""
        if self._shift is None:
            self._shift = value[0].clone()
        return value - self._shift

    def _statistics(self, value: Tensor) -> Tensors:
        """Compute the statistics that measures need beyond those of all."""
        statistics = {name: measure.statistic for name, measure in self._measures.items()}
        return {name: statistic(value) for name, statistic in statistics.items() if statistic is not None}


class Classification(Accumulator):
    """Class probabilities.

    Args:
        samples, is_stratified: as for `Accumulator`.
        probabilities: computes probabilities, (samples, N, ..., classes), and their entropies from outputs of the
            model, (samples, N, ...).
    """

    kind = ClassMeasures

    def __init__(
        self, samples: int, probabilities: Callable[[Tensor], tuple[Tensor, Tensor]], is_stratified: bool = False
    ) -> None:
        super().__init__(samples, is_stratified)
        self._probabilities = probabilities
        self._votes: Tensor | None = None

    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        p, entropies = self._probabilities(outputs)
        self.sums.add(first, active, {"value": self._shifted(p), "sample entropy": entropies, **self._statistics(p)})
        if self._votes is None:
            self._votes = torch.zeros_like(p[0])
        votes = p.argmax(-1).movedim(0, -1)
        counts = torch.ones_like(p[0, ..., :1]) if active is None else broadcast(active, p[0]).to(p.dtype)
        self._votes.scatter_add_(-1, votes, counts.expand(votes.shape))
        return p

    def _vote_fractions(self) -> Tensor | None:
        return None if self._votes is None else self._votes / broadcast(self.sums.count, self._votes)


class Multilabel(Accumulator):
    """The probability of each label.

    Args:
        samples, is_stratified: as for `Accumulator`.
        probabilities: computes probabilities and their entropies, both (samples, N, ...), from outputs of the model.
    """

    kind = MultilabelMeasures

    def __init__(
        self, samples: int, probabilities: Callable[[Tensor], tuple[Tensor, Tensor]], is_stratified: bool = False
    ) -> None:
        super().__init__(samples, is_stratified)
        self._probabilities = probabilities

    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        p, entropies = self._probabilities(outputs)
        self.sums.add(first, active, {"value": self._shifted(p), "sample entropy": entropies, **self._statistics(p)})
        return p


class Regression(Accumulator):
    """Values, (N, ...).

    Args:
        samples, is_stratified: as for `Accumulator`.
        variance: from the second part of outputs, (samples, N, 2, ...), to the variance of the noise; None if there is
            but one, (samples, N, ...).
    """

    kind = ValueMeasures

    def __init__(
        self, samples: int, is_stratified: bool = False, variance: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(samples, is_stratified)
        self._variance = variance
        if variance is None:
            self._measures = {name: measure for name, measure in self._measures.items() if not measure.needs}

    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        y = outputs.float()
        noise: Tensors = {}
        if self._variance is not None:
            y, spread = y.unbind(2)
            noise = {"aleatoric_variance": self._variance(spread)}
            check("outputs", not bool((noise["aleatoric_variance"] < 0).any()), *_NEGATIVE_VARIANCE)
        self.sums.add(first, active, {"value": self._shifted(y), **noise, **self._statistics(y)})
        return y

    def estimates(self) -> tuple[Tensors, Tensors]:
        measures, errors = super().estimates()
        if self._variance is not None:
            # The variance between samples is divided by one less than their number.
            measures["total_variance"] = measures["variance"] + measures["aleatoric_variance"]
        return measures, errors
