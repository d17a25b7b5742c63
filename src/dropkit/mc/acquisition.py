"""Acquisition functions of active learning: which inputs to label next, one by one or as a batch.

Sources: Houlsby, Huszar, Ghahramani, Lengyel, "Bayesian Active Learning for Classification and Preference Learning",
2011, arXiv:1112.5745 (BALD); Gal, Islam, Ghahramani, "Deep Bayesian Active Learning with Image Data", ICML 2017,
arXiv:1703.02910; Kirsch, van Amersfoort, Gal, "BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian
Active Learning", NeurIPS 2019, arXiv:1906.08158.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from dropkit import random
from dropkit.arguments import check, positive_int
from dropkit.mc.measures import (
    ClassMeasures,
    MultilabelMeasures,
    least_samples,
    must_hold_classes,
    must_hold_labels,
    uncertainty_of_inputs,
)
from dropkit.mc.measures import entropy as entropy_of
from dropkit.public_names import public_names

__all__ = [
    "bald",
    "batch_bald",
    "entropy",
    "score",
    "variation_ratio",
]

Labelled = ClassMeasures | MultilabelMeasures
# Joint probabilities in memory at once, float64: 64 MiB.
_NUMBERS_AT_ONCE = 2**23


def score(r: Labelled, by: str) -> Tensor:
    """Score inputs by a measure of uncertainty, signed so that a higher score is labelled first.

    Args:
        by: the name of the measure.

    Shape:
        (N,); the mean over the labels of an input that has many, such as tokens. Where several labels may be true, the
        sum for measures in nats.

    Raises:
        TypeError: `r` holds values.
        ValueError: `by` is not a measure of uncertainty.
    """
    return uncertainty_of_inputs(must_hold_labels(r, "r"), by)


def bald(r: Labelled) -> Tensor:
    """Score inputs by their mutual information: how much the samples disagree, in nats; (N,).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> bald(r).topk(2).indices.shape
        torch.Size([2])
    """
    return score(r, "mutual_information")


def entropy(r: Labelled) -> Tensor:
    """Score inputs by the entropy of their mean prediction, their total uncertainty, in nats; (N,)."""
    return score(r, "entropy")


def variation_ratio(r: Labelled) -> Tensor:
    """Score inputs by the fraction of samples that vote against the majority; (N,)."""
    return score(r, "variation_ratio")


def batch_bald(
    r: ClassMeasures,
    count: int,
    candidates: Tensor | Sequence[int] | None = None,
    *,
    exact: int = 100_000,
    configurations: int = 10_000,
    seed: int | None = None,
) -> Tensor:
    r"""Choose the inputs with labels that together are most informative: BALD without redundant choices.

    Greedy: each next input is the one that adds most to the mutual information between all labels and the network.

    .. math:: I(y_1, \dots, y_b; w) = H(y_1, \dots, y_b) - \sum_i E_w\, H(y_i \mid w)

    The joint entropy is over networks that all inputs share, so predict with `masks="shared"` and `keep_samples=True`.
    With other masks, sample t of two inputs is not the same network: no redundancy can be seen, and the choice is that
    of BALD, with noise.

    Args:
        r: a prediction with its samples, one label for each input, and equally many samples of every input.
        count: how many inputs to choose, at least 1.
        candidates: numbers of the inputs to choose from, each once; all if None.
        exact: enumerate all joint configurations of labels (classes to the power of inputs chosen) up to this number.
        configurations: how many to sample where there are more.
        seed: seed of this sampling; from torch's generator if None.

    Shape:
        (count,), int64, numbers of inputs in the order of choice.

    Raises:
        TypeError: `r` holds values, or labels of which several may be true.
        ValueError: `r` has no samples, or not all of every input, or many labels of an input; `count`, `candidates`,
            `exact` or `configurations` is out of range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, masks="shared", keep_samples=True, seed=0)
        >>> batch_bald(r, 2).shape
        torch.Size([2])
    """
    samples = _samples(r)
    inputs = _inputs(candidates, len(r))
    check("count", 1 <= count <= len(inputs), f"in [1, {len(inputs)}], the number of candidates", count)
    exact, configurations = positive_int("exact", exact), positive_int("configurations", configurations)
    samples = samples[:, inputs].double()
    expected_entropy = entropy_of(samples).mean(0)
    joint, chosen = _JointLabels(samples), list[int]()
    for _ in range(count):
        gain = joint.entropy_of_next() - expected_entropy
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        if len(chosen) < count:
            joint.add_last(chosen, exact, configurations, seed)
    return inputs[chosen]


class _JointLabels:
    """The joint distribution of the labels of the inputs chosen so far, and the networks' posterior given them.

    H(y_1, ..., y_b) = H(y_1, ..., y_b-1) + E H(y_b | y_1, ..., y_b-1): only the last term depends on the next input. It
    is the entropy of the networks' mean prediction, weighted by their posterior given the configuration of labels.

    Args:
        samples: (T, N, classes), float64: the predictions of T networks.
    """

    def __init__(self, samples: Tensor) -> None:
        self._samples = samples
        # (K,): the probability of each configuration of labels. (K, T): that of each network given the configuration.
        self._weight = samples.new_ones(1)
        self._posterior = samples.new_full((1, len(samples)), 1 / len(samples))
        # Where configurations are sampled: the network that each is sampled from, (K,).
        self._source: Tensor | None = None
        self._generator = torch.Generator()

    def entropy_of_next(self) -> Tensor:
        """Return E H(y | labels of the chosen) for the label y of each input, (N,)."""
        networks, count, classes = self._samples.shape
        step = max(1, _NUMBERS_AT_ONCE // (len(self._weight) * classes))
        entropies: list[Tensor] = []
        for first in range(0, count, step):
            p = self._posterior @ self._samples[:, first : first + step].reshape(networks, -1)
            entropies.append(self._weight @ entropy_of(p.view(len(p), -1, classes)))
        return torch.cat(entropies)

    def add_last(self, chosen: list[int], exact: int, configurations: int, seed: int | None) -> None:
        """Add the label of the input that was chosen last.

        Args:
            exact: how many configurations of these labels and one more may be enumerated.
        """
        if self._source is not None:
            self._sample(chosen[-1])
        elif self._samples.shape[-1] ** (len(chosen) + 1) <= exact:
            self._enumerate(chosen[-1])
        else:
            self._generator.manual_seed(int(random.draw()) if seed is None else random.signed(seed, "seed"))
            # Each network equally often, up to rounding.
            networks = len(self._samples)
            self._source = torch.arange(configurations) % networks
            self._weight = self._samples.new_full((configurations,), 1 / configurations)
            self._posterior = self._samples.new_full((configurations, networks), 1 / networks)
            for input in chosen:
                self._sample(input)

    def _enumerate(self, input: int) -> None:
        """Extend every configuration by every label of this input."""
        joint = (self._posterior.unsqueeze(1) * self._samples[:, input].T).flatten(0, 1)
        p = joint.sum(1)
        is_possible = p > 0
        self._posterior = joint[is_possible] / p[is_possible].unsqueeze(1)
        self._weight = (self._weight.repeat_interleave(self._samples.shape[-1]) * p)[is_possible]

    def _sample(self, input: int) -> None:
        """Extend every configuration by one label of this input, sampled from the configuration's network."""
        p = self._samples[:, input]
        label = p[self._source].multinomial(1, generator=self._generator).squeeze(1)
        joint = self._posterior * p[:, label].T
        self._posterior = joint / joint.sum(1, keepdim=True)


