"""SiteMode: a function mode in which every dropout becomes a site: one tensor that is dropped by one mask.

Attention and recurrent networks, which drop inside, are recomputed step by step so that each dropout in them is a site.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence

from dropkit import functional
from dropkit.dropout_functions import DROPOUT_POSITION, DropoutFunction
from dropkit.kernels.params import MakeParams, inverted, unscaled
from dropkit.mc.batch_dim import BatchDim
from dropkit.mc.mode import Args, Kwargs, SamplingMode
from dropkit.nn import LAYERS as DROPOUTS
from dropkit.nn.blocks import SPATIAL_DIMS, BlockSize, NoiseShape, checked_block_size, drop_under_seeds
from dropkit.nn.concrete_dropout import concrete_dropout, numbers_shape, relax
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MakeMaskShape
from dropkit.nn.noise_shape import mask_shape
from dropkit.nn.patch_dropout import keep_tokens, patch_dropout
from dropkit.nn.recurrent_layers import run_layers
from dropkit.nn.scaled_dot_product_attention import attention_weights
from dropkit.torch_private import no_torch_function, pack_padded, pad_packed

# Layers by the names of functions and of torch's operators, in place or not.
_LAYERS: dict[str, Layer] = {
    name + end: layer
    for layer in DROPOUTS
    for name in (layer.function.__name__, layer.counterpart and layer.counterpart.operator)
    if name
    for end in ("", "_")
}
_LAYERS["native_dropout"] = _LAYERS["dropout"]

# Per thread: how the packed sequences that the recurrent network was called with were sorted.
_thread = threading.local()


@contextmanager
def note_packed_order() -> Generator[None]:
    """Note how packed sequences are sorted: the functions that compute recurrent networks do not receive it."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.RNNBase) and args and isinstance(args[0], PackedSequence):
            _thread.order = args[0].sorted_indices

    hook = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True, slots=True)
class SiteDropout:
    """How a site drops.

    Attributes:
        p: expected fraction dropped, in (0, 1).
        make_params: from `p` to the values that kept and dropped elements get.
        mask_shape: from the shape of an input to the shape of its mask; None for one mask element per input element.
        inplace: write over the input.
        batch_dim: the batch dimension, if it is known beforehand.
    """

    p: float
    make_params: MakeParams = inverted
    mask_shape: MakeMaskShape | None = None
    inplace: bool = False
    batch_dim: BatchDim | None = None


