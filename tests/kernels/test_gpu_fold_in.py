"""Keys derived on a GPU, by Triton's interpreter on CPU tensors."""

import pytest
import torch
from helpers.triton_device import needs_interpreter

from dropkit.kernels import gpu
from dropkit.kernels.gpu import fold_in as on_gpu
from dropkit.ops import fold_in

pytestmark = [
    pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
    needs_interpreter,
    # NumPy warns of integer overflow, which Philox relies on.
    pytest.mark.filterwarnings("ignore:overflow encountered"),
]


@pytest.mark.parametrize("shape", [(), (0,), (300,), (3, 5)], ids=str)
def test_derived_keys_are_those_of_the_cpu(shape):
    """One launch derives the keys that torch's operators derive, in any shape and memory layout."""
    keys, numbers = torch.randint(-(2**63), 2**63 - 1, (2, *shape)).unbind()
    if len(shape) == 2:
        keys = keys.t().contiguous().t()

    expected = fold_in.fold_in(keys.unsqueeze(0), numbers.unsqueeze(0))

    assert torch.equal(on_gpu.fold_in(keys, numbers), expected.squeeze(0))


def test_keys_and_numbers_broadcast():
    """One key derives one for each of several numbers."""
    derived = on_gpu.fold_in(torch.tensor(7), torch.arange(5))

    assert torch.equal(derived, fold_in.fold_in(torch.tensor(7), torch.arange(5)))
