"""Estimates: from samples, one after another, to means and measures of uncertainty, each with its standard error.

Samples are summed in groups, never kept; the standard error of any measure is that of the jackknife over the groups,
which are single samples where memory allows. It is stated so wide that the estimate +- 1.96 standard errors is a 95 %
confidence interval also for few samples: see `_stated`. Stratified samples are treated as if they were independent,
which by Owen's bound states their errors too large rather than too small.

Sources: Gal, Islam, Ghahramani, "Deep Bayesian Active Learning with Image Data", ICML 2017, arXiv:1703.02910 (the
measures); Houlsby, Huszar, Ghahramani, Lengyel, "Bayesian Active Learning for Classification and Preference Learning",
2011, arXiv:1112.5745 (BALD); Quenouille, "Notes on Bias in Estimation", Biometrika 43, 1956, and Tukey, "Bias and
Confidence in Not-Quite Large Samples", Annals of Mathematical Statistics 29, 1958 (the jackknife); Agresti, Coull,
"Approximate Is Better than 'Exact' for Interval Estimation of Binomial Proportions", The American Statistician 52(2),
1998; Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, 26.7.5 (Student's t).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

# Groups are joined where single samples of so many inputs would take more bytes. Not those of the batch at hand: an
# input's errors do not depend on its neighbours.
_INPUTS = 256
_MEMORY = 32 * 2**20
_FEWEST_GROUPS = 10
_GROUPS_AT_ONCE = 8
# Of a standard normal number 95 % lie within.
_Z = 1.96
# Largest half width of an interval on the logarithmic scale. An estimate no larger than its error says little.
_WIDEST = 3.0
# Measures that cannot be negative, and those whose estimate is biased by the concavity of the entropy.
_POSITIVE = frozenset({"variance", "mutual_information"})
_BIASED = frozenset({"entropy", "mutual_information"})

Measures = dict[str, Tensor]
# From the name of what is summed to its mean over the samples.
Means = Callable[[str], Tensor]
Measure = Callable[[Means], Measures]


class Sums:
    """Sums over the samples of one batch, in groups.

    Args:
        samples: how many there will be at most.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._groups = 0
        self._sums: Measures = {}
        self.counts: Tensor

    def add(self, first: int, active: Tensor | None, **values: Tensor) -> None:
        """Add what some samples gave, each (samples, N, ...), the first of them being sample `first`.

        Of what is named "value" the squares are summed as well, as "square".

        Args:
            active: (N,), bool; inputs that are finished already take no more. All if None.
        """
        count = len(next(iter(values.values())))
        if not self._sums:
            self._begin(values)
        places = torch.arange(first, first + count)
        group = (places % self._groups).to(self.counts.device)
        if not self._single:
            values["square"] = values["value"].square()
        for name, value in values.items():
            self._sums[name].index_add_(0, group, value if active is None else value * _like(active, value[0]))
        taken = torch.ones_like(self.counts[:1]) if active is None else active.float().unsqueeze(0)
        self.counts.index_add_(0, group, taken.expand(count, -1))

    def _begin(self, values: Measures) -> None:
        each = sum(value[0, :1].numel() * 4 for value in values.values())
        fitting = max(_FEWEST_GROUPS, _MEMORY // max(each * _INPUTS, 1))
        self._groups = min(self._samples, fitting)
        names = [*values] if self._single else [*values, "square"]
        shapes = {name: values.get(name, values["value"]).shape[1:] for name in names}
        first = next(iter(values.values()))
        self._sums = {
            name: torch.zeros((self._groups, *shape), dtype=torch.float32, device=first.device)
            for name, shape in shapes.items()
        }
        self.counts = torch.zeros((self._groups, first.shape[1]), dtype=torch.float32, device=first.device)

    @property
    def _single(self) -> bool:
        """Whether a group is a sample: then it has its square, which need not be kept."""
        return self._groups == self._samples

    def _of_groups(self, name: str, groups: slice) -> Tensor:
        if name == "square" and self._single:
            return self._sums["value"][groups].square()
        return self._sums[name][groups]

    def _blocks(self) -> Iterator[slice]:
        """A few groups at a time, for the sake of memory."""
        return (slice(begin, begin + _GROUPS_AT_ONCE) for begin in range(0, self._groups, _GROUPS_AT_ONCE))

    def total(self, name: str) -> Tensor:
        return sum((self._of_groups(name, block).sum(0) for block in self._blocks()), torch.zeros(()))

    @property
    def count(self) -> Tensor:
        """Samples of each input, (N,)."""
        return self.counts.sum(0)

    def error_of_mean(self) -> Tensor:
        """The largest standard error of each input's mean so far, (N,)."""
        value, square = self.total("value"), self.total("square")
        count = _like(self.count, value)
        error = (_variance(value / count, square / count) / (count - 1)).sqrt() * _widening(count - 1)
        return error.view(len(error), -1).amax(1)

    def jackknife(self, measure: Measure) -> tuple[Measures, Measures, Measures]:
        """Measures of all samples, their standard errors, and the measures without their bias of the first order.

        Args:
            measure: from means by name, over the samples, to measures by name, each (..., N, ...).
        """
        # In float64, as the bias is T - 1 times a difference of nearly equal numbers.
        totals, count = {name: self.total(name).double() for name in (*self._sums, "square")}, self.count
        whole = measure(lambda name: totals[name] / _like(count, totals[name]))
        first = {name: torch.zeros_like(one) for name, one in whole.items()}
        second = {name: torch.zeros_like(one) for name, one in whole.items()}
        for block in self._blocks():
            for name, left_out in self._without(block, totals, count, measure).items():
                # Off the whole, so that nothing is lost of what is small.
                off = left_out - whole[name]
                first[name] += off.sum(0)
                second[name] += off.square_().sum(0)
        groups = (self.counts > 0).sum(0).double()
        widening = _widening(groups - 1)
        errors: Measures = {}
        unbiased: Measures = {}
        for name, one in whole.items():
            number = _like(groups, one)
            spread = (second[name] - first[name].square() / number).clamp(min=0)
            errors[name] = torch.where(number > 1, ((number - 1) / number * spread).sqrt(), torch.nan)
            unbiased[name] = torch.where(number > 1, one - (number - 1) * first[name] / number, torch.nan)
            errors[name] = _stated(name, one, errors[name] * _like(widening, one), unbiased[name])
        whole, errors, unbiased = (
            {name: one.float() for name, one in measures.items()} for measures in (whole, errors, unbiased)
        )
        return whole, errors, unbiased

    def _without(self, block: slice, totals: Measures, count: Tensor, measure: Measure) -> Measures:
        """Measures with each of these groups left out, (groups, N, ...); of a group without samples, of all."""
        left = count - self.counts[block]

        def mean(name: str) -> Tensor:
            sums = totals[name] - self._of_groups(name, block)
            return sums / left.clamp(min=1).view(*left.shape, *(1,) * (sums.dim() - 2))

        return measure(mean)


class Estimator:
    """What a task makes of the outputs of a batch. One more task is one more of these.

    Args:
        samples: how many there will be at most.
        stratified: whether the samples are stratified.
    """

    def __init__(self, samples: int, stratified: bool = False) -> None:
        self.sums, self._stratified = Sums(samples), stratified
        self._first: Tensor | None = None

    @abstractmethod
    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        """Take the outputs of some samples, (samples, N, ...), and return them as `keep_samples` keeps them."""

    @abstractmethod
    def measures(self) -> tuple[Measures, Measures]:
        """The measures of uncertainty of each input, and the standard error of each."""

    def _off(self, value: Tensor) -> Tensor:
        """Samples, less what the first of all said: sums of squares lose what is common."""
        if self._first is None:
            self._first = value[0].clone()
        return value - self._first

    def _unbiased(self, measures: Measures) -> Measures:
        """The variance of samples, of one sample not a number.

        The mean of stratified samples hardly varies, so that nothing is lost of the variance to it.
        """
        variance = measures["variance"]
        samples = _like(self.sums.count, variance)
        factor = samples / (samples - 1) if not self._stratified else torch.ones_like(samples)
        return {**measures, "variance": variance * torch.where(samples > 1, factor, torch.nan)}


class Classification(Estimator):
    """Class probabilities.

    Args:
        samples, stratified: as for `Estimator`.
        probabilities: from outputs of the model, (samples, N, ...), to (samples, N, ..., classes) and their entropies.
    """

    def __init__(
        self, samples: int, probabilities: Callable[[Tensor], tuple[Tensor, Tensor]], stratified: bool = False
    ) -> None:
        super().__init__(samples, stratified)
        self._probabilities = probabilities
        self._votes: Tensor | None = None

    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        p, each = self._probabilities(outputs)
        self.sums.add(first, active, value=self._off(p), entropy=each)
        if self._votes is None:
            self._votes = torch.zeros_like(p[0])
        votes = p.argmax(-1).movedim(0, -1)
        taken = torch.ones_like(p[0, ..., :1]) if active is None else _like(active, p[0]).to(p.dtype)
        self._votes.scatter_add_(-1, votes, taken.expand(votes.shape))
        return p

    def measures(self) -> tuple[Measures, Measures]:
        assert self._votes is not None
        assert self._first is not None
        found, errors, unbiased = self.sums.jackknife(partial(_of_classes, first=self._first))
        found["mutual_information"] = found["mutual_information"].clamp(min=0)
        found["mutual_information_jackknife"] = unbiased["mutual_information"]
        count = _like(self.sums.count, self._votes[..., 0])
        # What is not a number has no class to vote for.
        ratio = torch.where(found["mean"].isnan().any(-1), torch.nan, 1 - self._votes.amax(-1) / count)
        error = torch.where(count > 1, _error_of_proportion(ratio, count), torch.nan)
        found["variation_ratio"], errors["variation_ratio"] = ratio, error
        return self._unbiased(found), self._unbiased(errors)


class Regression(Estimator):
    """Values, (N, ...)."""

    def add(self, first: int, outputs: Tensor, active: Tensor | None) -> Tensor:
        y = outputs.float()
        self.sums.add(first, active, value=self._off(y))
        return y

    def measures(self) -> tuple[Measures, Measures]:
        found, errors, _ = self.sums.jackknife(_of_values)
        assert self._first is not None
        found["mean"] += self._first
        return self._unbiased(found), self._unbiased(errors)


def entropy(p: Tensor) -> Tensor:
    """Of probabilities along the last dimension, in nats.

    Example:
        >>> entropy(torch.tensor([0.5, 0.5]))
        tensor(0.6931)
    """
    # The ignore: torch declares no types for its special functions.
    return -torch.special.xlogy(p, p).sum(-1)  # pyright: ignore[reportUnknownVariableType]


def _of_classes(mean: Means, first: Tensor) -> Measures:
    off, expected = mean("value"), mean("entropy")
    p = off + first
    # A difference of sums may be a little below 0.
    total = entropy(p.clamp(min=0))
    return {
        "mean": p,
        "variance": _variance(off, mean("square")),
        "entropy": total,
        "expected_entropy": expected,
        "mutual_information": total - expected,
    }


def _of_values(mean: Means) -> Measures:
    return {"mean": mean("value"), "variance": _variance(mean("value"), mean("square"))}


def _stated(name: str, estimate: Tensor, error: Tensor, unbiased: Tensor) -> Tensor:
    """The standard error for which the estimate +- 1.96 errors is a 95 % confidence interval, also for few samples.

    Args:
        name: of the measure.
        error, unbiased: of the jackknife, the error as wide as Student's t asks for.
    """
    if name in _BIASED:
        error = error.hypot(unbiased - estimate)
    if name in _POSITIVE:
        # Where such a measure is estimated too small, so is its error. The logarithm is estimated with the same error
        # wherever it lies, and its interval is the longer one above: with width w, of estimate * (exp(w) - 1).
        width = (_Z * error / estimate).clamp(max=_WIDEST)
        error = torch.where(estimate > 0, error * width.expm1() / width, error).where(error > 0, error)
    return error


def _widening(freedom: Tensor) -> Tensor:
    """The 97.5 % quantile of Student's t, for each number of degrees of freedom, over that of the normal distribution.

    An expansion in 1 / freedom: within 1 % from 2 degrees of freedom on, 11 % too small for 1.
    """
    n, z = freedom.clamp(min=1), _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return 1 + sum((term / z / n**power for power, term in enumerate(terms, 1)), torch.zeros_like(n))


def _error_of_proportion(ratio: Tensor, count: Tensor) -> Tensor:
    """The standard error of an observed proportion, from the 95 % interval of Agresti and Coull.

    The plain formula gives 0 where the event was never seen, or always.
    """
    wider = count + _Z**2
    middle = (ratio * count + _Z**2 / 2) / wider
    return (middle - ratio).abs() / _Z + (middle * (1 - middle) / wider).sqrt()


def _variance(mean: Tensor, square: Tensor) -> Tensor:
    """Divided by the number of samples."""
    return (square - mean.square()).clamp(min=0)


def _like(inputs: Tensor, value: Tensor) -> Tensor:
    """(N,) to broadcast with (N, ...)."""
    return inputs.view(-1, *(1,) * (value.dim() - 1))
