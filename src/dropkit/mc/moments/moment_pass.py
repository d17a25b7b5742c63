"""MomentPass: the pass of `propagate`, which computes the moments of a model's outputs, and the results.

Where these have no closed form, they are computed from draws from normal outputs.

Source of the draws: Kendall, Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?", NIPS
2017, arXiv:1703.04977, section 3.3 (probabilities of normal logits).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.generators import fork_python, fork_torch
from dropkit.mc.heads import Head
from dropkit.mc.moments.gaussian import Gaussian
from dropkit.mc.moments.mode import MomentsMode
from dropkit.mc.moments.moments import Moments, NoMomentRule
from dropkit.mc.padding import Padding, without_padding
from dropkit.mc.passes import Passes
from dropkit.mc.results import PartialResult
from dropkit.mc.sampling import nothing_to_sample
from dropkit.report.progress import Progress

# Draws are added to the sums as soon as they hold this many numbers.
_NUMBERS_AT_ONCE = 2**17
# By the form of outputs that hold the mean and the noise: the expectation of the noise's variance, from the moments of
# the second part, which counts as normal.
_EXPECTED_VARIANCE: dict[str, Callable[[Gaussian], Tensor]] = {
    "mean_log_variance": lambda x: (x.mean + x.variance / 2).exp(),
    "mean_variance": lambda x: x.mean,
    "mean_std": lambda x: x.mean.square() + x.variance,
}
_NOTE = "one pass of moment propagation, in which elements count as independent"
_SHARED_NOTE = (
    "mask elements that several elements share, as of Dropout2d and DropPath, count as independent: variances of what "
    "is computed from them may be much too small"
)


class MomentPass(Passes):
    """The passes of one call of `propagate`: one that computes moments, and the plain one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._normal_numbers: dict[tuple[int, torch.Size], Tensor] = {}

    def results(self, batch: Batch, rows: BatchRows, padding: Padding, bar: Progress) -> list[PartialResult]:
        results: list[PartialResult] = []
        for head, (mean, variance) in zip(self.heads, self.moments(batch), strict=True):
            head.check_shape(mean, batch.count)
            compute = self.values if head.task == "regression" else self.probabilities
            result = compute(head, batch, Gaussian(mean.float(), variance.float()))
            # Padding is found by the shape of values, or of probabilities.
            valid = padding.valid_places(batch, head, result.measures["mean"].shape)
            results.append(without_padding(result, valid))
        bar.advance(batch.count * self.settings.samples)
        return [replace(result, plain=plain) for result, plain in zip(results, self.plain(batch), strict=True)]

    def moments(self, batch: Batch) -> list[Gaussian]:
        """Return the mean and the variance of the outputs of each head, each (N, ...).

        Raises:
            NothingToSample: no dropout is active.
            NoMomentRule: there is no rule for a call.
        """
        mode, seed = MomentsMode(), self._sampler.seed_outside_sites(0, 0)
        try:
            with fork_torch(seed), fork_python(seed), mode:
                outputs = self._outputs(batch.copied())
        except NoMomentRule as error:
            where = _innermost_module(self._model, error.__traceback__)
            raise NoMomentRule(
                f"model must have a rule for every call after its first dropout, got {error} {where}; predict samples "
                "from any model"
            ) from None
        if not mode.random_calls:
            raise nothing_to_sample(self.noise_left_off)
        for head, output in zip(self.heads, outputs, strict=True):
            head.call = mode.output_calls.of(output)
        for note in (_NOTE, _SHARED_NOTE if mode.has_shared_masks else _NOTE):
            if note not in self.notes:
                self.notes.append(note)
        outputs = [self._inputs_first(index, output, batch) for index, output in enumerate(outputs)]
        return [
            output.gaussian if isinstance(output, Moments) else Gaussian(output, torch.zeros_like(output))
            for output in outputs
        ]

    def probabilities(self, head: Head, batch: Batch, outputs: Gaussian) -> PartialResult:
        """Return the probabilities of normal outputs, (N, ...), by draws."""
        accumulator, first = head.accumulator(batch, self.settings), 0
        for drawn in self._draw(head, batch, outputs):
            accumulator.add(first, drawn)
            first += len(drawn)
        return PartialResult.of(accumulator)

    def values(self, head: Head, batch: Batch, outputs: Gaussian) -> PartialResult:
        """Return the moments themselves, which have no Monte Carlo error."""
        mean, variance = outputs
        measures = {"mean": mean, "variance": variance}
        expected_noise = _EXPECTED_VARIANCE.get(head.classes.form)
        if expected_noise is not None:
            (mean, spread), (variance, of_spread) = mean.unbind(1), variance.unbind(1)
            noise = expected_noise(Gaussian(spread, of_spread))
            measures = {"mean": mean, "variance": variance, "aleatoric_variance": noise}
            measures |= {"total_variance": variance + noise}
        samples = None
        if self.settings.keep_samples:
            samples = torch.cat([*self._draw(head, batch, outputs)]).cpu()
            samples = samples if expected_noise is None else samples[:, :, 0]
        measures = {name: value.cpu() for name, value in measures.items()}
        errors = {name: torch.zeros_like(value) for name, value in measures.items()}
        counts = torch.full((len(mean),), self.settings.samples)
        return PartialResult(measures, errors, counts, samples)

    def _draw(self, head: Head, batch: Batch, outputs: Gaussian) -> Iterator[Tensor]:
        """Yield the draws, (some, N, ...). All inputs get the same normal numbers, so that batching changes nothing."""
        mean, std = outputs.mean, outputs.variance.sqrt()
        shape = [1, *mean.shape[1:]]
        if head.task == "classification" and mean.dim() > 1:
            # So do positions, of which none reads another's.
            dim = head.classes_in(batch, self.settings).dimension(tuple(mean.shape))
            shape = [size if place == dim else 1 for place, size in enumerate(mean.shape)]
        normal = self._normal(self.settings.samples, torch.Size(shape)).to(mean.device)
        for part in cast("list[Tensor]", normal.split(max(1, _NUMBERS_AT_ONCE // max(mean.numel(), 1)))):
            yield torch.addcmul(mean, std, part)

    def _normal(self, draws: int, shape: torch.Size) -> Tensor:
        """Standard normal numbers, (draws, *shape), stratified over the draws: a Latin hypercube."""
        if (draws, shape) not in self._normal_numbers:
            generator = torch.Generator().manual_seed(self._sampler.seed_outside_sites(0, 0))
            stratum = torch.rand((draws, *shape), generator=generator).argsort(0)
            place = torch.rand((draws, *shape), generator=generator, dtype=torch.float64)
            # The cast: torch declares no types for its special functions.
            normal = cast("Any", torch.special).ndtri((stratum + place) / draws)
            # At most one number in 2**53 is infinite before.
            self._normal_numbers[draws, shape] = normal.clamp(-9, 9).float()
        return self._normal_numbers[draws, shape]


def _innermost_module(model: nn.Module, trace: TracebackType | None) -> str:
    """Where an error was raised: the path and the type of the innermost module."""
    names: dict[int, str] = {id(module): name for name, module in cast("Any", model.named_modules())}
    where = f"in {type(model).__name__}"
    for frame, _ in traceback.walk_tb(trace):
        module = frame.f_locals.get("self")
        if names.get(id(module)):
            where = f"in {names[id(module)]!r} ({type(module).__name__})"
    return where