class SiteMode(SamplingMode):
    """Turns every dropout into a call of `drop`, `uniform` or `run_seeded`, one for each site."""

    @abstractmethod
    def drop(self, input: Tensor, dropout: SiteDropout) -> Tensor:
        """Drop `input` at the next site."""

    @abstractmethod
    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Return uniform numbers in [0, 1), float64, for a mask that the model makes itself at the next site."""

    @abstractmethod
    def run_seeded(self, call: Callable[[], Any]) -> Any:
        """Run a call from the seed of the next site, since its random numbers cannot be replaced."""

    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        compute = COMPOSED.get(func)
        if compute is not None:
            arguments = signature(func).bind(*args, **kwargs)
            arguments.apply_defaults()
            with self:
                return compute(self, **arguments.arguments)
        input = args[0] if args else kwargs["input"]
        layer = _LAYERS.get(function.name)
        if layer is None or not isinstance(input, Tensor) or input.layout is not torch.strided:
            return self.run_seeded(lambda: func(*args, **kwargs))
        layer = layer.called_with(kwargs)
        _, _, inplace = function.arguments(args, kwargs)
        output = self.drop(input, SiteDropout(p, layer.make_params, layer.mask_shape, inplace))
        return (output, output != 0) if function.name == "native_dropout" else output

    def drop_blocks(
        self,
        input: Tensor,
        p: float,
        block_size: BlockSize,
        inplace: bool,
        batchwise: bool,
        per_channel: bool,
        *,
        spatial: int,
        **_: Any,
    ) -> Tensor:
        """Compute a DropBlock layer, whose seeds are a site."""

        def draw(ones: Tensor, rate: float | Tensor, noise_shape: NoiseShape | None) -> Tensor:
            shape = None if noise_shape is None else partial(mask_shape, noise_shape)
            return self.drop(ones, SiteDropout(float(rate), unscaled, shape))

        return drop_under_seeds(
            input, float(p), checked_block_size(block_size, spatial), inplace, batchwise, per_channel, draw
        )

    def drop_concretely(self, input: Tensor, p: float | Tensor, temperature: float, channels: bool, **_: Any) -> Tensor:
        """Compute `concrete_dropout`, whose random numbers are a site."""
        return relax(input, p, temperature, self.uniform(numbers_shape(input, channels), input.device))

    def drop_tokens(
        self, input: Tensor, p: float, num_prefix_tokens: int, ordered: bool, return_indices: bool, **_: Any
    ) -> Any:
        """Compute `patch_dropout`, whose random numbers are a site."""

        def draw(ones: Tensor) -> Tensor:
            return self.drop(ones, SiteDropout(0.5))

        output, indices = keep_tokens(input, float(p), num_prefix_tokens, ordered, draw)
        return (output, indices) if return_indices else output

    def attention(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        if "scaled_dot_product_attention" not in function.name:
            return self.run_seeded(lambda: func(*args, **kwargs))
        with self:
            return self._attend(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute `F.scaled_dot_product_attention` as torch documents it, with its weights as a site."""
        weights, value = attention_weights(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        return self.drop(weights, SiteDropout(dropout_p)) @ value

    def recurrent(self, func: Any, args: list[Any], packed: bool) -> Any:
        p = args[DROPOUT_POSITION + packed]

        def drop(output: Tensor) -> Tensor:
            return self._drop_packed(output, args[1], p) if packed else self.drop(output, SiteDropout(p))

        with self:
            return run_layers(func, args, drop, False)

    def _drop_packed(self, data: Tensor, sizes: Tensor, p: float) -> Tensor:
        """Drop a packed sequence: unpack it, drop it in batch order, and pack it again."""
        order: Tensor | None = getattr(_thread, "order", None)
        padded, lengths = pad_packed(data, sizes, False, 0.0, len(sizes))
        if order is not None:
            padded = padded.index_select(1, order.argsort())
        dropped = self.drop(padded, SiteDropout(p, batch_dim=BatchDim(1)))
        if order is not None:
            dropped = dropped.index_select(1, order)
        return pack_padded(dropped, lengths.cpu(), False)[0]

    def random(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Replace uniform and Bernoulli numbers, of which models make masks; run other noise from a seed."""
        has_generator = kwargs.get("generator") is not None
        output = NotImplemented if has_generator else self._handmade_mask(func, args, dict(kwargs))
        return self.run_seeded(lambda: func(*args, **kwargs)) if output is NotImplemented else output

    def _handmade_mask(self, func: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        if func is Tensor.bernoulli_ and (len(args) < 2 or isinstance(args[1], float)):
            return args[0].copy_(self._uniform(args[0]) < (args[1] if len(args) > 1 else kwargs.get("p", 0.5)))
        if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1 and not kwargs:
            return (self._uniform(args[0]) < args[0]).to(args[0].dtype)
        if func is Tensor.uniform_ and len(args) == 1 and not kwargs:
            return args[0].copy_(self._uniform(args[0]))
        if func in (torch.rand, torch.rand_like) and "out" not in kwargs:
            with no_torch_function():
                like = (torch.empty if func is torch.rand else torch.empty_like)(*args, **kwargs)
            return like.copy_(self._uniform(like))
        return NotImplemented

    def _uniform(self, like: Tensor) -> Tensor:
        return self.uniform(like.shape, like.device)


# The functions whose random numbers are a site, and how a mode computes them from all of their arguments.
COMPOSED: dict[Any, Callable[..., Any]] = {
    concrete_dropout: SiteMode.drop_concretely,
    patch_dropout: SiteMode.drop_tokens,
    **{
        getattr(functional, name): partial(SiteMode.drop_blocks, spatial=spatial)
        for name, spatial in SPATIAL_DIMS.items()
    },
}
