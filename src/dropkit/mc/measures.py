"""The measures of uncertainty: one entry each, which every part of dropkit reads that lists measures.

An entry is a `Measure` in the class of the predictions that have it: `Prediction` (all), `ClassMeasures` or
`ValueMeasures`. `predict` computes it as an attribute (`r.entropy`), and tables, pages, JSON, the documentation, `ood`
and `acquisition` show or use it.

Sources: Gal, Islam, Ghahramani, "Deep Bayesian Active Learning with Image Data", ICML 2017, arXiv:1703.02910 (the
measures); Houlsby, Huszar, Ghahramani, Lengyel, "Bayesian Active Learning for Classification and Preference Learning",
2011, arXiv:1112.5745 (BALD).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal, overload

import torch
from torch import Tensor

from dropkit.arguments import check, did_you_mean
from dropkit.mc.standard_errors import ErrorOfFraction, Jackknife, agresti_coull
from dropkit.report.units import counted

_JACKKNIFE = Jackknife()
_OF_VARIANCE = Jackknife(is_positive=True, divides_by_one_less=True)
_OF_ENTROPY = Jackknife(is_biased=True)

_SPREAD = 'outputs="mean_log_variance", and a model that returns both'
# What torch's losses ignore by default, among labels.
IGNORED = -100

# "y" and "y^2": the unit of the values, and its square.
Unit = Literal["probability", "probability^2", "nats", "fraction", "y", "y^2"]


class SampleMeans:
    """Means over the samples, from which measures are computed; each (..., N, ...), or (..., N, ..., classes).

    Args:
        mean_of: see `of`.
        shift: what was subtracted from all values before they were summed; nothing if None.
        bias_corrected: measures without their bias of the first order, by name. They and "votes" are known for all
            samples together, so that a measure that reads them has no jackknife.

    Attributes:
        of: returns the mean of what was summed under a name, such as the `statistic` of the measure of that name.
    """

    def __init__(
        self,
        mean_of: Callable[[str], Tensor],
        shift: Tensor | None = None,
        bias_corrected: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.of: Callable[[str], Tensor] = mean_of
        self._shift = shift
        self.bias_corrected: Mapping[str, Tensor] = {} if bias_corrected is None else bias_corrected

    @cached_property
    def mean(self) -> Tensor:
        """The mean of the probabilities or values."""
        return self._shifted if self._shift is None else self._shifted + self._shift

    @cached_property
    def variance(self) -> Tensor:
        """The variance of the probabilities or values, divided by the number of samples."""
        return variance(self._shifted, self.of("square"))

    @cached_property
    def entropy(self) -> Tensor:
        """The entropy of the mean."""
        # A difference of sums may be a little below 0.
        return entropy(self.mean.clamp(min=0))

    @cached_property
    def expected_entropy(self) -> Tensor:
        """The mean of the samples' entropies."""
        return self.of("sample entropy")

    @cached_property
    def votes(self) -> Tensor:
        """The fraction of samples in which each class is the likeliest, (N, ..., classes)."""
        # A prediction that is not a number has no class to vote for.
        return self.of("votes").where(~self.mean.isnan().any(-1, keepdim=True), torch.nan)

    @cached_property
    def _shifted(self) -> Tensor:
        return self.of("value")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of uncertainty, or an estimate; as an attribute of a prediction it is the tensor of its name.

    Attributes:
        summary: what it is, as the documentation shows it.
        unit: of its numbers.
        function: computes the measure, (..., N, ...), from means over the samples.
        higher_is_uncertain: False where lower numbers mean more uncertainty; None for an estimate of the target
            itself, by which nothing is ordered.
        standard_error: how the error is computed; None if it is unknown, and tables leave the measure out.
        statistic: computes, from the probabilities or values of some samples, (samples, N, ...), what `function` reads
            as `means.of(name)`; None if it reads nothing but the properties of `SampleMeans`.
        compares_samples: whether it says how much the samples differ, of which a single one tells nothing.
        needs: the arguments of `predict` without which it is not computed; none if empty.
        name: the name of the attribute.
    """

    summary: str
    unit: Unit
    function: Callable[[SampleMeans], Tensor]
    higher_is_uncertain: bool | None = True
    standard_error: Jackknife | ErrorOfFraction | None = _JACKKNIFE
    statistic: Callable[[Tensor], Tensor] | None = None
    compares_samples: bool = False
    needs: str = ""
    name: str = field(default="", init=False)

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "name", name)

    @property
    def label(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    def computed_by(
        self,
        function: Callable[[SampleMeans], Tensor],
        summary: str = "",
        statistic: Callable[[Tensor], Tensor] | None = None,
    ) -> Measure:
        """Return the same measure of another kind of predictions."""
        return replace(self, function=function, summary=summary or self.summary, statistic=statistic)

    @overload
    def __get__(self, prediction: None, owner: type) -> Measure: ...
    @overload
    def __get__(self, prediction: Prediction, owner: type) -> Tensor: ...
    def __get__(self, prediction: Prediction | None, owner: type) -> Tensor | Measure:
        if prediction is None:
            return self
        if self.name not in prediction.measures:
            needs = f"it needs {self.needs}" if self.needs else f'give predict measures="all" or [..., "{self.name}"]'
            raise AttributeError(f"{self.name} was not computed: {needs}")
        return prediction.measures[self.name]


class StandardErrors(dict[str, Tensor]):
    """Standard errors by the name of the measure, with an error that says how to get those that are missing."""

    def __missing__(self, name: str) -> Tensor:
        raise KeyError(f'the standard error of "{name}" was not computed: give predict errors=True')


# eq=False: tensors do not compare to one bool.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prediction:
    """The prediction for N inputs, with its uncertainty; float32 on the CPU.

    Attributes:
        mean: of the samples: (N, ..., classes) probabilities, or (N, ...) values.
        variance: between the samples, of the same shape, divided by one less than their number; by their number, where
            they are stratified.
        measures: every measure that was computed by its name; each is an attribute, too.
        standard_error: of the measures that have one, by name and in the measure's shape: the Monte Carlo error, which
            shrinks with more samples. Not a number where there were too few samples. Empty if not computed.
        sample_counts: (N,), int64, how many samples each input took.
        samples: (T, N, ...), the output of each pass; None unless `keep_samples`.
        notes: texts on how the result was computed, such as what `predict` could not do, and why.
        plain: the prediction of a single pass in evaluation mode, without dropout, in the shape of `mean`; None unless
            `plain`, and where there is no such pass, as of an ensemble.
    """

    # The name of the measure by which tables order inputs.
    ordered_by: ClassVar[str] = "variance"

    measures: Mapping[str, Tensor]
    standard_error: Mapping[str, Tensor]
    sample_counts: Tensor
    samples: Tensor | None
    notes: tuple[str, ...]
    plain: Tensor | None = None
    valid: Tensor | None = None

    mean: ClassVar[Measure] = Measure("mean of the samples", "y", lambda means: means.mean, higher_is_uncertain=None)
    variance: ClassVar[Measure] = Measure(
        "variance between the samples",
        "y^2",
        lambda means: means.variance,
        standard_error=_OF_VARIANCE,
        compares_samples=True,
    )

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        samples = "1 sample" if self.num_samples == 1 else f"{count_of_samples(self)} samples"
        return f"{type(self).__name__}({counted(len(self), 'input')}, mean {tuple(self.mean.shape)}, {samples})"

    @property
    def num_samples(self) -> int:
        """How many samples the inputs took, T: the most, where a target standard error let some take fewer."""
        return int(self.sample_counts.max())

    @property
    def std(self) -> Tensor:
        """The standard deviation between the samples: the root of `variance`."""
        return self.variance.sqrt()

    @property
    def label_shape(self) -> tuple[int, ...]:
        """(N, ...), the shape of a measure that has one number for each label or value."""
        return tuple(self.mean.shape)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Probabilities(Prediction):
    """What class probabilities and the probabilities of labels have in common."""

    ordered_by: ClassVar[str] = "mutual_information"

    mean: ClassVar[Measure] = replace(Prediction.mean, summary="mean of the samples' probabilities", unit="probability")
    variance: ClassVar[Measure] = replace(
        Prediction.variance, summary="variance between the samples' probabilities", unit="probability^2"
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassMeasures(_Probabilities):
    """Class probabilities and their measures of uncertainty, each (N, ...)."""

    entropy: ClassVar[Measure] = Measure(
        "entropy of the mean: total uncertainty", "nats", lambda means: means.entropy, standard_error=_OF_ENTROPY
    )
    expected_entropy: ClassVar[Measure] = Measure(
        "mean of the samples' entropies: aleatoric uncertainty, which stays when the network is known",
        "nats",
        lambda means: means.expected_entropy,
        compares_samples=True,
    )
    mutual_information: ClassVar[Measure] = Measure(
        "entropy less expected entropy (BALD): epistemic uncertainty, how much the samples disagree. Too small by "
        "about (classes - 1) / (2 T), since the mean is taken from the same T samples",
        "nats",
        lambda means: means.entropy - means.expected_entropy,
        standard_error=Jackknife(is_biased=True, is_positive=True),
        compares_samples=True,
    )
    mutual_information_jackknife: ClassVar[Measure] = Measure(
        "mutual information without that bias to first order; noisier, may be negative",
        "nats",
        lambda means: means.bias_corrected["mutual_information"],
        standard_error=None,
        compares_samples=True,
    )
    variation_ratio: ClassVar[Measure] = Measure(
        "fraction of samples that vote for another class than most do",
        "fraction",
        lambda means: 1 - means.votes.amax(-1),
        standard_error=agresti_coull,
        compares_samples=True,
    )
    confidence: ClassVar[Measure] = Measure(
        "probability of the likeliest class",
        "probability",
        lambda means: means.mean.amax(-1),
        higher_is_uncertain=False,
        standard_error=None,
    )

    @property
    def label(self) -> Tensor:
        """The likeliest class of each input, (N, ...), int64; -100 at padding."""
        return _at_padding(self.mean.argmax(-1), self)

    @property
    def label_shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape[:-1])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValueMeasures(Prediction):
    """Values and their measures of uncertainty, each (N, ...)."""

    aleatoric_variance: ClassVar[Measure] = Measure(
        "mean of the variances that the samples predict, where the model returns them: the noise of the observations",
        "y^2",
        lambda means: means.of("aleatoric_variance"),
        needs=_SPREAD,
    )
    total_variance: ClassVar[Measure] = Measure(
        "variance between the samples (epistemic) and aleatoric variance together",
        "y^2",
        lambda means: means.variance + means.of("aleatoric_variance"),
        standard_error=Jackknife(is_positive=True),
        compares_samples=True,
        needs=_SPREAD,
    )

    @property
    def epistemic_variance(self) -> Tensor:
        """The variance between the samples: `variance`."""
        return self.variance


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MultilabelMeasures(_Probabilities):
    """The probability of each label, of which several may be true, and its measures of uncertainty, each (N, ...)."""

    entropy: ClassVar[Measure] = ClassMeasures.entropy.computed_by(lambda means: binary_entropy(means.mean))
    expected_entropy: ClassVar[Measure] = ClassMeasures.expected_entropy
    mutual_information: ClassVar[Measure] = ClassMeasures.mutual_information.computed_by(
        lambda means: binary_entropy(means.mean) - means.expected_entropy,
        "entropy less expected entropy (BALD): epistemic uncertainty. Too small by about 1 / (2 T)",
    )
    mutual_information_jackknife: ClassVar[Measure] = ClassMeasures.mutual_information_jackknife
    variation_ratio: ClassVar[Measure] = ClassMeasures.variation_ratio.computed_by(
        # A prediction that is not a number decides nothing.
        lambda means: torch.minimum(means.of("variation_ratio"), 1 - means.of("variation_ratio")) + 0 * means.mean,
        "fraction of samples that decide otherwise than most do",
        lambda p: (p > 0.5).to(p.dtype),
    )
    confidence: ClassVar[Measure] = ClassMeasures.confidence.computed_by(
        lambda means: torch.maximum(means.mean, 1 - means.mean),
        "probability that the label is what is likelier, true or not",
    )

    @property
    def label(self) -> Tensor:
        """Whether each label is likelier true than not, 1 or 0, (N, ...), int64; -100 at padding."""
        return _at_padding((self.mean > 0.5).long(), self)


def _at_padding(label: Tensor, prediction: Prediction) -> Tensor:
    """Labels with torch's number for those to ignore where there is padding."""
    return label if prediction.valid is None else label.where(prediction.valid, IGNORED)


