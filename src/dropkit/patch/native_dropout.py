"""`torch.native_dropout`, which returns its mask: what torch runs on a GPU, and what C++ calls for it.

Its derivative stays torch's, which multiplies by the mask.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from dropkit import kernels, random
from dropkit.kernels import FLOATS
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import unscaled
from dropkit.nn.dispatch import drop
from dropkit.nn.dropout import LAYER
from dropkit.torch_private import forward_mode_set_to, has_kernel

# Elements at a time: 512 KiB, twice.
_RUN = 2**17
_OPERATOR = torch.ops.aten.native_dropout.default


def take_over(library: torch.library.Library, devices: tuple[str, ...]) -> list[Any]:
    """Register for these dispatch keys, where this torch has them; returns what must live as long as it may run."""
    kernels: list[Any] = []
    for device in devices:
        if not has_kernel(_OPERATOR, device):
            continue
        kernels.append(torch.library.get_kernel(_OPERATOR, device))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
            library.impl("native_dropout", _kernel(kernels[-1]), device, with_keyset=True, allow_override=True)
        kernels.append(torch.library.get_kernel(_OPERATOR, device))
    return kernels


def _kernel(torchs_own: Any) -> Any:
    def kernel(keys: Any, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        draws = train is not False and 0 < p <= 1 and input.numel() > 0
        if not draws or input.dtype not in FLOATS or input.layout is not torch.strided or input.is_nested:
            return torchs_own.call_boxed(keys, input, p, train)
        key = random.choose_key(None, None, input, p)
        # Tangents, too, are for torch's own derivative.
        with torch.no_grad(), forward_mode_set_to(False):
            return drop(LAYER, input, p, True, False, None, key), _mask(input, p, key)

    return kernel


def _mask(input: Tensor, p: float, key: Tensor | int) -> Tensor:
    """What is kept, with the strides of `input`.

    In runs of mask elements that fit the cache: as many ones as the tensor has elements, to read the mask from, would
    take more time than the dropout.
    """
    mask = Mask(key, unscaled(p))
    if input.numel() <= _RUN:
        kept = torch.ones_like(input)
        kernels.drop(kept, kept, mask)
        return kept.bool()
    output = torch.empty(input.numel(), dtype=torch.bool, device=input.device)
    ones = torch.ones(_RUN, device=input.device)
    kept = torch.empty_like(ones)
    for offset in range(0, input.numel(), _RUN):
        part = output[offset : offset + _RUN]
        kernels.drop(kept[: len(part)], ones[: len(part)], mask._replace(offset=offset))
        part.copy_(kept[: len(part)])
    output = output.view(input.shape)
    return output if input.is_contiguous() else torch.empty_like(input, dtype=torch.bool).copy_(output)
