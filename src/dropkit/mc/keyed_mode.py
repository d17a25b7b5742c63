"""KeyedMode: the function mode of `predict`, in which the mask of an input depends on nothing but the input.

Each site draws from the key of (seed, site, sample), and each input has mask elements of its own under that key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels import FLOATS
from dropkit.kernels.params import NoiseParams, unscaled
from dropkit.mc.accelerator import Accelerator
from dropkit.mc.batch_dim import BatchDim
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.generators import fork_torch
from dropkit.mc.masks import MaskSampler, MaskSpec, SampledMask, mask_spec
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.site_mode import SiteDropout, SiteMode
from dropkit.nn.mask_shapes import MaskShape
from dropkit.torch_private import functorch_is_active, no_functorch, no_torch_function


class KeyedMode(SiteMode):
    """Drops by key; serves all passes over one batch.

    Args:
        sampler: the masks of all samples.
        batch_dims: the batch dimension at each site.
        rows: the inputs.
        accelerator: may compute calls and apply masks in its own way.

    Attributes:
        site_count: sites of the current pass, so far.
        unknown_sites: the sites where the batch dimension is unknown, or does not fit the tensor that is dropped.
    """

    def __init__(
        self, sampler: MaskSampler, batch_dims: Sequence[BatchDim | None], rows: BatchRows, accelerator: Accelerator
    ) -> None:
        super().__init__()
        self.rows = rows
        self.site_count = 0
        self.unknown_sites: set[int] = set()
        self._sampler, self._batch_dims, self._accelerator = sampler, batch_dims, accelerator
        self._sample = 0
        # By site: what the mask depends on, and the mask. They are the same in every pass over a batch.
        self._masks: dict[int, tuple[tuple[object, ...], MaskSpec]] = {}

    def begin_pass(self, sample: int) -> None:
        self._sample = sample
        self.site_count: int = 0
        # The calls of all passes over a batch are the same.
        self.records_output_calls: bool = sample == 0

    @property
    def most_numbers(self) -> int:
        """The numbers of the largest tensor that is dropped."""
        return max((prod(spec.shape) for _, spec in self._masks.values()), default=0)

    def not_random(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        output = self._accelerator.intercept(func, types, args, kwargs)
        return func(*args, **kwargs) if output is NotImplemented else output

    def drop(self, input: Tensor, dropout: SiteDropout) -> Tensor:
        site = self._next_site()
        with no_torch_function():
            mask = SampledMask(self._mask(input, dropout, site), dropout.p, site, self._sample)
            if functorch_is_active() or (torch.is_grad_enabled() and input.requires_grad) or input.is_complex():
                return self._drop_differentiably(input, dropout, mask)
            output = self._accelerator.drop(input, dropout, mask, self._sampler)
            if output is NotImplemented:
                output = self._drop(self._accelerator.materialize(input), dropout, mask)
            return output

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        site = self._next_site()
        spec = self._new_mask(shape, None, self._batch_dim(site), site)
        with no_torch_function():
            return self._sampler.uniform(SampledMask(spec, 0.0, site, self._sample), device).view(shape)

    def run_seeded(self, call: Callable[[], Any]) -> Any:
        site = self._next_site()
        with no_torch_function(), fork_torch(self._sampler.key(site, self._sample) ^ self.rows.first):
            return call()

    def _next_site(self) -> int:
        self._accelerator.before_site()
        self.site_count += 1
        return self.site_count - 1

    def _drop(self, input: Tensor, dropout: SiteDropout, mask: SampledMask) -> Tensor:
        if input.dtype not in FLOATS:
            raise TypeError(f"input of dropout must be float16, bfloat16, float32 or float64, got {input.dtype}")
        output = input if dropout.inplace else torch.empty_like(input)
        self._sampler.drop(output, input, mask, dropout.make_params)
        if dropout.inplace and not input.is_inference():
            torch.autograd.graph.increment_version(input)
        return output

    def _drop_differentiably(self, input: Tensor, dropout: SiteDropout, mask: SampledMask) -> Tensor:
        """Drop by torch's own functions: the kernel writes real numbers into its output, without a derivative."""
        params = dropout.make_params(dropout.p)
        is_noise = isinstance(params, NoiseParams)
        with no_functorch():
            ones = torch.ones(input.shape, device=input.device)
            self._sampler.drop(ones, ones, mask, dropout.make_params if is_noise else unscaled)
        if is_noise:  # which multiplies
            return input.mul_(ones) if dropout.inplace else input * ones.to(input.dtype)
        if params.shift and input.is_complex():
            raise TypeError(f"input of alpha dropout must be of real numbers, got {input.dtype}")
        output = torch.where(ones.bool(), input * params.scale + params.shift, params.fill)
        return input.copy_(output) if dropout.inplace else output

    def _mask(self, input: Tensor, dropout: SiteDropout, site: int) -> MaskSpec:
        source = input.shape, dropout.mask_shape, dropout.batch_dim
        if site not in self._masks or self._masks[site][0] != source:
            mask_shape = dropout.mask_shape and dropout.mask_shape(input.shape)
            spec = self._new_mask(input.shape, mask_shape, dropout.batch_dim or self._batch_dim(site), site)
            self._masks[site] = source, spec
        return self._masks[site][1]

    def _new_mask(
        self, shape: torch.Size, mask_shape: MaskShape | None, batch_dim: BatchDim | None, site: int
    ) -> MaskSpec:
        try:
            return mask_spec(shape, mask_shape, batch_dim, self.rows)
        except ValueError:
            # What is dropped here does not belong to the inputs, or the model branched differently in the probe.
            self.unknown_sites.add(site)
            return mask_spec(shape, mask_shape, None, self.rows)

    def _batch_dim(self, site: int) -> BatchDim | None:
        if site < len(self._batch_dims):
            return self._batch_dims[site]
        if len(self.rows) > 1:
            # The probe had fewer sites.
            self.unknown_sites.add(site)
        return None
