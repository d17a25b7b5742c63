"""A mode for which every dropout is a site: a tensor that goes in, and a mask for it.

What draws inside, attention and recurrent networks, is taken apart until its dropout is such a site.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence

from dropkit.dropout_functions import DropoutFunction
from dropkit.kernels.params import MakeParams, inverted
from dropkit.mc.batch_dim import Layout
from dropkit.mc.mode import Args, Kwargs, Mode
from dropkit.nn import LAYERS as DROPOUTS
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MaskShape
from dropkit.torch_private import no_torch_function, pack_padded, pad_packed

# By the names of functions and of torch's operators, in place or not.
_LAYERS: dict[str, Layer] = {
    name + end: layer
    for layer in DROPOUTS
    for name in (layer.function.__name__, layer.counterpart and layer.counterpart.operator)
    if name
    for end in ("", "_")
}
_LAYERS["native_dropout"] = _LAYERS["dropout"]


# The order in which the sequences stand that this thread's recurrent network was given.
_here = threading.local()


@contextmanager
def packed_order() -> Generator[None]:
    """Note how packed sequences were sorted: the functions that run them are not told."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.RNNBase) and args and isinstance(args[0], PackedSequence):
            _here.order = args[0].sorted_indices

    hook = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def forked(seed: int | None = None) -> Generator[None]:
    """For the length of a `with` block torch's generators go a way of their own, from this seed if there is one.

    `torch.manual_seed` would seed those of devices, too, and of one that is not in use yet for as soon as it is.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        if seed is not None:
            for generator in (torch.default_generator, *(torch.cuda.default_generators[one] for one in devices)):
                generator.manual_seed(seed)
        yield


@dataclass(frozen=True, slots=True)
class Draw:
    """How a site drops.

    Attributes:
        p: expected fraction dropped, in (0, 1).
        rule: from `p` to what kept and dropped elements become.
        unit: from an input to the shape of its coins; None for one coin an element.
        inplace: write over the input.
        layout: where the inputs lie, if that is known.
    """

    p: float
    rule: MakeParams = inverted
    unit: Callable[[Tensor], MaskShape] | None = None
    inplace: bool = False
    layout: Layout | None = None


class Sited(Mode):
    @abstractmethod
    def site(self, input: Tensor, draw: Draw) -> Tensor:
        """The next site: drop `input`."""

    @abstractmethod
    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        """The next site, where a mask is made by hand: numbers in [0, 1) of this shape, float64."""

    @abstractmethod
    def seeded(self, draw: Callable[[], Any]) -> Any:
        """The next site, where it is not known what is drawn."""

    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        input = args[0] if args else kwargs["input"]
        layer = _LAYERS.get(function.name)
        if layer is None or not isinstance(input, Tensor) or input.layout is not torch.strided:
            return self.seeded(lambda: func(*args, **kwargs))
        layer = layer.called_with(kwargs)
        _, _, inplace = function.arguments(args, kwargs)
        output = self.site(input, Draw(p, layer.make_params, layer.mask_shape, inplace))
        return (output, output != 0) if function.name == "native_dropout" else output

    def attention(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        if "scaled_dot_product_attention" not in function.name:
            return self.seeded(lambda: func(*args, **kwargs))
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
        """What torch documents for `F.scaled_dot_product_attention`, with its weights as a site."""
        if enable_gqa:
            key, value = (one.repeat_interleave(query.size(-3) // one.size(-3), -3) for one in (key, value))
        if is_causal:
            attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
        scores = query @ key.mT * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = torch.softmax(scores, -1)
        if attn_mask is not None:
            # As in torch, a row with nothing to look at is 0.
            weights = weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
        return self.site(weights, Draw(dropout_p)) @ value

    def recurrent(self, func: Any, args: list[Any], packed: bool) -> Any:
        with self:
            return self._layers(func, args[: 1 + packed], *args[1 + packed :])

    def _layers(
        self,
        func: Any,
        inputs: list[Any],
        state: Any,
        params: list[Tensor],
        biases: bool,
        layers: int,
        p: float,
        train: bool,
        bidirectional: bool,
        *batch_first: bool,
    ) -> Any:
        """Layer by layer, with a site between each two."""
        output, directions, each = inputs[0], 1 + bidirectional, len(params) // layers
        states: list[Any] = []
        for layer in range(layers):
            if layer:
                output = self.site(output, Draw(p)) if len(inputs) == 1 else self._packed_site(output, inputs[1], p)
            own = slice(layer * directions, (layer + 1) * directions)
            start = state[own] if isinstance(state, Tensor) else [one[own] for one in state]
            given = params[layer * each : (layer + 1) * each]
            output, *last = func(output, *inputs[1:], start, given, biases, 1, 0.0, False, bidirectional, *batch_first)
            states.append(last)
        return output, *(torch.cat(ends) for ends in zip(*states, strict=True))

    def _packed_site(self, data: Tensor, sizes: Tensor, p: float) -> Tensor:
        """Sequences of several lengths, step after step, the longest first: for the mask in the order of the inputs."""
        order: Tensor | None = getattr(_here, "order", None)
        padded, lengths = pad_packed(data, sizes, False, 0.0, len(sizes))
        if order is not None:
            padded = padded.index_select(1, order.argsort())
        dropped = self.site(padded, Draw(p, layout=Layout(1)))
        if order is not None:
            dropped = dropped.index_select(1, order)
        return pack_padded(dropped, lengths.cpu(), False)[0]

    def random(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Masks made by hand are sites; other noise is drawn from a seeded generator."""
        made = NotImplemented if kwargs.get("generator") is not None else self._by_hand(func, args, dict(kwargs))
        return self.seeded(lambda: func(*args, **kwargs)) if made is NotImplemented else made

    def _by_hand(self, func: Any, args: Args, kwargs: dict[str, Any]) -> Any:
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
