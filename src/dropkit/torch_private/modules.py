"""dropkit's modules: their base class in torch, hooks, and nested tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dropkit.torch_private.lookup import FX, NESTED, attribute, find

# The base class of torch's dropout modules. A module that torch lacks inherits from it too, so that one `isinstance`
# finds every dropout.
if TYPE_CHECKING:
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.modules.dropout import _DropoutNd

    TorchDropout = _DropoutNd
    Convolution = _ConvNd
else:
    TorchDropout = nn.Dropout.__bases__[0]
    # The base class of torch's convolutions.
    Convolution = nn.Conv2d.__bases__[0]

_forward_hooks = attribute("_forward_hooks", FX)
_forward_pre_hooks = attribute("_forward_pre_hooks", FX)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a call of `module` runs hooks of its own."""
    return bool(_forward_hooks(module) or _forward_pre_hooks(module))


def forward_hooks(module: nn.Module) -> list[Any]:
    """The hooks that run before and after a call of `module`."""
    return [*_forward_pre_hooks(module).values(), *_forward_hooks(module).values()]


ragged_dim: Callable[[Any], Any] = attribute("_ragged_idx", NESTED)
min_length: Callable[[Any], Any] = attribute("_maybe_min_seqlen", NESTED)
max_length: Callable[[Any], Any] = attribute("_maybe_max_seqlen", NESTED)
nested_sizes: Callable[[Tensor], Tensor] = find("torch:Tensor._nested_tensor_size", NESTED)
