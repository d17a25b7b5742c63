"""The rules of moment propagation: one entry for each function of torch, made by one of the kinds below.

Elements of a tensor count as independent, and where a function is not linear, as normal. The results of a rule are then
exact for linear functions, rectifiers and limits; those of smooth functions are computed by quadrature, and maxima of
more than two numbers in pairs, whose maxima count as normal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dropkit.containers import map_leaves
from dropkit.dropout_functions import argument, dropout_functions
from dropkit.mc.moments import gaussian
from dropkit.mc.moments.gaussian import Gaussian
from dropkit.mc.moments.moments import RULES, Moments, Rule, refuse

Args = Sequence[Any]
Kwargs = Mapping[str, Any]


def elementwise(moments: Callable[..., Gaussian]) -> Rule:
    """Make the rule of an elementwise function from the moments of its result.

    Args:
        moments: receives the moments of the input, and the other arguments of the function.
    """

    def rule(func: Any, args: Args, kwargs: Kwargs) -> Moments:
        x = _only_random(func, args, kwargs)
        options = {name: value for name, value in kwargs.items() if name != "inplace"}
        return Moments.of(moments(x.gaussian, *args[1:], **options), x.sites)

    return rule


def smooth(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """The rule of an elementwise function without steps, by quadrature."""
    x = _only_random(func, args, kwargs)
    return Moments.of(
        gaussian.quadrature(lambda values: func(values.clone(), *args[1:], **kwargs), x.gaussian), x.sites
    )


def moving(func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The rule of a function that selects, orders or repeats elements, or changes their type."""
    x = _only_random(func, args, kwargs)
    mean, variance = (func(part, *args[1:], **kwargs) for part in x.gaussian)
    if isinstance(mean, Tensor):
        return Moments.of((mean, variance), x.sites)
    return type(mean)(Moments.of(pair, x.sites) for pair in zip(mean, variance, strict=True))


