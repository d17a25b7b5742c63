"""Sums over the samples of a batch, and the jackknife: measures, standard errors and bias corrections from the sums.

Samples are summed in groups; a group is a single sample where memory allows. Stratified samples are
treated as if they were independent, which by Owen's bound makes the stated errors too large rather than too small.

Sources: Quenouille, "Notes on Bias in Estimation", Biometrika 43, 1956, and Tukey, "Bias and Confidence in Not-Quite
Large Samples", Annals of Mathematical Statistics 29, 1958.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dropkit.mc.measures import Measure, SampleMeans, variance
from dropkit.mc.standard_errors import Jackknife, student_t_ratio

# Bytes for the sums of so many inputs; there are fewer, larger groups where single samples would need more. The number
# of inputs in the batch is not used, since an input's errors must not depend on it.
_INPUTS = 256
_MEMORY = 32 * 2**20
_FEWEST_GROUPS = 10
_GROUPS_AT_ONCE = 8

Tensors = dict[str, Tensor]


class Estimates(NamedTuple):
    """Measures by name and their standard errors, float32, with the means for measures without a jackknife."""

    measures: Tensors
    errors: Tensors
    means: SampleMeans


class Sums:
    """Sums over the samples of one batch, in groups.

    Args:
        samples: the largest number of samples.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._groups = 0
        self._sums: Tensors = {}
        self.counts: Tensor

    def add(self, first: int, active: Tensor | None, values: Tensors) -> None:
        """Add the values of some samples, each (samples, N, ...), the first of them being sample `first`.

        The squares of "value" are summed as well, as "square".

        Args:
            active: (N,), bool: the inputs that still take samples. All if None.
        """
        count = len(next(iter(values.values())))
        if not self._sums:
            self._begin(values)
        numbers = torch.arange(first, first + count)
        group = (numbers % self._groups).to(self.counts.device)
        if not self._is_single:
            values = {**values, "square": values["value"].square()}
        for name, value in values.items():
            self._sums[name].index_add_(0, group, value if active is None else value * broadcast(active, value[0]))
        increment = torch.ones_like(self.counts[:1]) if active is None else active.float().unsqueeze(0)
        self.counts.index_add_(0, group, increment.expand(count, -1))

    def _begin(self, values: Tensors) -> None:
        bytes_of_an_input = sum(value[0, :1].numel() * 4 for value in values.values())
        fitting = max(_FEWEST_GROUPS, _MEMORY // max(bytes_of_an_input * _INPUTS, 1))
        self._groups = min(self._samples, fitting)
        names = [*values] if self._is_single else [*values, "square"]
        shapes = {name: values.get(name, values["value"]).shape[1:] for name in names}
        first = next(iter(values.values()))
        self._sums = {
            name: torch.zeros((self._groups, *shape), dtype=torch.float32, device=first.device)
            for name, shape in shapes.items()
        }
        self.counts = torch.zeros((self._groups, first.shape[1]), dtype=torch.float32, device=first.device)

    @property
    def _is_single(self) -> bool:
        """Whether each group is a single sample, so that squares can be computed from the values."""
        return self._groups == self._samples

    def _of_groups(self, name: str, groups: slice) -> Tensor:
        if name == "square" and self._is_single:
            return self._sums["value"][groups].square()
        return self._sums[name][groups]

    def _blocks(self) -> Iterator[slice]:
        """A few groups at a time, to save memory."""
        return (slice(begin, begin + _GROUPS_AT_ONCE) for begin in range(0, self._groups, _GROUPS_AT_ONCE))

    def _total(self, name: str) -> Tensor:
        return sum((self._of_groups(name, block).sum(0) for block in self._blocks()), torch.zeros(()))

    @property
    def count(self) -> Tensor:
        """How many samples each input has taken, (N,)."""
        return self.counts.sum(0)

    def error_of_mean(self, valid: Tensor | None = None) -> Tensor:
        """The largest standard error of each input's mean so far, (N,).

        Args:
            valid: where the numbers count, (N, ...); everywhere if None.
        """
        value, square = self._total("value"), self._total("square")
        count = broadcast(self.count, value)
        error = (variance(value / count, square / count) / (count - 1)).sqrt() * student_t_ratio(count - 1)
        if valid is not None:
            valid = valid.to(error.device)
            error = error.masked_fill(~(valid if valid.dim() == error.dim() else valid.unsqueeze(-1)), 0.0)
        return error.view(len(error), -1).amax(1)

    def jackknife(
        self, measures: Mapping[str, Measure], shift: Tensor | None = None, votes: Tensor | None = None
    ) -> Estimates:
        """Compute measures of all samples and their standard errors.

        Args:
            measures: those with a standard error by the jackknife, by name.
            shift: what was subtracted from the values.
            votes: for the means that are returned; `shift` and `votes` are as for `SampleMeans`.
        """
        # In float64, as the bias is T - 1 times a difference of nearly equal numbers.
        totals, count = {name: self._total(name).double() for name in (*self._sums, "square")}, self.count

        def mean_of(name: str) -> Tensor:
            return totals[name] / broadcast(count, totals[name])

        means = SampleMeans(mean_of, shift)
        whole = {name: measure.function(means) for name, measure in measures.items()}
        first = {name: torch.zeros_like(value) for name, value in whole.items()}
        second = {name: torch.zeros_like(value) for name, value in whole.items()}
        for block in self._blocks():
            left_out = self._without(block, totals, count, shift)
            for name, measure in measures.items():
                # As differences from the whole, so that small ones are not lost to rounding.
                difference = measure.function(left_out) - whole[name]
                first[name] += difference.sum(0)
                second[name] += difference.square_().sum(0)
        groups = (self.counts > 0).sum(0).double()
        ratio = student_t_ratio(groups - 1)
        errors: Tensors = {}
        unbiased: Tensors = {}
        for name, value in whole.items():
            number = broadcast(groups, value)
            spread = (second[name] - first[name].square() / number).clamp(min=0)
            error = torch.where(number > 1, ((number - 1) / number * spread).sqrt(), torch.nan)
            unbiased[name] = torch.where(number > 1, value - (number - 1) * first[name] / number, torch.nan)
            method = measures[name].standard_error
            assert isinstance(method, Jackknife)
            errors[name] = method.widen(value, error * broadcast(ratio, value), unbiased[name])
        return Estimates(_as_float(whole), _as_float(errors), SampleMeans(mean_of, shift, votes, unbiased))

    def _without(self, block: slice, totals: Tensors, count: Tensor, shift: Tensor | None) -> SampleMeans:
        """The means with each of these groups left out in turn, (groups, N, ...)."""
        left = count - self.counts[block]

        def mean_of(name: str) -> Tensor:
            sums = totals[name] - self._of_groups(name, block)
            return sums / left.clamp(min=1).view(*left.shape, *(1,) * (sums.dim() - 2))

        return SampleMeans(mean_of, shift)


def _as_float(tensors: Tensors) -> Tensors:
    return {name: value.float() for name, value in tensors.items()}


def broadcast(inputs: Tensor, value: Tensor) -> Tensor:
    """Return (N,) in a shape that broadcasts with (N, ...)."""
    return inputs.view(-1, *(1,) * (value.dim() - 1))
