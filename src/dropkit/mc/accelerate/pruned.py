"""Thinned networks: units that a mask drops are cut out of the matrix products on both sides of it.

Where all inputs of a batch share a mask, what it drops is whole columns. A `Thin` stands for a tensor of which only the
kept slices exist; a `Lazy` for the result of a linear layer or a convolution that waits for the mask behind it, so that
what will be dropped is never computed. Any function that knows neither gets the tensor that they stand for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.torch_private import make_unreadable, no_torch_function, wrapper_subclass, write_count

# Fewer rows than this cost less than the cutting.
WORTH = 64


class Stale(Exception):
    """What a `Lazy` waits to read has been written since: layer number `place` of the pass must not wait."""

    def __init__(self, place: int) -> None:
        super().__init__(f"what layer {place} of the pass reads was written before its output was dropped")
        self.place = place


class Part(Tensor):
    """A tensor that does not exist as such until something asks for it; a subclass says how it is made."""

    full: Tensor | None

    @staticmethod
    def made(kind: type[Any], shape: Sequence[int], like: Tensor) -> Any:
        part = wrapper_subclass(kind, tuple(shape), dtype=like.dtype, device=like.device)
        # Code that no rule sees must not find memory where there is none.
        make_unreadable(part)
        part.full = None
        return part

    def make(self) -> Tensor:
        raise NotImplementedError

    def whole(self) -> Tensor:
        """The tensor; made once, so that what is written into it is seen by all who hold this part."""
        if self.full is None:
            self.full = self.make()
        return self.full

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return deepcopy(self.whole(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return cast("Any", self.whole()).__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*_wholes(args), **_wholes(kwargs or {}))


class Thin(Part):
    """Kept slices of a tensor whose other slices are 0.

    Attributes:
        slices: what is kept, times `scale` what they stand for.
        kept: places along the dimension `along`, int64.
        aliased: whether another shares its slices.
    """

    slices: Tensor
    kept: Tensor
    along: int
    scale: float
    aliased: bool

    def make(self) -> Tensor:
        whole = self.slices.new_zeros(self._size())
        return whole.index_copy_(self.along, self.kept, self.slices * self.scale)

    def _size(self) -> Sequence[int]:
        with no_torch_function():
            return self.shape

    def scaled(self) -> Tensor:
        return self.slices if self.scale == 1 else self.slices * self.scale


class Lazy(Part):
    """A linear layer or a convolution that has not run yet.

    Attributes:
        source: its input, or what is kept of that.
        cut_from: the places that are kept of the input, and their scale; None if it is whole.
        along: the dimension of its outputs, which can be cut.
        then: functions of single units that follow.
        place: which of the pass's layers it is.
    """

    func: Any
    source: Tensor
    cut_from: tuple[Tensor, float] | None
    weight: Tensor
    bias: Tensor | None
    rest: tuple[tuple[Any, ...], dict[str, Any]]
    along: int
    then: tuple[Callable[[Tensor], Tensor], ...]
    versions: tuple[int, ...]
    place: int

    def make(self) -> Tensor:
        return self.cut(None)

    def cut(self, kept: Tensor | None) -> Tensor:
        """The outputs with these places alone.

        Raises:
            Stale: what it reads has been written.
        """
        if _versions(self) != self.versions:
            raise Stale(self.place)
        weight, bias = self.weight, self.bias
        if kept is not None:
            weight, bias = weight.index_select(0, kept), None if bias is None else bias.index_select(0, kept)
        if self.cut_from is not None:
            places, scale = self.cut_from
            # The fewer numbers to scale: weights, not activations.
            weight = weight.index_select(1, places) * scale
        args, kwargs = self.rest
        output = self.func(self.source, weight, bias, *args, **kwargs)
        for function in self.then:
            output = function(output)
        return output


def thinned(input: Tensor, kept: Tensor, dim: int, scale: float) -> Thin:
    """`input` with what is not kept along `dim` cut out, and the rest to be scaled."""
    with no_torch_function():
        shape = input.shape
    if isinstance(input, Lazy) and input.full is None and input.along == dim:
        values = input.cut(kept)
    else:
        values = (input.whole() if isinstance(input, Part) else input).index_select(dim, kept)
    return _thin(values, kept, dim, scale, shape)


def call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run a function on parts: by its rule, or on the tensors that they stand for."""
    if _writes(func, kwargs) and any(isinstance(one, Thin) and one.aliased for one in args):
        raise NotImplementedError("a view of a thinned tensor is written")
    rule = _RULES.get(func)
    if rule is not None:
        output = rule(func, args, kwargs)
        if output is not NotImplemented:
            return output
    if _is_about_shape(func):
        with no_torch_function():
            return func(*args, **kwargs)
    output = func(*_wholes(args), **_wholes(kwargs))
    if _writes(func, kwargs) and any(_reshaped(one) for one in args):
        raise NotImplementedError(f"{func.__name__} of a thinned tensor changes its shape")
    return output


