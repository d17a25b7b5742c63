"""Draws: the results of a moment pass, by draws from normal outputs where they have no closed form.

Source of the draws: Kendall, Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?", NIPS
2017, arXiv:1703.04977, section 3.3 (probabilities of normal logits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from dropkit.mc.batches import Batch
from dropkit.mc.heads import Head
from dropkit.mc.moments.gaussian import Gaussian
from dropkit.mc.moments.moment_pass import MomentPass
from dropkit.mc.results import PartialResult

# Draws are added to the sums as soon as they hold this many numbers.
_NUMBERS_AT_ONCE = 2**17
# By the form of outputs that hold the mean and the noise: the expectation of the noise's variance, from the moments of
# the second part, which counts as normal.
_EXPECTED_VARIANCE: dict[str, Callable[[Gaussian], Tensor]] = {
    "mean_log_variance": lambda x: (x.mean + x.variance / 2).exp(),
    "mean_variance": lambda x: x.mean,
    "mean_std": lambda x: x.mean.square() + x.variance,
}


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws from the normal outputs of one head for a batch, and the results.

    Attributes:
        outputs: their moments, (N, ...).
    """

    passes: MomentPass
    head: Head
    batch: Batch
    outputs: Gaussian

    def probabilities(self) -> PartialResult:
        accumulator, kept = self.head.accumulator(self.batch, self.passes.settings), list[Tensor]()
        first = 0
        for outputs in self._draw():
            values = accumulator.add(first, outputs, None, self.passes.settings.keep_samples)
            kept += [] if values is None else [values]
            first += len(outputs)
        return PartialResult.of(accumulator, kept)

    def values(self) -> PartialResult:
        """The moments themselves, which have no Monte Carlo error."""
        mean, variance = self.outputs
        measures = {"mean": mean, "variance": variance}
        expected_noise = _EXPECTED_VARIANCE.get(self.head.classes.form)
        if expected_noise is not None:
            (mean, spread), (variance, of_spread) = mean.unbind(1), variance.unbind(1)
            noise = expected_noise(Gaussian(spread, of_spread))
            measures = {"mean": mean, "variance": variance, "aleatoric_variance": noise}
            measures |= {"total_variance": variance + noise}
        samples = None
        if self.passes.settings.keep_samples:
            samples = torch.cat([*self._draw()]) if expected_noise is None else torch.cat([*self._draw()])[:, :, 0]
        measures = {name: value.cpu() for name, value in measures.items()}
        errors = {name: torch.zeros_like(value) for name, value in measures.items()}
        counts = torch.full((len(mean),), self.passes.settings.samples)
        return PartialResult(measures, errors, counts, None if samples is None else samples.cpu())

    def _draw(self) -> Iterator[Tensor]:
        """Yield the draws, (some, N, ...). All inputs get the same normal numbers, so that batching changes nothing."""
        mean, std = self.outputs.mean, self.outputs.variance.sqrt()
        shape = [1, *mean.shape[1:]]
        if self.head.task == "classification" and mean.dim() > 1:
            # So do positions, of which none reads another's.
            dim = self.head.classes_in(self.batch, self.passes.settings).dimension(tuple(mean.shape))
            shape = [size if place == dim else 1 for place, size in enumerate(mean.shape)]
        normal = self.passes.normal_numbers(self.passes.settings.samples, torch.Size(shape)).to(mean.device)
        for part in cast("list[Tensor]", normal.split(max(1, _NUMBERS_AT_ONCE // max(mean.numel(), 1)))):
            yield torch.addcmul(mean, std, part)
