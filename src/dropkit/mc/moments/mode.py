"""MomentsMode: the function mode in which every dropout turns numbers into their moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from dropkit.dropout_functions import DropoutFunction
from dropkit.kernels.numbers import NORMAL
from dropkit.kernels.params import NoiseParams
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.moments.moments import Moments, refuse
from dropkit.mc.site_mode import COMPOSED, SiteDropout, SiteMode


class MomentsMode(SiteMode):
    """Computes the moments of what a dropout returns, whose mask elements are independent of its input.

    Attributes:
        site_count: how many dropouts there were.
        has_shared_masks: whether several elements of an input shared a mask element.
    """

    def __init__(self) -> None:
        super().__init__()
        self.site_count: int = 0
        self.has_shared_masks: bool = False
        self.records_output_calls = True

    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        if func in COMPOSED:
            refuse(function.name)
        return super().dropout(function, p, func, args, kwargs)

    def drop(self, input: Tensor, dropout: SiteDropout) -> Tensor:
        sites = frozenset({self.site_count})
        self.site_count += 1
        mask_shape = dropout.mask_shape and dropout.mask_shape(input.shape)
        self.has_shared_masks |= mask_shape is not None and torch.Size(mask_shape).numel() < input.numel()
        if isinstance(input, Moments):
            mean, variance, sites = input.expectation, input.variance, sites | input.sites
        else:
            mean, variance = input, None
        dropped = _dropped(mean, variance, dropout)
        if dropout.inplace and isinstance(input, Moments):
            return input.write(dropped)
        if dropout.inplace:
            # It cannot hold moments; whatever reads it instead of the result must not look right.
            input.fill_(torch.nan)
        return Moments.of(dropped, sites)

    def uniform(self, shape: torch.Size, device: torch.device) -> NoReturn:
        refuse("a mask that the model draws itself")

    def run_seeded(self, call: Callable[[], Any]) -> NoReturn:
        refuse("random numbers that are no mask of dropout")


def _dropped(mean: Tensor, variance: Tensor | None, dropout: SiteDropout) -> tuple[Tensor, Tensor]:
    """The moments of an input after dropout, exactly.

    Args:
        variance: of the input; None for 0.
    """
    params = dropout.make_params(dropout.p)
    if isinstance(params, NoiseParams):
        if params.distribution != NORMAL or params.term:
            refuse("noise that is not multiplied, or not normal")
        # x (1 + factor n), with n of mean 0 and variance 1.
        added, factor = (mean * params.factor).square(), 1 + params.factor**2
        return mean.clone(), added if variance is None else added.add_(variance, alpha=factor)
    kept = mean * params.scale + params.shift
    p = dropout.p
    # The variance between the means of kept and dropped elements, and that within kept ones.
    between = (kept - params.fill).square().mul_(p * (1 - p))
    return (
        kept * (1 - p) + p * params.fill,
        between if variance is None else between.add_(variance, alpha=(1 - p) * params.scale**2),
    )