def _reshaped(value: Any) -> bool:
    if not isinstance(value, Part) or value.full is None:
        return False
    with no_torch_function():
        return value.shape != value.full.shape


def _writes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether it is in place."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or bool(kwargs.get("inplace"))


def living(parts: Iterable[weakref.ref[Part]]) -> list[Part]:
    """Those that something still holds."""
    return [part for ref in parts if (part := ref()) is not None]


def settle(model: nn.Module) -> None:
    """Put tensors in the place of the parts that a pass has left in attributes of the model."""
    seen: set[int] = set()
    for module in model.modules():
        _settle(vars(module), seen)


def _settle(container: dict[Any, Any] | list[Any], seen: set[int]) -> None:
    """In a dict or a list, and in what these hold."""
    if id(container) in seen:
        return
    seen.add(id(container))
    entries: Iterable[tuple[Any, Any]] = container.items() if isinstance(container, dict) else enumerate(container)
    for place, value in list(entries):
        if isinstance(value, (dict, list)):
            _settle(cast("Any", value), seen)
        elif isinstance(value, (Part, tuple)):
            container[place] = _wholes(value)


def lazily(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], place: int) -> Any:
    """A linear layer or convolution of any tensor, as a `Lazy`; NotImplemented where it cannot be one."""
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    source, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
    rest = tuple(args[3:]), given
    linear = func is F.linear
    with no_torch_function():
        shape, groups = source.shape, rest[1].get("groups", rest[0][3] if len(rest[0]) > 3 else 1)
        dim = len(shape) - 1 if linear else 1
        rows = shape.numel() // max(shape[dim], 1) if shape else 0
        if source.is_inference():
            return NotImplemented  # whose writes are not counted
        if rows < WORTH or weight.dim() < 2 or (not linear and (groups != 1 or len(shape) != weight.dim())):
            return NotImplemented
        if torch.is_autocast_enabled(weight.device.type):
            return NotImplemented  # what comes of it has another dtype than its weight
        cut_from = None
        if isinstance(source, Thin) and source.full is None and source.along == dim:
            # As it is now: what becomes of the input later is not this layer's.
            source, cut_from = source.slices, (source.kept, source.scale)
        elif isinstance(source, Part):
            source = source.whole()
    size = (*shape[:-1], weight.shape[0]) if linear else _conv_shape(func, shape, weight, rest)
    lazy = Part.made(Lazy, size, weight)
    lazy.func, lazy.source, lazy.cut_from, lazy.weight, lazy.bias = func, source, cut_from, weight, bias
    lazy.rest, lazy.along, lazy.then, lazy.place = rest, dim, (), place
    lazy.versions = _versions(lazy)
    return lazy


