"""A rate in a GPU's memory: the kernel makes of it the numbers that Python makes of a float, to the bit."""

import math
from itertools import product

import pytest
import torch
from helpers.kernel_grid import by_reference, same_bits
from helpers.triton_device import needs_interpreter
from torch import Tensor

from dropkit import kernels
from dropkit.functional import alpha_dropout, dropout, dropout2d, gaussian_dropout, gaussian_noise
from dropkit.kernels import gpu
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import IDENTITY, PARAMS_BY_NAME, NoiseParams, ScheduledParams

pytestmark = [
    pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
    needs_interpreter,
    # NumPy warns of integer overflow, which Philox relies on, and of 1 / (1 - p) at 1.
    pytest.mark.filterwarnings("ignore:overflow encountered"),
    pytest.mark.filterwarnings("ignore:divide by zero"),
]

NAN = float("nan")
# A fine grid, ties of the rounding to 32 bits, and the neighbours of all of them and of 0 and 1.
SOME = torch.cat(
    [
        torch.linspace(0, 1, 1365, dtype=torch.float64),
        (torch.arange(200, dtype=torch.float64) + 0.5) * 2.0**-32,
        1 - (torch.arange(200, dtype=torch.float64) + 0.5) * 2.0**-32,
        torch.tensor([5e-324, 1e-300, 1e-9, 0.1, 0.3, 0.7, 0.9]),
    ]
)
RATES = torch.cat([SOME, *(torch.nextafter(SOME, torch.tensor(end).double()) for end in (0.0, 1.0))])
# Below and above, and not a number. 2**13 rates in all, which is a power of 2 as the kernel wants it.
INVALID = torch.tensor([-5e-324, -1.0, -math.inf, 1 + 2**-52, 1.1, math.inf, NAN], dtype=torch.float64)
RATES = torch.cat([RATES, INVALID, torch.linspace(0, 1, 2**13 - len(RATES) - len(INVALID), dtype=torch.float64)])


def by_python(function: str, p: float) -> tuple[float, ...]:
    """Threshold, scale, shift and fill; or those that make everything NaN."""
    try:
        params = ScheduledParams(torch.tensor(p, dtype=torch.float64), function).resolve()
    except ValueError:
        return 0, NAN, NAN, NAN
    return (0, *params[1:], 0) if isinstance(params, NoiseParams) else tuple(params)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("function", PARAMS_BY_NAME)
def test_the_numbers_of_a_rate_in_memory_are_those_of_a_float(function, dtype):
    """Threshold, scale, shift and fill have the same bits, at 0, at 1 and between; out of range all are NaN."""
    from helpers.numbers_on_gpu import params_on_gpu

    rates = RATES.to(dtype)

    made = params_on_gpu(rates, function)

    expected = torch.tensor([by_python(function, p) for p in rates.tolist()], dtype=torch.float64).t()
    assert same_bits(made.nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))


@pytest.mark.parametrize("function", PARAMS_BY_NAME)
def test_a_mask_at_a_rate_in_memory_is_that_of_a_float(monkeypatch, function):
    """The kernel for contiguous tensors and that for any strides, forward and backward; without reading the rate."""
    x = torch.randn(7, 30)
    rates = [torch.tensor(p) for p in (0.0, 0.3, 1.0)]
    cases = list(product([x, x.t()], rates, [True, False]))
    resolved = [ScheduledParams(p, function, constants).resolve() if p < 1 or function != "gaussian" else None
                for _, p, constants in cases]  # fmt: skip
    monkeypatch.setattr(Tensor, "item", None)

    for (input, p, constants), expected in zip(cases, resolved, strict=True):
        params = ScheduledParams(p, function, constants)
        output = torch.empty_like(input)
        gpu.drop(output, input, Mask(5, params if constants else params._replace(constants=True).gradient))
        if expected is None:
            assert output.isnan().all()
        else:
            assert same_bits(output, by_reference(input, Mask(5, expected))), (p, constants)


CALLS = {
    "dropout": dropout,
    "in place": lambda x, p, **named: dropout(x * 1, p, inplace=True, **named),
    "dropout2d": dropout2d,
    "alpha_dropout": alpha_dropout,
    "gaussian_dropout": gaussian_dropout,
    "gaussian_noise": gaussian_noise,
}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_waits_for_a_rate_on_the_gpu(monkeypatch, name):
    """Neither a forward nor a backward pass reads the rate or a key, and bits are those of a float."""
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    upstream = torch.randn(4, 3, 8, 8)
    expected = CALLS[name](x, 0.3, key=7)
    expected_grad = torch.autograd.grad(expected, x, upstream)
    p = torch.tensor(0.3, dtype=torch.float64)

    with monkeypatch.context() as patch:
        # The interpreter's device has the CPU's memory.
        patch.setattr(kernels, "_drop_on_cpu", gpu.drop)
        patch.setattr(ScheduledParams, "resolve", lambda params: params)
        patch.setattr(Tensor, "is_cuda", property(lambda tensor: tensor is p))
        for reader in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
            patch.setattr(Tensor, reader, None)
        output = CALLS[name](x, p, key=torch.tensor(7))
        grad = torch.autograd.grad(output, x, upstream)
        CALLS[name](x, p)

    assert same_bits(output, expected)
    assert same_bits(grad[0], expected_grad[0])


def test_a_rate_on_the_gpu_always_draws_a_key(monkeypatch):
    """At 0 and 1 a rate on the CPU draws none, which takes reading it."""
    drawn = {}
    for on_gpu in (False, True):
        monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor, on_gpu=on_gpu: on_gpu and tensor.dim() == 0))
        for p in (0.0, 1.0):
            before = torch.get_rng_state()
            torch.ops.dropkit.draw_v1((), device="cpu", p=torch.tensor(p))
            drawn[on_gpu, p] = not torch.equal(before, torch.get_rng_state())

    assert drawn == {(False, 0.0): False, (False, 1.0): False, (True, 0.0): True, (True, 1.0): True}


def test_the_gradient_of_added_noise_needs_no_rate():
    """It is 1, whatever the standard deviation is."""
    assert ScheduledParams(torch.tensor(0.3), "additive_normal").gradient is IDENTITY