def joining(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """The rule of a function that joins a list of tensors."""
    parts = cast("Sequence[Tensor]", args[0] if args else kwargs["tensors"])
    rest, options = args[1:], {name: value for name, value in kwargs.items() if name != "tensors"}
    means = [part.expectation if isinstance(part, Moments) else part for part in parts]
    variances = [part.variance if isinstance(part, Moments) else torch.zeros_like(part) for part in parts]
    return Moments.of((func(means, *rest, **options), func(variances, *rest, **options)), _sites(parts))


def adding(sign: float) -> Rule:
    """Make the rule of a sum (1) or a difference (-1)."""

    def rule(func: Any, args: Args, kwargs: Kwargs) -> Moments:
        a, b, *rest = (*args, *(kwargs[name] for name in ("other",) if name in kwargs))
        alpha = rest[0] if rest else kwargs.get("alpha", 1)
        sites = _independent(func, a, b)
        weight = sign * alpha
        mean = _mean(a) + weight * _mean(b)
        variance = _variance(a) + weight * weight * _variance(b)
        return Moments.of((mean, variance + torch.zeros_like(mean)), sites)

    return rule


def _multiply(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    a, b = (*args, *kwargs.values())
    sites = _independent(func, a, b)
    variance = _variance(a) * _mean(b) ** 2 + _variance(b) * _mean(a) ** 2 + _variance(a) * _variance(b)
    return Moments.of((_mean(a) * _mean(b), variance), sites)


def _divide(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x, divisor = _only_random(func, args[:1], {}), (*args[1:], *kwargs.values())
    if len(divisor) != 1 or isinstance(divisor[0], Moments):
        refuse(_name(func))
    return Moments.of((x.expectation / divisor[0], x.variance / divisor[0] ** 2), x.sites)


def _negate(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    return Moments.of((-args[0].expectation, args[0].variance.clone()), args[0].sites)


def _subtract_from(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    return RULES[torch.sub](torch.sub, (args[1], args[0], *args[2:]), kwargs)


def layer(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """The rule of a linear layer or a convolution, of (input, weight, bias, ...)."""
    x, weight = _only_random(func, args, kwargs), argument((1, "weight"), args, kwargs, None)
    # Without a bias.
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
    variance = func(x.variance, weight.square(), None, *args[3:], **rest)
    return Moments.of((func(x.expectation, *args[1:], **kwargs), variance), x.sites)


def _product(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """Matrix products, of which one factor is random."""
    parts = (*args, *kwargs.values())
    random = [part for part in parts if isinstance(part, Moments)]
    if len(parts) != 2 or len(random) != 1:
        refuse(f"{_name(func)} of two random tensors")
    squares = [part.variance if isinstance(part, Moments) else part.square() for part in parts]
    return Moments.of((func(*map(_mean, parts)), func(*squares)), random[0].sites)


def _batch_norm(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x = _only_random(func, args, kwargs)
    running_variance = argument((2, "running_var"), args, kwargs, None)
    weight, eps = argument((3, "weight"), args, kwargs, None), argument((7, "eps"), args, kwargs, 1e-5)
    if argument((5, "training"), args, kwargs, False) or running_variance is None:
        refuse("batch_norm with the statistics of the batch")
    scale = (running_variance + eps).rsqrt() * (1 if weight is None else weight)
    scale = scale.view(1, -1, *(1,) * (x.expectation.dim() - 2))
    return Moments.of((func(x.expectation, *args[1:], **kwargs), x.variance * scale.square()), x.sites)


def _mean_over_dims(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x = _only_random(func, args, kwargs)
    mean, variance = (func(part, *args[1:], **kwargs) for part in x.gaussian)
    return Moments.of((mean, variance * (mean.numel() / x.expectation.numel())), x.sites)


def _average_pool(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)."""
    x, dims = _only_random(func, args, kwargs), int(_name(func)[-2])
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    kernel, _, padding, ceil_mode, counts_padding, divisor = (
        argument((index, name), args, kwargs, name == "count_include_pad") for index, name in enumerate(names, start=1)
    )
    if ceil_mode or (any(_tuple(padding or 0, dims)) and not counts_padding):
        refuse(f"{_name(func)} with averages of different numbers of elements")
    mean, variance = (func(part, *args[1:], **kwargs) for part in x.gaussian)
    return Moments.of((mean, variance / (divisor or prod(_tuple(kernel, dims)))), x.sites)


def _adaptive_average_pool(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x, dims = _only_random(func, args, kwargs), int(_name(func)[-2])
    mean, variance = (func(part, *args[1:], **kwargs) for part in x.gaussian)
    for dim in range(-dims, 0):
        size, outputs = x.expectation.shape[dim], mean.shape[dim]
        starts = torch.arange(outputs, device=mean.device) * size // outputs
        ends = -(-torch.arange(1, outputs + 1, device=mean.device) * size // outputs)
        variance = variance / (ends - starts).view(-1, *(1,) * (-dim - 1))
    return Moments.of((mean, variance), x.sites)


def _max_pool(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """max_pool(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)."""
    x, dims = _only_random(func, args, kwargs), int(_name(func)[-2])
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    kernel, stride, padding, dilation, ceil_mode, has_indices = (
        argument((index, name), args, kwargs, None) for index, name in enumerate(names, start=1)
    )
    kernel, dilation = _tuple(kernel, dims), _tuple(dilation or 1, dims)
    if ceil_mode or has_indices or any(size != 1 for size in dilation):
        refuse(f"{_name(func)} with dilation, ceil_mode or return_indices")
    sides = [side for size in reversed(_tuple(padding or 0, dims)) for side in (size, size)]
    # Padding is below every element; not infinite, since infinity times 0 is not a number.
    lowest = torch.finfo(x.expectation.dtype).min / 4
    padded = Gaussian(F.pad(x.expectation, sides, value=lowest), F.pad(x.variance, sides))
    return Moments.of(_largest_in_windows(padded, kernel, _tuple(stride or kernel, dims)), x.sites)


def _adaptive_max_pool(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x, dims = _only_random(func, args, kwargs), int(_name(func)[-2])
    sizes = x.expectation.shape[-dims:]
    outputs = [
        out or size
        for out, size in zip(_tuple(argument((1, "output_size"), args, kwargs, None), dims), sizes, strict=True)
    ]
    if kwargs.get("return_indices") or any(size % out for size, out in zip(sizes, outputs, strict=True)):
        refuse(f"{_name(func)} with return_indices, or to a size that does not divide that of its input")
    kernel = tuple(size // out for size, out in zip(sizes, outputs, strict=True))
    return Moments.of(_largest_in_windows(x.gaussian, kernel, kernel), x.sites)


def _largest_in_windows(x: Gaussian, kernel: Sequence[int], stride: Sequence[int]) -> Gaussian:
    """The maximum over each window of the last dimensions, in pairs."""
    parts = [x]
    for dim, (size, step) in enumerate(zip(kernel, stride, strict=True), start=-len(kernel)):
        count = (x.mean.shape[dim] - size) // step + 1
        parts = [
            Gaussian(*(_every(moment, dim, first, step, count) for moment in part))
            for part in parts
            for first in range(size)
        ]
    while len(parts) > 1:
        pairs = list(zip(parts[::2], parts[1::2], strict=False))
        parts = [gaussian.maximum(a, b) for a, b in pairs] + parts[2 * len(pairs) :]
    return parts[0]


def _every(tensor: Tensor, dim: int, first: int, step: int, count: int) -> Tensor:
    index = [slice(None)] * tensor.dim()
    index[dim] = slice(first, first + (count - 1) * step + 1, step)
    return tensor[tuple(index)]


def _pad(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    x, mode = _only_random(func, args, kwargs), argument((2, "mode"), args, kwargs, "constant")
    sides = argument((1, "pad"), args, kwargs, None)
    # The variance of a constant is 0.
    return Moments.of((func(x.expectation, *args[1:], **kwargs), func(x.variance, sides, mode)), x.sites)


def _interpolate(func: Any, args: Args, kwargs: Kwargs) -> Any:
    mode = argument((3, "mode"), args, kwargs, "nearest")
    return moving(func, args, kwargs) if mode.startswith("nearest") else refuse(f"interpolate with mode {mode!r}")


def _inactive_dropout(func: Any, args: Args, kwargs: Kwargs) -> Any:
    p, training, _ = dropout_functions()[func].arguments(args, kwargs)
    return refuse(f"{_name(func)} with a rate of 1") if training is not False and p else args[0]


def _prelu(x: Gaussian, weight: Tensor) -> Gaussian:
    shape = (1, -1, *(1,) * (x.mean.dim() - 2)) if weight.numel() > 1 else ()
    return gaussian.leaky_relu(x, weight.view(shape))


def _hardtanh(x: Gaussian, min_val: float = -1.0, max_val: float = 1.0) -> Gaussian:
    return gaussian.clamp(x, min_val, max_val)


def _hardsigmoid(x: Gaussian) -> Gaussian:
    return gaussian.clamp(Gaussian(x.mean / 6 + 0.5, x.variance / 36), 0, 1)


def _mean(value: Any) -> Any:
    return value.expectation if isinstance(value, Moments) else value


def _variance(value: Any) -> Any:
    return value.variance if isinstance(value, Moments) else 0


def _sites(values: Any) -> frozenset[int]:
    return frozenset[int]().union(*(value.sites for value in values if isinstance(value, Moments)))


def _independent(func: Any, a: Any, b: Any) -> frozenset[int]:
    """The dropouts that two arguments depend on; an error if one is common to both."""
    if isinstance(a, Moments) and isinstance(b, Moments) and a.sites & b.sites:
        refuse(f"{_name(func)} of two tensors that depend on the same dropout")
    return _sites((a, b))


def _only_random(func: Any, args: Args, kwargs: Kwargs) -> Moments:
    """The first argument; an error if another one is random."""
    first = args[0] if args else kwargs.get("input")
    others: list[Any] = []
    map_leaves(others.append, [*args[1:], *kwargs.values()])
    if not isinstance(first, Moments) or any(isinstance(value, Moments) and value is not first for value in others):
        refuse(f"{_name(func)} with random arguments other than its input")
    return first


def _tuple(value: Any, dims: int) -> tuple[Any, ...]:
    values: tuple[Any, ...] = tuple(cast("Any", value)) if isinstance(value, (tuple, list)) else (value,)
    return values * dims if len(values) == 1 else values


def _name(func: Any) -> str:
    return getattr(func, "__name__", str(func))


def _named(rule: Rule, names: str) -> dict[Any, Rule]:
    """The functions and tensor methods of torch with these names, all with this rule."""
    owners: tuple[Any, ...] = (torch, torch.special, F, Tensor)
    return {getattr(owner, name): rule for owner in owners for name in names.split() if hasattr(owner, name)}


RULES.update(
    {
        **_named(layer, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
        **_named(_product, "matmul mm bmm __matmul__ __rmatmul__"),
        **_named(_batch_norm, "batch_norm"),
        **_named(adding(1), "add add_ __add__ __radd__ __iadd__"),
        **_named(adding(-1), "sub sub_ subtract subtract_ __sub__ __isub__"),
        **_named(_subtract_from, "rsub __rsub__"),
        **_named(_multiply, "mul mul_ multiply multiply_ __mul__ __rmul__ __imul__"),
        **_named(_divide, "div div_ divide divide_ true_divide true_divide_ __truediv__ __itruediv__"),
        **_named(_negate, "neg negative __neg__"),
        **_named(elementwise(gaussian.relu), "relu relu_"),
        **_named(elementwise(partial(gaussian.clamp, min=0, max=6)), "relu6"),
        **_named(elementwise(gaussian.leaky_relu), "leaky_relu leaky_relu_"),
        **_named(elementwise(_prelu), "prelu"),
        **_named(elementwise(_hardtanh), "hardtanh hardtanh_"),
        **_named(elementwise(gaussian.clamp), "clamp clamp_ clip clip_"),
        **_named(elementwise(_hardsigmoid), "hardsigmoid"),
        **_named(
            smooth, "sigmoid sigmoid_ expit tanh tanh_ gelu silu elu elu_ selu selu_ celu celu_ mish softplus hardswish"
        ),
        **_named(_max_pool, "max_pool1d max_pool2d max_pool3d"),
        **_named(_adaptive_max_pool, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
        **_named(_average_pool, "avg_pool1d avg_pool2d avg_pool3d"),
        **_named(_adaptive_average_pool, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        **_named(_mean_over_dims, "mean"),
        **_named(moving, "sum"),
        **_named(_pad, "pad"),
        **_named(_interpolate, "interpolate"),
        **_named(joining, "cat concat concatenate stack hstack vstack"),
        **_named(
            moving,
            "clone contiguous detach to float double cpu cuda squeeze unsqueeze view view_as reshape flatten unflatten "
            "ravel transpose swapaxes permute movedim moveaxis t expand expand_as repeat flip roll narrow select "
            "index_select split chunk tensor_split unbind __getitem__ pixel_shuffle pixel_unshuffle channel_shuffle",
        ),
        **{cast("Any", attribute).__get__: moving for attribute in (Tensor.T, Tensor.mT)},
        **dict.fromkeys(dropout_functions(), _inactive_dropout),
    }
)
