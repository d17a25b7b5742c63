"""Dropout fused with its neighbours on a GPU: launches of the kernels in `norms` and `activations`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from dropkit.kernels.gpu import (
    cdiv,
    constants,
    double_bits,
    next_power_of_2,
    readable_key,
    triton_kernels,
)
from dropkit.kernels.gpu.launch import Constants, launcher
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import DropoutParams

# A row lies in the registers of one program.
MAX_COLUMNS = 2**14

# Those whose sums over rows do, besides the row.
_COLUMNS_WITH_SUMS = 2**13

_BLOCK = 1024
# In the backward pass of a norm, where each program writes a row of gradients of its own.
_PROGRAMS_PER_MULTIPROCESSOR = 4


class Norm(NamedTuple):
    """The norm of `residual + row_scale * drop(input)` over the last dimension, without the two inputs.

    Attributes:
        weight, bias: of the size of the last dimension; None for 1 and 0.
        row_scale: of the shape without the last dimension, contiguous; None for 1.
        mask: of the dropout; None to drop nothing.
        eps: added to the variance.
        is_centred: whether the mean is subtracted, as LayerNorm does and RMSNorm does not.
    """

    weight: Tensor | None
    bias: Tensor | None
    row_scale: Tensor | None
    mask: Mask | None
    eps: float
    is_centred: bool


def norm_forward(input: Tensor, residual: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm of contiguous tensors of one shape and dtype.

    Returns:
        The norm, the sum, and of each row its mean and 1 / its standard deviation, float32.
    """
    columns = input.shape[-1]
    rows = input.numel() // columns
    output, summed = torch.empty_like(input), torch.empty_like(input)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=input.device) for _ in range(2))
    key, threshold, scale = _mask_arguments(norm.mask, input)
    parameters = (_pointer(tensor, input) for tensor in (norm.weight, norm.bias, norm.row_scale))
    numbers = key, threshold, scale, columns, double_bits(norm.eps)
    launcher("norms", "forward")(
        rows,
        (output, summed, mean, rstd, input, residual, *parameters, *numbers),
        _row_constants(columns, warp_size(), type(key) is not int, **_given(norm)),
    )
    return output, summed, mean, rstd


def norm_backward(
    grad_output: Tensor, grad_summed: Tensor | None, summed: Tensor, mean: Tensor, rstd: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, residual, weight and bias."""
    columns, weight = summed.shape[-1], norm.weight
    rows = summed.numel() // columns
    halves = 2 if columns > _COLUMNS_WITH_SUMS else 1
    programs = min(rows, _multiprocessors(summed.device) * _PROGRAMS_PER_MULTIPROCESSOR // halves)
    rows_per_program = cdiv(rows, programs)
    programs = cdiv(rows, rows_per_program)
    grad_input, grad_residual = torch.empty_like(summed), torch.empty_like(summed)
    weight_sums, bias_sums = (
        torch.empty(programs, columns, dtype=torch.float32, device=summed.device) for _ in range(2)
    )
    key, threshold, scale = _mask_arguments(norm.mask, summed)
    given = {"GRAD_SUMMED": grad_summed is not None, **_given(norm)}
    written = grad_input, grad_residual, weight_sums, bias_sums
    gradients = grad_output, _pointer(grad_summed, grad_output)
    saved = summed, mean, rstd, _pointer(weight, summed), _pointer(norm.row_scale, summed)
    launcher("norms", "backward")(
        programs * halves,
        (*written, *gradients, *saved, key, threshold, scale, rows, columns, rows_per_program),
        _row_constants(columns, warp_size(), type(key) is not int, HALVES=halves == 2, **given),
    )
    grad_weight = None if weight is None else weight_sums.sum(0).to(weight.dtype)
    grad_bias = None if norm.bias is None else bias_sums.sum(0).to(summed.dtype)
    return grad_input, grad_residual, grad_weight, grad_bias


def activation_forward(input: Tensor, bias: Tensor | None, residual: Tensor, activation: str, mask: Mask) -> Tensor:
    """`residual + drop(activation(input + bias))`; all contiguous, `bias` of the last dimension's size."""
    output = torch.empty_like(input)
    key, *numbers = _mask_arguments(mask, input)
    launcher("activations", "forward")(
        cdiv(input.numel(), _BLOCK),
        (output, input, _pointer(bias, input), residual, key, *numbers, input.numel(), input.shape[-1]),
        _flat_constants(type(key) is not int, bias is not None, activation, _group(input), warp_size()),
    )
    return output


def activation_backward(grad: Tensor, input: Tensor, bias: Tensor | None, activation: str, mask: Mask) -> Tensor:
    """The gradient of `input + bias`."""
    output = torch.empty_like(input)
    key, *numbers = _mask_arguments(mask, input)
    launcher("activations", "backward")(
        cdiv(input.numel(), _BLOCK),
        (output, grad, input, _pointer(bias, input), key, *numbers, input.numel(), input.shape[-1]),
        _flat_constants(type(key) is not int, bias is not None, activation, _group(input), warp_size()),
    )
    return output


def _mask_arguments(mask: Mask | None, input: Tensor) -> tuple[Tensor | int, int, int]:
    """Key, threshold and scale: inverted dropout has no other numbers."""
    if mask is None:
        return 0, 0, 0
    params = mask.params.resolve()
    assert isinstance(params, DropoutParams)
    return readable_key(mask.key, input), params.threshold, double_bits(params.scale)


def _given(norm: Norm) -> dict[str, bool]:
    """The constants that say which parts a norm has."""
    return {
        "DROPS": norm.mask is not None,
        "CENTRED": norm.is_centred,
        "WEIGHT": norm.weight is not None,
        "BIAS": norm.bias is not None,
        "ROW_SCALE": norm.row_scale is not None,
    }


@lru_cache(maxsize=256)
def _row_constants(columns: int, warp_size: int, key_in_memory: bool, **given: bool) -> Constants:
    across = max(8, next_power_of_2(columns) // (2 if given.get("HALVES") else 1))
    # Eight elements a thread, so that a row and the sums of rows fit the registers. At most 1,024 threads, which on
    # AMD's GPUs are half as many warps.
    warps = min(1024 // warp_size, max(1, across // (8 * warp_size)))
    return constants(key_in_memory, ALIGNED=columns % 4 == 0, COLUMNS=across, num_warps=warps, **given)


def _group(input: Tensor) -> int:
    """How many neighbours a load of 16 bytes holds; 1 if rows end within it."""
    group = 16 // input.element_size()
    return group if input.shape[-1] % group == 0 else 1


@lru_cache(maxsize=256)
def _flat_constants(key_in_memory: bool, has_bias: bool, activation: str, group: int, warp_size: int) -> Constants:
    kind = getattr(triton_kernels("activations"), activation.upper()).value
    warps = _BLOCK // (8 * warp_size)  # eight elements a thread
    return constants(key_in_memory, ACTIVATION=kind, BIAS=has_bias, GROUP=group, BLOCK=_BLOCK, num_warps=warps)


def _pointer(tensor: Tensor | None, unread: Tensor) -> Tensor:
    """Return `tensor`; if it is None, a tensor that the kernel then does not read."""
    return unread if tensor is None else tensor


@lru_cache(maxsize=8)
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cpu":  # under Triton's interpreter
        return 1
    return int(cast("Any", torch.cuda.get_device_properties(device)).multi_processor_count)


def warp_size() -> int:
    """Threads in a warp: 64 on AMD's GPUs, 32 elsewhere."""
    return 64 if torch.version.hip else 32
