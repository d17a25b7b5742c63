"""Dropout with what stands around it, on a GPU: calls of the kernels in `norms` and `activations`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.kernels.gpu import as_bits, constants, key_there, parts, power_of_two, there
from dropkit.kernels.params import DropoutParams

# A row lies in the registers of one program.
MOST_COLUMNS = 2**14

_BLOCK = 1024
# Programs of the backward pass of a norm for each multiprocessor: each writes a row of gradients of its own.
_FOR_EACH = 4


def norm_forward(
    input: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    row_scale: Tensor | None,
    key: Tensor | int,
    values: DropoutParams | None,
    eps: float,
    centred: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm of `residual + row_scale * drop(input)` along the last dimension.

    Args:
        input, residual: contiguous, of one shape and dtype.
        row_scale: contiguous, of the shape without the last dimension.
        values: None to drop nothing.
        centred: of LayerNorm; else of RMSNorm.

    Returns:
        The norm, the sum, and of each row its mean and 1 / its standard deviation, float32.
    """
    key, columns = key_there(key, input), input.shape[-1]
    rows = input.numel() // columns
    output, summed = torch.empty_like(input), torch.empty_like(input)
    mean, spread = (torch.empty(rows, dtype=torch.float32, device=input.device) for _ in range(2))
    threshold, scale = _drawn(values)
    with there(input):
        _norms().forward[(rows,)](
            output, summed, mean, spread, input, residual,
            _or(weight, input), _or(bias, input), _or(row_scale, input), key, threshold, scale, columns, as_bits(eps),
            **_row_constants(columns, key, values, weight, bias, row_scale, centred),
        )  # fmt: skip
    return output, summed, mean, spread


def norm_backward(
    grad_output: Tensor,
    grad_summed: Tensor | None,
    summed: Tensor,
    mean: Tensor,
    spread: Tensor,
    weight: Tensor | None,
    bias: bool,
    row_scale: Tensor | None,
    key: Tensor | int,
    values: DropoutParams | None,
    centred: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, residual, weight and bias."""
    key, columns = key_there(key, summed), summed.shape[-1]
    rows = summed.numel() // columns
    programs = min(rows, _multiprocessors(summed.device) * _FOR_EACH)
    each = parts(rows, programs)
    programs = parts(rows, each)
    grad_input, grad_residual = torch.empty_like(summed), torch.empty_like(summed)
    of_weight, of_bias = (torch.empty(programs, columns, dtype=torch.float32, device=summed.device) for _ in range(2))
    threshold, scale = _drawn(values)
    with there(summed):
        _norms().backward[(programs,)](
            grad_input, grad_residual, of_weight, of_bias, grad_output, _or(grad_summed, grad_output),
            summed, mean, spread, _or(weight, summed), _or(row_scale, summed),
            key, threshold, scale, rows, columns, each,
            GRAD_SUMMED=grad_summed is not None,
            **_row_constants(columns, key, values, weight, summed if bias else None, row_scale, centred),
        )  # fmt: skip
    grad_weight = None if weight is None else of_weight.sum(0).to(weight.dtype)
    return grad_input, grad_residual, grad_weight, of_bias.sum(0).to(summed.dtype) if bias else None


def activation_forward(
    input: Tensor, bias: Tensor | None, residual: Tensor, activation: str, key: Tensor | int, values: DropoutParams
) -> Tensor:
    """`residual + drop(activation(input + bias))`; all contiguous, `bias` of the last dimension's size."""
    output, key = torch.empty_like(input), key_there(key, input)
    with there(input):
        _activations().forward[_grid(input)](
            output, input, _or(bias, input), residual, key, *_drawn(values), input.numel(), input.shape[-1],
            **_flat_constants(key, bias, activation),
        )  # fmt: skip
    return output


def activation_backward(
    grad: Tensor, input: Tensor, bias: Tensor | None, activation: str, key: Tensor | int, values: DropoutParams
) -> Tensor:
    """The gradient of `input + bias`."""
    output, key = torch.empty_like(input), key_there(key, input)
    with there(input):
        _activations().backward[_grid(input)](
            output, grad, input, _or(bias, input), key, *_drawn(values), input.numel(), input.shape[-1],
            **_flat_constants(key, bias, activation),
        )  # fmt: skip
    return output


def _drawn(values: DropoutParams | None) -> tuple[int, int]:
    """Threshold and scale: plain dropout has no other numbers."""
    return (0, 0) if values is None else (values.threshold, as_bits(values.scale))


def _row_constants(
    columns: int,
    key: Tensor | int,
    values: DropoutParams | None,
    weight: Tensor | None,
    bias: Tensor | None,
    row_scale: Tensor | None,
    centred: bool,
) -> dict[str, Any]:
    across = max(8, power_of_two(columns))
    return {
        **constants(key),
        "DROPS": values is not None,
        "ALIGNED": columns % 4 == 0,
        "CENTRED": centred,
        "WEIGHT": weight is not None,
        "BIAS": bias is not None,
        "ROW_SCALE": row_scale is not None,
        "COLUMNS": across,
        # Eight elements a thread, so that a row and the sums of rows fit the registers; 1,024 threads at most, and on
        # AMD's they are half as many warps.
        "num_warps": min(1024 // warp_size(), max(1, across // 256)),
    }


def _flat_constants(key: Tensor | int, bias: Tensor | None, activation: str) -> dict[str, Any]:
    place = getattr(_activations(), activation.upper()).value
    return {**constants(key), "ACTIVATION": place, "BIAS": bias is not None, "BLOCK": _BLOCK}


def _grid(input: Tensor) -> tuple[int]:
    return (parts(input.numel(), _BLOCK),)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Something to point at, where the kernel reads nothing."""
    return other if tensor is None else tensor


@lru_cache(maxsize=8)
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 if device.type == "cpu" else 64
    return int(cast("Any", torch.cuda.get_device_properties(device)).multi_processor_count)


def warp_size() -> int:
    """Threads that go together: 64 on AMD's accelerators, 32 elsewhere."""
    return 64 if torch.version.hip else 32


@lru_cache(maxsize=1)
def _norms() -> Any:
    from dropkit.kernels.gpu import norms  # Triton takes a while to import

    return norms


@lru_cache(maxsize=1)
def _activations() -> Any:
    from dropkit.kernels.gpu import activations

    return activations
