"""`torch.native_dropout`, the operator that also returns its mask, which torch runs on a GPU and which C++ may call.

Its derivative stays torch's, which multiplies by the mask.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor

from dropkit import kernels, random
from dropkit.kernels import FLOATS, gpu, kernel_for
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import unscaled
from dropkit.nn.dispatch import drop
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.dropout import LAYER
from dropkit.ops import custom_op, slices
from dropkit.torch_private import forward_mode_set_to, has_kernel

# Elements of one chunk of `_kept_elements`: two float32 tensors of 512 KiB.
_CHUNK = 2**17
_OPERATOR = torch.ops.aten.native_dropout.default


def take_over(library: torch.library.Library, devices: tuple[str, ...]) -> list[Any]:
    """Register a kernel for each of these dispatch keys that torch has one for; return kernels to be kept alive."""
    alive: list[Any] = []
    for device in devices:
        if not has_kernel(_OPERATOR, device):
            continue
        alive.append(torch.library.get_kernel(_OPERATOR, device))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
            library.impl("native_dropout", _kernel(alive[-1]), device, with_keyset=True, allow_override=True)
        alive.append(torch.library.get_kernel(_OPERATOR, device))
    return alive


def drop_dtensor(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """The operator for a DTensor, for which torch would draw a mask of each rank's own."""
    if train is False or p == 0:
        return input.clone(), torch.ones_like(input, dtype=torch.bool)
    mask = draw_mask(LAYER, input, p, None, None, by_operator=True)
    kept = custom_op.drop(torch.ones_like(input), mask._replace(params=unscaled(p)))
    return custom_op.drop(input, mask), kept.bool()


def _kernel(original: Any) -> Any:
    def kernel(keys: Any, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        is_active = train is not False and 0 < p <= 1 and not (input.numel() == 0 and slices.is_empty(input))
        if not is_active or input.dtype not in FLOATS or input.layout is not torch.strided or input.is_nested:
            if is_active:
                slices.refuse("in torch's own dropout, which runs here,")
            return original.call_boxed(keys, input, p, train)
        key = cast("Tensor | int", random.choose_key(None, None, input, p))
        # Forward mode as well is left to torch's own derivative.
        with torch.no_grad(), forward_mode_set_to(False):
            mask = draw_mask(LAYER, input, p, None, key)
            if kernel_for(input.device.type).drop is gpu.drop:
                output, kept = torch.empty_like(input), torch.empty_like(input, dtype=torch.bool)
                if gpu.drop_and_mask(output, kept, input, mask):
                    return output, kept
            return drop(LAYER, input, p, True, False, None, key), _kept_elements(input, mask, p)

    return kernel


def _kept_elements(input: Tensor, mask: Mask, p: float) -> Tensor:
    """Return which elements are kept, with the strides of `input`.

    Computed in chunks that fit the cache: a tensor of ones as large as the input would take more time than the dropout.
    """
    mask = mask._replace(params=unscaled(p))
    if input.numel() <= _CHUNK or mask.strides is not None:
        kept = torch.ones_like(input)
        kernels.drop(kept, kept, mask)
        return kept.bool()
    output = torch.empty(input.numel(), dtype=torch.bool, device=input.device)
    ones = torch.ones(_CHUNK, device=input.device)
    kept = torch.empty_like(ones)
    for offset in range(0, input.numel(), _CHUNK):
        part = output[offset : offset + _CHUNK]
        kernels.drop(kept[: len(part)], ones[: len(part)], mask._replace(offset=mask.offset + offset))
        part.copy_(kept[: len(part)])
    output = output.view(input.shape)
    return output if input.is_contiguous() else torch.empty_like(input, dtype=torch.bool).copy_(output)