def mean_of_labels(prediction: Prediction, measure: Tensor) -> Tensor:
    """Return the mean of a measure over the labels or values of each input, (N,), without padding."""
    rows = measure.reshape(len(measure), -1)
    return rows.mean(1) if prediction.valid is None else rows.nanmean(1)


def measures_of(kind: type[Prediction]) -> dict[str, Measure]:
    """Return every measure that predictions of a kind have, by name, in the order of definition."""
    return {
        name: value
        for owner in reversed(kind.__mro__)
        for name, value in vars(owner).items()
        if isinstance(value, Measure)
    }


def known_measures(prediction: Prediction) -> list[Measure]:
    """Return the measures that were computed, and that the samples can tell."""
    is_single = least_samples(prediction) < 2
    computed = (m for name, m in measures_of(type(prediction)).items() if name in prediction.measures)
    return [measure for measure in computed if not (is_single and measure.compares_samples)]


def measures_with_error(prediction: Prediction) -> list[Measure]:
    """Return the measures that records of each input show: those with a standard error."""
    return [measure for measure in known_measures(prediction) if measure.standard_error is not None]


def measures_in_tables(prediction: Prediction) -> list[Measure]:
    """Return the measures that tables show: one number for each label or value, without corrected and repeated ones."""
    shown = [m for m in known_measures(prediction) if m.standard_error is not None or m.name == "confidence"]
    return [measure for measure in shown if _is_for_each_label(measure, prediction)]


