"""Sums over the samples of a batch, and the jackknife: measures, standard errors and bias corrections from the sums.

Samples are summed in groups; a group is a single sample where memory allows. Stratified samples are
treated as if they were independent, which by Owen's bound makes the stated errors too large rather than too small.

Sources: Quenouille, "Notes on Bias in Estimation", Biometrika 43, 1956, and Tukey, "Bias and Confidence in Not-Quite
Large Samples", Annals of Mathematical Statistics 29, 1958.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy

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


class Sums:
    """Sums over the samples of one batch, in groups for the jackknife, or all in one.

    What is summed under "value" is the distance of the values from a centre, since sums of squares would lose the
    digits that the samples share. In groups the centre is the first sample. Otherwise it is the mean of the samples so
    far (Welford's algorithm for blocks of samples), so that its distance from the mean is 0 and need not be stored.

    Args:
        samples: the largest number of samples.
        inputs: N.
        has_groups: keep groups of samples apart.
        has_squares: sum the squares of "value" as well, as "square".
    """

    def __init__(self, samples: int, inputs: int, has_groups: bool, has_squares: bool) -> None:
        self._samples, self._inputs = samples, inputs
        self._has_groups, self._has_squares = has_groups, has_squares
        self._groups = 1
        self._sums: Tensors = {}
        # Samples of each input by group, (groups, N), and the centre, (N, ...).
        self._counts = self.center = torch.empty(0)

    def add(self, first: int, rows: slice, active: Tensor | None, values: Tensors) -> None:
        """Add the values of some samples, each (samples, rows, ...), the first of them being sample `first`.

        Args:
            rows: of the inputs.
            active: (rows,), bool: those that still take samples. All if None.
        """
        if not self._sums:
            self._begin(values)
        value, center = values["value"], self.center[rows]
        if first == 0:
            center.copy_(value[0])
        values = {**values, "value": value - center}
        if active is not None:
            values = {name: value * broadcast(active, value[0]) for name, value in values.items()}
        increment = torch.ones_like(self._counts[:1, rows]) if active is None else active.float().unsqueeze(0)
        if self._has_groups:
            self._add_to_groups(first, rows, values, increment)
            return
        self._counts[:, rows].add_(increment, alpha=len(value))
        distance = values.pop("value")
        self._add_around_mean(first, self._sums["square"][0, rows] if self._has_squares else None, center, distance)
        for name, value in values.items():
            self._sums[name][0, rows].add_(value[0] if len(value) == 1 else value.sum(0))

    def _add_to_groups(self, first: int, rows: slice, values: Tensors, increment: Tensor) -> None:
        count = len(values["value"])
        group = torch.arange(first, first + count, device=increment.device) % self._groups
        if not self._is_single:
            values = {**values, "square": values["value"].square()}
        for name, value in values.items():
            self._sums[name][:, rows].index_add_(0, group, value)
        self._counts[:, rows].index_add_(0, group, increment.expand(count, -1))

    def _add_around_mean(self, first: int, square: Tensor | None, mean: Tensor, distance: Tensor) -> None:
        """Update the mean, and the sum of squared distances from it, by the distances of some samples from the mean."""
        total = first + len(distance)
        if len(distance) == 1:
            if square is not None:
                square.addcmul_(distance[0], distance[0], value=first / total)
            mean.add_(distance[0], alpha=1 / total)
            return
        moved = distance.sum(0)
        if square is not None:
            square.add_(distance.square_().sum(0)).addcmul_(moved, moved, value=-1 / total)
        mean.add_(moved, alpha=1 / total)

    def _begin(self, values: Tensors) -> None:
        like = {name: value[0] for name, value in values.items()}
        if self._has_groups:
            bytes_of_an_input = sum(value[:1].numel() * 4 for value in like.values())
            fitting = max(_FEWEST_GROUPS, _MEMORY // max(bytes_of_an_input * _INPUTS, 1))
            self._groups = min(self._samples, fitting)
        value, device = like["value"], like["value"].device
        if not self._has_groups:
            del like["value"]
        if (self._has_squares or self._has_groups) and not self._is_single:
            like["square"] = value
        self._sums = {name: _zeros_like(tensor, self._groups, self._inputs) for name, tensor in like.items()}
        self._counts = torch.zeros((self._groups, self._inputs), dtype=torch.float32, device=device)
        self.center: Tensor = _zeros_like(value, 1, self._inputs)[0]

    def part(self, rows: slice) -> Sums:
        """The sums of some inputs."""
        part = copy(self)
        part._sums = {name: value[:, rows] for name, value in self._sums.items()}
        part._counts, part.center = self._counts[:, rows], self.center[rows]
        return part

    def of_all_samples(self) -> list[Tensor]:
        """The sums over all samples at once, (N, ...), that of each input in a row of its own."""
        return [self.center] if self._has_groups else [self.center, *(value[0] for value in self._sums.values())]

    @property
    def _is_single(self) -> bool:
        """Whether each group is a single sample, so that squares can be computed from the values."""
        return self._has_groups and self._groups == self._samples

    def _of_groups(self, name: str, groups: slice) -> Tensor:
        if name == "square" and self._is_single:
            return self._sums["value"][groups].square()
        return self._sums[name][groups]

    def _blocks(self) -> Iterator[slice]:
        """A few groups at a time, to save memory."""
        return (slice(begin, begin + _GROUPS_AT_ONCE) for begin in range(0, self._groups, _GROUPS_AT_ONCE))

    def _total(self, name: str) -> Tensor:
        if name == "value" and not self._has_groups:
            return torch.zeros(())
        return sum((self._of_groups(name, block).sum(0) for block in self._blocks()), torch.zeros(()))

    @property
    def count(self) -> Tensor:
        """How many samples each input has taken, (N,)."""
        return self._counts.sum(0)

    def error_of_mean(self, valid: Tensor | None = None) -> Tensor:
        """The largest standard error of each input's mean so far, (N,).

        Args:
            valid: where the numbers count, (N, ...); everywhere if None.
        """
        square = self._total("square")
        count = broadcast(self.count, square)
        spread = variance(self._total("value") / count, square / count)
        error = (spread / (count - 1)).sqrt() * student_t_ratio(count - 1)
        if valid is not None:
            valid = valid.to(error.device)
            error = error.masked_fill(~(valid if valid.dim() == error.dim() else valid.unsqueeze(-1)), 0.0)
        return error.flatten(1).amax(1) if error.dim() > 1 else error

    def means(self, others: Tensors) -> SampleMeans:
        """The means over all samples, in float64.

        Args:
            others: sums over all samples, beyond those of the groups.
        """
        count, totals = self.count, dict[str, Tensor]()

        def mean_of(name: str) -> Tensor:
            if name not in totals:
                total = (others[name] if name in others else self._total(name)).double()
                totals[name] = total / broadcast(count, total) if total.dim() else total
            return totals[name]

        return SampleMeans(mean_of, self.center)

    def jackknife(self, measures: Mapping[str, Measure], means: SampleMeans) -> tuple[Tensors, Tensors, Tensors]:
        """Compute measures of all samples and their standard errors.

        Args:
            measures: those with a standard error by the jackknife, by name.
            means: over all samples.

        Returns:
            Measures and their standard errors by name, and the measures without their bias of the first order; float64.
        """
        whole = {name: measure.function(means) for name, measure in measures.items()}
        first = {name: torch.zeros_like(value) for name, value in whole.items()}
        second = {name: torch.zeros_like(value) for name, value in whole.items()}
        totals = dict[str, Tensor]()
        for block in self._blocks():
            left_out = self._without(block, totals)
            for name, measure in measures.items():
                # As differences from the whole, so that small ones are not lost to rounding.
                difference = measure.function(left_out) - whole[name]
                first[name] += difference.sum(0)
                second[name] += difference.square_().sum(0)
        groups = (self._counts > 0).sum(0).double()
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
        return whole, errors, unbiased

    def _without(self, block: slice, totals: Tensors) -> SampleMeans:
        """The means with each of these groups left out in turn, (groups, N, ...).

        Args:
            totals: keeps the sums over all groups, in float64, as the bias is T - 1 times a difference of nearly equal
                numbers.
        """
        left = (self.count - self._counts[block]).clamp(min=1)

        def mean_of(name: str) -> Tensor:
            if name not in totals:
                totals[name] = self._total(name).double()
            sums = totals[name] - self._of_groups(name, block)
            return sums / left.view(*left.shape, *(1,) * (sums.dim() - 2))

        return SampleMeans(mean_of, self.center)


def _zeros_like(value: Tensor, groups: int, inputs: int) -> Tensor:
    """Zeros, (groups, inputs, ...), float32, in the memory layout of a value, (rows, ...): writes go in order."""
    order = sorted(range(value.dim()), key=lambda dim: -value.stride(dim))
    size = (groups, inputs, *value.shape[1:])
    layout = (0, *(dim + 1 for dim in order))
    return torch.empty_permuted(size, layout, dtype=torch.float32, device=value.device).zero_()


def broadcast(inputs: Tensor, value: Tensor) -> Tensor:
    """Return (N,) in a shape that broadcasts with (N, ...)."""
    return inputs.view(-1, *(1,) * (value.dim() - 1))