def _conv_shape(func: Any, shape: Sequence[int], weight: Tensor, rest: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    like = torch.empty(tuple(shape), device="meta", dtype=weight.dtype)
    return func(like, weight.to("meta"), None, *rest[0], **rest[1]).shape


def _versions(lazy: Lazy) -> tuple[int, ...]:
    read = (lazy.source, lazy.weight, lazy.bias)
    return tuple(0 if one is None else write_count(one) for one in read)


def _thin(values: Tensor, kept: Tensor, dim: int, scale: float, shape: Sequence[int]) -> Thin:
    thin: Thin = Part.made(Thin, shape, values)
    thin.slices, thin.kept, thin.along, thin.scale, thin.aliased = values, kept, dim, scale, False
    return thin


def _elementwise(zero_stays: bool, homogeneous: bool = False) -> Callable[..., Any]:
    """A function of single elements; of a `Thin` if it leaves 0 as it is."""

    def rule(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        part, rest = args[0], args[1:]
        others = any(isinstance(one, Tensor) for one in (*rest, *kwargs.values()))
        if not isinstance(part, Part) or part.full is not None or others:
            return NotImplemented
        in_place = _writes(func, kwargs)
        if isinstance(part, Lazy):
            follower = part if in_place else _copy(part)
            # What a layer has just computed is nobody else's.
            relu = func in _RELU
            follower.then = (*part.then, torch.relu_ if relu else lambda values: func(values, *rest, **kwargs))
            return follower
        if not isinstance(part, Thin) or not zero_stays:
            return NotImplemented
        if homogeneous or part.scale == 1:
            values, scale = func(part.slices, *rest, **kwargs), part.scale
        else:
            values, scale = func(part.slices.mul_(part.scale) if in_place else part.scaled(), *rest, **kwargs), 1.0
        if in_place:
            part.slices, part.scale = values, scale
            return part
        with no_torch_function():
            return _thin(values, part.kept, part.along, scale, part.shape)

    return rule


def _copy(lazy: Lazy) -> Lazy:
    with no_torch_function():
        copy: Lazy = Part.made(Lazy, lazy.shape, lazy.weight)
    for name, value in vars(lazy).items():
        setattr(copy, name, value)
    return copy


def _of_channels(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Pooling: each channel by itself, and one of zeros stays so."""
    part = args[0]
    if not isinstance(part, Thin) or part.full is not None or part.along != 1:
        return NotImplemented
    # Of fewer dimensions the first is that of the channels.
    if part.slices.dim() != _POOLS[func]:
        return NotImplemented
    values = func(part.slices, *args[1:], **kwargs)
    if not isinstance(values, Tensor):
        return NotImplemented
    with no_torch_function():
        shape = (*part.shape[:2], *values.shape[2:])
    return _thin(values, part.kept, 1, part.scale, shape)


def _flattened(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Channels and what is in them become one dimension."""
    part = args[0]
    if not isinstance(part, Thin) or part.full is not None or part.along != 1:
        return NotImplemented
    with no_torch_function():
        shape = part.shape
        size = func(torch.empty(shape, device="meta"), *args[1:], **kwargs).shape
    each = shape[2:].numel()
    if tuple(size) != (shape[0], shape[1] * each):
        return NotImplemented
    kept = (part.kept[:, None] * each + torch.arange(each, device=part.kept.device)).flatten()
    view = _thin(part.slices.flatten(1), kept, 1, part.scale, size)
    part.aliased = view.aliased = True
    return view


def _is_about_shape(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return name in _ABOUT_SHAPE


def _wholes(value: Any) -> Any:
    """The same with tensors in the place of parts, also in lists, tuples and dicts."""
    if isinstance(value, Part):
        return value.whole()
    if type(value) in (list, tuple):
        return cast("Any", type(value))(_wholes(one) for one in value)
    if isinstance(value, dict):
        return {name: _wholes(one) for name, one in cast("dict[Any, Any]", value).items()}
    return value


_ABOUT_SHAPE = frozenset(
    {
        "shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_cpu", "requires_grad", "is_sparse", "is_nested",
        "dim", "size", "numel", "is_floating_point", "is_complex", "__len__", "ndimension", "nelement", "element_size",
        "is_quantized", "is_mkldnn", "is_meta", "is_mps", "is_xpu", "is_leaf", "grad_fn", "is_inference",
    }
)  # fmt: skip
_KEEP_ZERO = (
    F.gelu, F.silu, F.elu, F.elu_, F.selu, F.selu_, F.celu, F.celu_, F.mish, F.relu6, F.hardswish, F.softsign,
    F.tanhshrink, F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, torch.selu, torch.celu,
)  # fmt: skip
_RELU = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_HOMOGENEOUS = (
    *_RELU, F.leaky_relu, F.leaky_relu_, torch.abs, Tensor.abs,
)  # fmt: skip
_MOVE_ZERO = (F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.softplus, F.hardsigmoid)
# With the dimensions of a batch.
_POOLS = {
    torch.max_pool1d: 3, F.max_pool1d: 3, F.avg_pool1d: 3,
    torch.max_pool2d: 4, F.max_pool2d: 4, F.avg_pool2d: 4, F.adaptive_avg_pool2d: 4,
}  # fmt: skip
_FLATTENING = (torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape)

_RULES: dict[Any, Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]] = {
    **dict.fromkeys(_KEEP_ZERO, _elementwise(zero_stays=True)),
    **dict.fromkeys(_HOMOGENEOUS, _elementwise(zero_stays=True, homogeneous=True)),
    **dict.fromkeys(_MOVE_ZERO, _elementwise(zero_stays=False)),
    **dict.fromkeys(_POOLS, _of_channels),
    **dict.fromkeys(_FLATTENING, _flattened),
}
# What begins a `Lazy`, whatever its input.
AFFINE = frozenset({F.linear, F.conv1d, F.conv2d, F.conv3d})