def uncertainty(prediction: Prediction, by: str) -> Tensor:
    """Return a measure, (N, ...), signed so that higher is more uncertain.

    Raises:
        ValueError: `by` is not the name of a measure of uncertainty with one number for each label or value.
    """
    measures = {
        name: measure
        for name, measure in measures_of(type(prediction)).items()
        if measure.higher_is_uncertain is not None
        and (not measure.needs or name in prediction.measures)
        and (name not in prediction.measures or _is_for_each_label(measure, prediction))
    }
    *others, last = (f'"{name}"' for name in measures)
    hint = "" if by in measures else did_you_mean(str(by), measures)
    check("by", by in measures, f"{', '.join(others)} or {last}" if others else last, f"{by}{hint}")
    tensor: Tensor = getattr(prediction, by)
    return tensor if measures[by].higher_is_uncertain else -tensor


def uncertainty_of_inputs(prediction: Prediction, by: str) -> Tensor:
    """Return a measure, signed so that higher is more uncertain, with one number for each input, (N,).

    Where an input has many labels it is their mean, without padding. Entropies and informations of labels of which
    several may be true are summed, which is exact for the expected entropy, since a network predicts each label for
    itself, and an upper bound for the others.
    """
    measure = uncertainty(prediction, by)
    if measure.dim() == 1:
        return measure
    if isinstance(prediction, MultilabelMeasures) and measures_of(type(prediction))[by].unit == "nats":
        return measure.reshape(len(measure), -1).nansum(1)
    return mean_of_labels(prediction, measure)


