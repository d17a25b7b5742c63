"""MomentPass: the pass of `propagate`, which computes the moments of a model's outputs."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.mc.batches import Batch
from dropkit.mc.generators import fork_python, fork_torch
from dropkit.mc.moments.mode import MomentsMode
from dropkit.mc.moments.moments import Moments, NoMomentRule
from dropkit.mc.passes import Passes
from dropkit.mc.sampling import nothing_to_sample

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

    def moments(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
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
            output.gaussian if isinstance(output, Moments) else (output, torch.zeros_like(output)) for output in outputs
        ]

    def normal_numbers(self, draws: int, shape: torch.Size) -> Tensor:
        """Return standard normal numbers, (draws, *shape), stratified over the draws: a Latin hypercube."""
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
