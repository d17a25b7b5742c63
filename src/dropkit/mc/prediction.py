"""Predictions: what `predict` returns for classes and for values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from dropkit.mc.metrics import ClassQuality, Measure, Ood, ValueQuality

# eq=False: tensors do not compare to one bool.


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What was predicted for N inputs, and how surely; float32 on the CPU.

    Attributes:
        mean: of the samples: (N, ..., classes) probabilities, or (N, ...) values.
        variance: between the samples, of the same shape, divided by one less than their number; by their number, where
            they balance one another.
        standard_error: of each measure, by its name and in its shape: the error that comes of so few samples. Not a
            number where there were too few to tell.
        samples: (N,), int64, how many each input took.
        draws: (T, N, ...), what each pass gave; None unless `keep_samples`.
        notes: what `predict` could not do as asked, and why.
    """

    mean: Tensor
    variance: Tensor
    standard_error: Mapping[str, Tensor]
    samples: Tensor
    draws: Tensor | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} inputs, mean {tuple(self.mean.shape)}, {said_samples(self)} samples)"


def said_samples(found: Prediction) -> str:
    """How many samples inputs took: one number, or the range."""
    least, most = int(found.samples.min()), int(found.samples.max())
    return str(most) if least == most else f"{least} to {most}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassPrediction(Prediction):
    """Class probabilities and four measures of uncertainty, each (N, ...); entropies in nats.

    Attributes:
        entropy: of the mean: how unsure the prediction is, for whatever reason.
        expected_entropy: the mean of the samples' entropies: what remains when the network is known (aleatoric).
        mutual_information: their difference, BALD: how much the samples disagree (epistemic). Too small by about
            (classes - 1) / (2 T), since the mean is taken from the same samples.
        mutual_information_jackknife: the same without this bias to first order, at the price of more noise; it may be
            negative.
        variation_ratio: the fraction of samples that vote for another class than most do.
    """

    entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    mutual_information_jackknife: Tensor
    variation_ratio: Tensor

    @property
    def label(self) -> Tensor:
        """The likeliest class of each input, (N, ...), int64."""
        return self.mean.argmax(-1)

    @property
    def confidence(self) -> Tensor:
        """The probability of that class, (N, ...)."""
        return self.mean.amax(-1)

    def report(self, y: Tensor, bins: int = 15, by: Measure = "entropy") -> ClassQuality:
        """Compare with the true classes: `quality.class_quality`."""
        from dropkit.mc import metrics

        return metrics.class_quality(self, y, bins, by)

    def ood(self, other: ClassPrediction, by: Measure = "mutual_information") -> Ood:
        """Say how well a measure of uncertainty tells these inputs from others, from elsewhere: `quality.ood`."""
        from dropkit.mc import metrics

        return metrics.ood(self, other, by)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValuePrediction(Prediction):
    """Values: `mean` and `variance`, (N, ...)."""

    def report(self, y: Tensor, tau: float) -> ValueQuality:
        """Compare with the true values, under noise of precision `tau`: `quality.value_quality`."""
        from dropkit.mc import metrics

        return metrics.value_quality(self, y, tau)

    def fit_tau(self, y: Tensor) -> float:
        """The precision of the noise under which these true values are likeliest: `quality.fit_tau`."""
        from dropkit.mc import metrics

        return metrics.fit_tau(self, y)

    def interval(self, level: float = 0.95, tau: float | None = None) -> tuple[Tensor, Tensor]:
        """The ends of the central interval, with the noise of precision `tau` or without it: `quality.interval`."""
        from dropkit.mc import metrics

        return metrics.interval(self, level, tau)