def must_hold_classes(prediction: Prediction, argument: str = "prediction") -> ClassMeasures:
    """Return the prediction, or raise a TypeError if it is not one of classes."""
    if not isinstance(prediction, ClassMeasures):
        hint = f"; {argument}.as_classes() is one" if isinstance(prediction, MultilabelMeasures) else ""
        raise TypeError(f"{argument} must be a ClassPrediction, got {type(prediction).__name__}{hint}")
    return prediction


def must_hold_labels(prediction: Prediction, argument: str = "prediction") -> ClassMeasures | MultilabelMeasures:
    """Return the prediction, or raise a TypeError if it is neither one of classes nor one of labels."""
    return prediction if isinstance(prediction, MultilabelMeasures) else must_hold_classes(prediction, argument)


def count_of_samples(prediction: Prediction) -> str:
    """Return how many samples inputs took, as text: one number, or the range."""
    least, most = least_samples(prediction), prediction.num_samples
    return str(most) if least == most else f"{least} to {most}"


def least_samples(prediction: Prediction) -> int:
    """Return how many samples the input took that took the fewest."""
    return int(prediction.sample_counts.min())


def entropy(p: Tensor) -> Tensor:
    """Return the entropy of probabilities along the last dimension, in nats.

    Example:
        >>> entropy(torch.tensor([0.5, 0.5]))
        tensor(0.6931)
    """
    # The ignore: torch declares no types for its special functions.
    return -torch.special.xlogy(p, p).sum(-1)  # pyright: ignore[reportUnknownVariableType]


def binary_entropy(p: Tensor) -> Tensor:
    """Return the entropy of labels that are true with probability `p`, in nats.

    Example:
        >>> binary_entropy(torch.tensor([0.5, 0.2]))
        tensor([0.6931, 0.5004])
    """
    # A difference of sums may be a little outside of [0, 1].
    p = p.clamp(0, 1)
    return entropy(torch.stack([p, 1 - p], -1))


def variance(mean: Tensor, square: Tensor) -> Tensor:
    """Return the variance, divided by the number of samples, from the means of the values and of their squares."""
    return (square - mean.square()).clamp(min=0)


def _is_for_each_label(measure: Measure, prediction: Prediction) -> bool:
    return tuple(prediction.measures[measure.name].shape) == prediction.label_shape
