"""Scores: which inputs to ask labels for, one by one or as a batch.

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
from dropkit.arguments import check, counted
from dropkit.mc.accumulators import entropy as entropy_of
from dropkit.mc.prediction import ClassPrediction

# Joint probabilities that are looked at together, float64: 64 MiB.
_TOGETHER = 2**23


def bald(r: ClassPrediction) -> Tensor:
    """Score inputs by their mutual information: how much the samples disagree, in nats.

    Shape:
        (N,), higher is asked first; of an input with many labels the mean, as of every score here.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> bald(r).topk(2).indices.shape
        torch.Size([2])
    """
    return _each_input(_classes(r).mutual_information)


def entropy(r: ClassPrediction) -> Tensor:
    """Score inputs by the entropy of their mean prediction, in nats, for whatever reason it is unsure; (N,)."""
    return _each_input(_classes(r).entropy)


def variation_ratio(r: ClassPrediction) -> Tensor:
    """Score inputs by the fraction of samples that vote against the majority; (N,)."""
    return _each_input(_classes(r).variation_ratio)


def batch_bald(
    r: ClassPrediction,
    count: int,
    candidates: Tensor | Sequence[int] | None = None,
    *,
    exact: int = 100_000,
    configurations: int = 10_000,
    seed: int | None = None,
) -> Tensor:
    r"""Choose inputs whose labels together tell most of the network: BALD's best, without asking the same thing twice.

    Greedy: each next input is the one that adds most to the mutual information of all labels so far with the network.

    .. math:: I(y_1, \dots, y_b; w) = H(y_1, \dots, y_b) - \sum_i E_w\, H(y_i \mid w)

    The joint entropy is over networks that are shared by all inputs, so predict with `masks="shared"` and
    `keep_samples=True`. With any other masks, sample t of two inputs is not the same network: no redundancy can be
    seen, and what is chosen is BALD's best, with noise.

    Args:
        r: a prediction with its draws, one label for each input, and all samples of every input.
        count: how many to choose, at least 1.
        candidates: numbers of the inputs to choose from, each once; all if None.
        exact: with up to so many joint configurations of labels, classes to the power of those chosen, all are counted.
        configurations: with more, so many are drawn instead.
        seed: of these draws; from torch's generator if None.

    Shape:
        (count,), int64, numbers of inputs in the order of choice.

    Raises:
        TypeError: `r` holds no classes.
        ValueError: `r` has no draws, or not all of every input, or many labels of an input; `count`, `candidates`,
            `exact` or `configurations` is out of range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, masks="shared", keep_samples=True, seed=0)
        >>> batch_bald(r, 2).shape
        torch.Size([2])
    """
    draws = _draws(r)
    inputs = _inputs(candidates, len(r))
    check("count", 1 <= count <= len(inputs), f"in [1, {len(inputs)}], the number of candidates", count)
    exact, configurations = counted("exact", exact), counted("configurations", configurations)
    draws = draws[:, inputs].double()
    known = entropy_of(draws).mean(0)
    joint, chosen = _Joint(draws), list[int]()
    for _ in range(count):
        gain = joint.entropy_of_next() - known
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        if len(chosen) < count:
            joint.grow(chosen, exact, configurations, seed)
    return inputs[chosen]


class _Joint:
    """The labels of the inputs chosen so far: their configurations, and what each tells of the network.

    H(y_1, ..., y_b) = H(y_1, ..., y_b-1) + E H(y_b | y_1, ..., y_b-1): only the last term depends on the next input. It
    is the entropy of a prediction by the networks, weighted by what the configuration tells of them.

    Args:
        draws: (T, N, classes), float64.
    """

    def __init__(self, draws: Tensor) -> None:
        self._draws = draws
        samples = len(draws)
        # (K,), the probability of each configuration; (K, T), that of each network under it.
        self._weight = draws.new_ones(1)
        self._networks = draws.new_full((1, samples), 1 / samples)
        # When configurations are drawn: the network that each is drawn from.
        self._drawn: Tensor | None = None
        self._generator = torch.Generator()

    def entropy_of_next(self) -> Tensor:
        """E H(y | those chosen) for the label y of each input, (N,)."""
        samples, count, classes = self._draws.shape
        some = max(1, _TOGETHER // (len(self._weight) * classes))
        entropies: list[Tensor] = []
        for first in range(0, count, some):
            p = self._networks @ self._draws[:, first : first + some].reshape(samples, -1)
            entropies.append(self._weight @ entropy_of(p.view(len(p), -1, classes)))
        return torch.cat(entropies)

    def grow(self, chosen: list[int], exact: int, configurations: int, seed: int | None) -> None:
        """Take in the label of the last that was chosen.

        Args:
            exact: how many configurations of these and one more label may be counted.
        """
        if self._drawn is not None:
            self._draw(chosen[-1])
        elif self._draws.shape[-1] ** (len(chosen) + 1) <= exact:
            self._count(chosen[-1])
        else:
            self._generator.manual_seed(int(random.draw()) if seed is None else random.signed(seed, "seed"))
            # Each network equally often, as far as that goes.
            self._drawn = torch.arange(configurations) % len(self._draws)
            self._weight = self._draws.new_full((configurations,), 1 / configurations)
            self._networks = self._draws.new_full((configurations, len(self._draws)), 1 / len(self._draws))
            for one in chosen:
                self._draw(one)

    def _count(self, input: int) -> None:
        """Every configuration with every label of this input."""
        networks = (self._networks.unsqueeze(1) * self._draws[:, input].T).flatten(0, 1)
        p = networks.sum(1)
        possible = p > 0
        self._networks = networks[possible] / p[possible].unsqueeze(1)
        self._weight = (self._weight.repeat_interleave(self._draws.shape[-1]) * p)[possible]

    def _draw(self, input: int) -> None:
        """Every configuration with a label of this input, as its network draws it."""
        of_networks = self._draws[:, input]
        label = of_networks[self._drawn].multinomial(1, generator=self._generator).squeeze(1)
        networks = self._networks * of_networks[:, label].T
        self._networks = networks / networks.sum(1, keepdim=True)


def _classes(r: ClassPrediction) -> ClassPrediction:
    if not isinstance(r, ClassPrediction):
        raise TypeError(f"r must be a ClassPrediction, got {type(r).__name__}")
    return r


def _each_input(measure: Tensor) -> Tensor:
    return measure if measure.dim() == 1 else measure.flatten(1).mean(1)


def _draws(r: ClassPrediction) -> Tensor:
    draws = _classes(r).draws
    if draws is None:
        raise ValueError('r must hold its draws, got None: pass masks="shared" and keep_samples=True to predict')
    check("draws", draws.dim() == 3, "of shape (T, N, classes)", tuple(draws.shape))
    least = int(r.samples.min())
    check("samples", least == len(draws), f"{len(draws)} of every input, so predict without until", least)
    return draws


def _inputs(candidates: Tensor | Sequence[int] | None, count: int) -> Tensor:
    if candidates is None:
        return torch.arange(count)
    inputs = torch.as_tensor(candidates).cpu()
    if inputs.is_floating_point() or inputs.dtype == torch.bool:
        raise TypeError(f"candidates must hold numbers of inputs as integers, got {inputs.dtype}")
    check("candidates", inputs.dim() == 1, "of one dimension", tuple(inputs.shape))
    numbers = cast("list[int]", inputs.tolist())
    wrong = [one for one in numbers if not 0 <= one < count]
    check("candidates", not wrong, f"in [0, {count})", wrong)
    check("candidates", len(set(numbers)) == len(numbers), "different from one another", numbers)
    return inputs.long()