def _samples(r: ClassMeasures) -> Tensor:
    if isinstance(r, MultilabelMeasures):
        wanted = "r must hold one label for each input, whose joint entropies can be computed"
        raise TypeError(f"{wanted}, got a {type(r).__name__}: rank inputs by bald(r)")
    samples = must_hold_classes(r, "r").samples
    if samples is None:
        raise ValueError('r must hold its samples, got None: pass masks="shared" and keep_samples=True to predict')
    check("samples", samples.dim() == 3, "of shape (T, N, classes)", tuple(samples.shape))
    least = least_samples(r)
    wanted = f"{len(samples)} of every input, so predict without target_standard_error"
    check("sample_counts", least == len(samples), wanted, least)
    return samples


def _inputs(candidates: Tensor | Sequence[int] | None, count: int) -> Tensor:
    if candidates is None:
        return torch.arange(count)
    inputs = torch.as_tensor(candidates).cpu()
    if inputs.is_floating_point() or inputs.dtype == torch.bool:
        raise TypeError(f"candidates must hold numbers of inputs as integers, got {inputs.dtype}")
    check("candidates", inputs.dim() == 1, "of one dimension", tuple(inputs.shape))
    numbers = cast("list[int]", inputs.tolist())
    outside = [number for number in numbers if not 0 <= number < count]
    check("candidates", not outside, f"in [0, {count})", outside)
    check("candidates", len(set(numbers)) == len(numbers), "different from one another", numbers)
    return inputs.long()


def __dir__() -> list[str]:
    return public_names(globals())
