"""Checks of the arguments of layers, with torch's errors and warnings where torch has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeGuard

from torch import Tensor

from dropkit.arguments import check
from dropkit.ops import autograd

# stacklevel of a warning in `Layer.check`, so that it points at the line that calls the layer's function.
CALLER = 4


def check_probability(p: Any) -> None:
    """Raise torch's ValueError unless `p` is in [0, 1]; NaN is not."""
    if p < 0.0 or p > 1.0 or p != p:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def is_scheduled(p: Any) -> TypeGuard[Tensor]:
    """Whether a rate is a tensor that operators read, because a compiler or a transform hides its value now.

    So is a rate on a GPU: reading it would wait for the device, and a graph of it could not be captured.
    """
    return isinstance(p, Tensor) and (
        not autograd.can_use_fast_path(p)
        or (p.is_cuda and p.dim() == 0 and p.is_floating_point() and not p.requires_grad)
    )


def read_rate(p: Any) -> Any:
    """A rate as a float, which may wait for a GPU, unless a compiler or a transform hides its value."""
    return float(p) if isinstance(p, Tensor) and autograd.can_use_fast_path(p) else p


def checked_rate(p: Any) -> float | Tensor:
    """Return `p` as a float, or as the tensor that it is where `is_scheduled`.

    Raises:
        ValueError: `p` is out of range.
        TypeError: `p` is a tensor that cannot be a rate.
    """
    if is_scheduled(p):
        check_schedule(p)
        return p
    check_probability(p)
    return float(p)


def check_schedule(p: Any) -> None:
    """Raise TypeError unless a compiled graph can read `p` each time it runs; the value is checked then."""
    if p.dim() != 0 or not p.is_floating_point() or p.requires_grad:
        raise TypeError(
            f"p must be a number or a 0-d floating tensor that does not require grad, got {p.dtype} of "
            f"{tuple(p.shape)}, requires_grad={p.requires_grad}"
        )


def check_shape(name: str, tensor: Tensor | None, shape: Sequence[int]) -> None:
    """Raise ValueError unless `tensor` is None or of this shape."""
    if tensor is not None:
        check(name, tensor.shape == shape, f"of shape {tuple(shape)}", tuple(tensor.shape))


def refuse_random_source(generator: Any, key: Any, where: str, advice: str = "") -> None:
    """Raise NotImplementedError if a generator or a key is given where torch's dropout runs, which takes neither."""
    for name, value in (("generator", generator), ("key", key)):
        if value is not None:
            raise NotImplementedError(f"{name} must be None {where}, got {value}{advice}")


def warn_unless_channels(input: Tensor, name: str, spatial: int) -> None:
    """Give torch's warning if `input` has neither `spatial` + 1 nor `spatial` + 2 dimensions."""
    if input.dim() in (spatial + 1, spatial + 2):
        return
    warnings.warn(
        f"{name}: Received a {input.dim()}-D input to {name}, which is deprecated "
        "and will result in an error in a future release. To retain the behavior "
        "and silence this warning, please use dropout instead. Note that "
        f"{name} exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, "
        f"a channel dimension, and an optional batch dimension (i.e. {spatial + 1}D or {spatial + 2}D inputs).",
        stacklevel=CALLER + 1,
    )
