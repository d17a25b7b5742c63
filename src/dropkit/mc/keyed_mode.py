"""The mode of `predict`: each draw by a key, so that the mask of an input depends on nothing but the input."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels import FLOATS
from dropkit.kernels.params import inverted, unscaled
from dropkit.mc.accelerate import pruned
from dropkit.mc.accelerate.prefix_cache import ESCAPES, Tape
from dropkit.mc.batch_dim import Layout
from dropkit.mc.intercept import Draw, Sited, forked
from dropkit.mc.masks import Coins, Mask, Rows, mask
from dropkit.mc.mode import Args, Kwargs
from dropkit.nn.mask_shapes import MaskShape
from dropkit.torch_private import functorch_is_active, no_functorch, no_torch_function


class Keyed(Sited):
    """Draws sample by sample, for one batch.

    Args:
        coins: the draws.
        layouts: where the inputs lie, site by site.
        rows: the inputs.
    """

    def __init__(self, coins: Coins, layouts: Sequence[Layout | None], rows: Rows) -> None:
        super().__init__()
        self._coins, self._layouts, self.rows = coins, layouts, rows
        self._sample = self._site = 0
        self._tape: Tape | None = None
        self._thin = False
        # Sites whose layout was not found, or does not fit the tensor that came.
        self.lost: set[int] = set()
        # Site by site, and what it was made for.
        self._masks: dict[int, tuple[tuple[object, ...], Mask]] = {}
        # Sites whose thinned tensor was of no use: what follows wants all of it.
        self._dense: set[int] = set()
        self._thinned: list[tuple[int, pruned.Thin]] = []
        # What this pass has made that is no ordinary tensor.
        self._parts: list[weakref.ref[pruned.Part]] = []
        # Layers whose input is written while they wait.
        self._eager: set[int] = set()
        self._affine = 0
        # Whether the model asked for access to memory whose writes nothing counts.
        self.escaped = False

    @property
    def sites(self) -> int:
        """How many there were in this pass, so far."""
        return self._site

    def begin(self, sample: int, tape: Tape | None, thin: bool) -> None:
        """A pass begins."""
        self._sample, self._tape, self._thin = sample, tape, thin
        self._site = self._affine = 0
        self._thinned, self._parts = [], []

    def never_wait(self, layer: int) -> None:
        """Compute this layer of a pass where it stands."""
        self._eager.add(layer)

    def dense(self, output: Tensor) -> Tensor:
        """A tensor of a pass, as an ordinary one."""
        return output.whole() if isinstance(output, pruned.Part) else output

    def end(self) -> bool:
        """A pass has ended; whether something it made that is no ordinary tensor is still held."""
        self._dense.update(site for site, part in self._thinned if part.full is not None)
        self._thinned = []
        return self._settled()

    def _settled(self) -> bool:
        """Make tensors of all parts that are left; whether there are any."""
        parts = pruned.living(self._parts)
        for part in parts:
            part.whole()
        return bool(parts)

    def other(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        if func in ESCAPES:
            self.escaped = True
            # What waits would miss what is written that way.
            self._settled()
            if self._tape is not None:
                self._tape.fault = f"{getattr(func, '__name__', func)} of a tensor gives access that nothing counts"
        if self._tape is not None and self._tape.running:
            return self._tape.call(func, args, kwargs)
        return self._thinly(func, types, args, kwargs) if self._thin else func(*args, **kwargs)

    def _thinly(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        """A call where linear layers wait, and dropped units are cut out."""
        output = NotImplemented
        if func in pruned.AFFINE:
            self._affine += 1
            if self._affine not in self._eager and not (functorch_is_active() or torch.is_grad_enabled()):
                output = pruned.lazily(func, args, kwargs, self._affine)
        if output is NotImplemented:
            parts = any(issubclass(one, pruned.Part) for one in types)
            output = pruned.call(func, args, kwargs) if parts else func(*args, **kwargs)
        if isinstance(output, pruned.Part):
            self._parts.append(weakref.ref(output))
        return output

    def site(self, input: Tensor, draw: Draw) -> Tensor:
        site = self._next()
        with no_torch_function():
            coins = self._mask(input, draw, site)
            if functorch_is_active() or (torch.is_grad_enabled() and input.requires_grad):
                return self._drop_watched(input, draw, coins, site)
            thins = self._thin and draw.rule is inverted and not draw.inplace and site not in self._dense
            # Not where the inputs share a dimension of the tensor with others.
            dim = coins.only if thins and len(coins.shape) == len(input.shape) else None
            if dim is not None and input.shape.numel() >= pruned.WORTH * input.shape[dim]:
                kept = self._coins.kept(coins, draw.p, site, self._sample, input.device)
                part = pruned.thinned(input, kept, dim, inverted(draw.p).scale)
                self._thinned.append((site, part))
                self._parts.append(weakref.ref(part))
                return part
            return self._drop(self.dense(input), draw, coins, site)

    def _drop_watched(self, input: Tensor, draw: Draw, coins: Mask, site: int) -> Tensor:
        """By calls that have derivatives: a kernel that writes has none."""
        with no_functorch():
            kept = torch.ones(input.shape, device=input.device)
            self._coins.drop(kept, kept, coins, unscaled, draw.p, site, self._sample)
        values = draw.rule(draw.p)
        output = torch.where(kept.bool(), input * values.scale + values.shift, values.fill)
        return input.copy_(output) if draw.inplace else output

    def _mask(self, input: Tensor, draw: Draw, site: int) -> Mask:
        """The same in every pass over a batch."""
        made_for = input.shape, draw.unit, draw.layout
        if site not in self._masks or self._masks[site][0] != made_for:
            unit = draw.unit and draw.unit(input)
            self._masks[site] = made_for, self._made(input.shape, unit, draw.layout or self._layout(site), site)
        return self._masks[site][1]

    def _made(self, shape: torch.Size, unit: MaskShape | None, layout: Layout | None, site: int) -> Mask:
        try:
            return mask(shape, unit, layout, self.rows)
        except ValueError:
            # What lies here is none of the inputs', or another pass took another way.
            self.lost.add(site)
            return mask(shape, unit, None, self.rows)

    def _drop(self, input: Tensor, draw: Draw, coins: Mask, site: int) -> Tensor:
        if input.dtype not in FLOATS:
            raise TypeError(f"a dropout must be given float16, bfloat16, float32 or float64, got {input.dtype}")
        output = input if draw.inplace else torch.empty_like(input)
        self._coins.drop(output, input, coins, draw.rule, draw.p, site, self._sample)
        if draw.inplace and not input.is_inference():
            torch.autograd.graph.increment_version(input)
        return output

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        site = self._next()
        coins = self._made(shape, None, self._layout(site), site)
        with no_torch_function():
            return self._coins.uniform(coins, site, self._sample, device).view(shape)

    def seeded(self, draw: Callable[[], Any]) -> Any:
        site = self._next()
        with no_torch_function(), forked(self._coins.key(site, self._sample) ^ self.rows.first):
            return draw()

    def _next(self) -> int:
        if self._tape is not None and self._tape.running:
            self._tape.cut()
        self._site += 1
        return self._site - 1

    def _layout(self, site: int) -> Layout | None:
        if site < len(self._layouts):
            return self._layouts[site]
        if len(self.rows) > 1:
            # More draws than when the layouts were found.
            self.lost.add(site)
        return None
