"""Where the tests of the Triton kernels run them: on a GPU, or on CPU tensors in Triton's interpreter."""

import os

import pytest
import torch
from torch import Tensor

# Set in conftest.py, before Triton is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="Triton compiles its kernels for a GPU here")
needs_device = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()),
    reason="Triton neither interprets its kernels here nor has a GPU",
)


def on_device(tensor: Tensor) -> Tensor:
    """The tensor where kernels run, with the same strides and gaps in memory."""
    if INTERPRETED:
        return tensor
    storage = tensor.untyped_storage().cuda()
    moved = torch.empty(0, dtype=tensor.dtype, device=storage.device)
    return moved.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
