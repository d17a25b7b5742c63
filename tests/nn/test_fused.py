"""Fused functions: equal to the separate calls, on the CPU and on the GPU's kernels, interpreted."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.kernel_grid import DTYPES, LAYOUTS, same_bits
from helpers.triton_device import needs_interpreter
from torch import Tensor, nn
from torch.autograd import forward_ad

from dropkit import kernels
from dropkit.functional import bias_act_dropout_add, dropout, dropout_add, dropout_add_norm
from dropkit.kernels import KERNELS, gpu
from dropkit.nn import FUSED
from dropkit.ops import fused

INTERPRETED = next(kernel for kernel in KERNELS if kernel.name == "gpu")
SHAPE = (3, 5, 12)

gpu_kernel = pytest.param(
    "gpu",
    marks=[
        pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
        needs_interpreter,
        pytest.mark.filterwarnings("ignore:overflow encountered"),
    ],
)


@pytest.fixture(params=["cpu", gpu_kernel])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tensors on the CPU run on its own kernel, or on the GPU's."""
    if request.param == "gpu":
        monkeypatch.setattr(kernels, "_drop_on_cpu", INTERPRETED.drop)
        monkeypatch.setattr(fused, "kernel_for", lambda _: INTERPRETED)
    return request.param


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, grad: bool = True) -> list[Tensor]:
    return [torch.randn(shape).to(dtype).requires_grad_(grad) for shape in shapes]


def made(module: type[nn.Module]) -> nn.Module:
    """A module for SHAPE; one with a weight or a bias takes the number of its features."""
    return module(p=0.5) if "features" not in signature(module).parameters else module(SHAPE[-1], p=0.5)


def gradients(outputs: Any, inputs: list[Tensor]) -> list[Tensor]:
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = [torch.linspace(-1, 2, output.numel()).view(output.shape).to(output.dtype) for output in outputs]
    return list(torch.autograd.grad(outputs, inputs, upstream))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "scalar"])
def test_dropout_add_is_the_sum_to_the_bit(layout, p):
    """The bits are those of the sum for every layout of the branch and of the residual."""
    for dtype in DTYPES:
        input = LAYOUTS[layout]().to(dtype)
        for residual in (torch.randn_like(input), torch.randn(input.shape).to(dtype)):
            output = dropout_add(input, residual, p, key=5)

            assert same_bits(output, residual + dropout(input, p, key=5)), dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_dropout_add_on_either_kernel(kernel, dtype):
    """Values and gradients are those of the two calls, bit by bit, at sizes of parts of blocks, with drawn keys."""
    for count in (1, 63, 64, 1000, 5003):
        input, residual = tensors((count,), (count,), dtype=dtype)
        torch.manual_seed(count)
        together = dropout_add(input, residual, 0.4)
        torch.manual_seed(count)
        apart = residual + dropout(input, 0.4)

        assert same_bits(together.detach(), apart.detach())
        for pair in zip(gradients(together, [input, residual]), gradients(apart, [input, residual]), strict=True):
            assert same_bits(*pair)


@pytest.mark.parametrize("shapes", [((4, 6), (6,)), ((6,), (4, 6)), ((4, 1), (4, 6))])
def test_dropout_add_broadcasts(shapes):
    """Branch and residual broadcast as in the sum; the mask has the shape of the branch."""
    input, residual = tensors(*shapes)
    assert torch.equal(dropout_add(input, residual, 0.5, key=3), residual + dropout(input, 0.5, key=3))


def test_dropout_add_has_all_of_torchs_derivatives():
    """Backward, double backward, forward mode, vmap and a compiled graph give the results of the separate calls."""
    input, residual = tensors((3, 4), (3, 4), dtype=torch.float64)

    def call(x: Tensor, r: Tensor) -> Tensor:
        return dropout_add(x, r, 0.5, key=2)

    assert torch.autograd.gradcheck(call, (input, residual), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (input, residual))
    plain = call(input, residual)
    assert torch.equal(torch.compile(call, backend="aot_eager", fullgraph=True)(input, residual), plain)
    mapped = torch.func.vmap(call, randomness="same")(input, residual)
    assert torch.equal(mapped, torch.stack([call(x, r) for x, r in zip(input, residual, strict=True)]))


NORMS: dict[str, Callable[[Tensor, Tensor | None, Tensor | None], Tensor]] = {
    "layer": lambda s, w, b: F.layer_norm(s, s.shape[-1:], w, b, 1e-5),
    "rms": lambda s, w, b: F.rms_norm(s, s.shape[-1:], w, 1e-5) + (0 if b is None else b),
}


def near(result: Tensor, expected: Tensor, roundings: int) -> bool:
    """Whether two computations of so many roundings differ by rounding alone; intermediate results may be up to 1."""
    result, expected = result.detach(), expected.detach()
    bound = roundings * torch.finfo(result.dtype).eps * float(expected.abs().max().clamp(min=1))
    return result.dtype == expected.dtype and float((result.double() - expected.double()).abs().max()) <= bound


def norm_roundings(columns: int = SHAPE[-1]) -> int:
    """Of an element of a norm: sums of `columns` terms for mean and variance, and at most 8 further operations."""
    return 2 * columns + 8


def gradient_roundings(columns: int = SHAPE[-1], rows: int = 15) -> int:
    """Of a gradient through a norm: the norm's, as many again, and for weight and bias a sum over the rows."""
    return 2 * norm_roundings(columns) + rows


# The bias, the argument's scale, erf, tanh or exp (each library is accurate to two units in the last place), a product,
# dropout's scale and the residual.
ACTIVATION_ROUNDINGS = 9


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("affine", ["weight and bias", "weight", "neither"])
@pytest.mark.parametrize("columns", [12, 15])
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_dropout_add_norm_is_the_three_calls(kernel, norm, affine, columns, p):
    """The sum is equal to the bit, the norm and every gradient within rounding."""
    input, residual, weight, bias = tensors((3, 5, columns), (3, 5, columns), (columns,), (columns,))
    weight, bias = (tensor if name in affine else None for name, tensor in (("weight", weight), ("bias", bias)))
    inputs = [tensor for tensor in (input, residual, weight, bias) if tensor is not None]

    output, summed = dropout_add_norm(input, residual, weight, bias, p, norm=norm, key=11)

    expected_sum = residual + dropout(input, p, key=11)
    expected = NORMS[norm](expected_sum, weight, bias)
    assert same_bits(summed.detach(), expected_sum.detach())
    assert near(output, expected, norm_roundings(columns))
    for both in ((output,), (summed,), (output, summed)):
        separate = {1: (expected if both[0] is output else expected_sum,), 2: (expected, expected_sum)}[len(both)]
        asked = inputs if len(both) == 2 or both[0] is output else inputs[:2]
        for grad, expected_grad in zip(
            torch.autograd.grad([tensor.sum() * 1.5 for tensor in both], asked, retain_graph=True),
            torch.autograd.grad([tensor.sum() * 1.5 for tensor in separate], asked, retain_graph=True),
            strict=True,
        ):
            assert near(grad, expected_grad, gradient_roundings(columns))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("columns", [12, 15])
@pytest.mark.parametrize("kernel", [gpu_kernel], indirect=True)
def test_two_programs_share_rows_that_are_wide(kernel, monkeypatch, norm, columns):
    """Each has the sums over all columns, and writes the gradients of its own."""
    monkeypatch.setattr(fused.fused, "_COLUMNS_WITH_SUMS", 8)
    inputs = tensors((7, columns), (7, columns), (columns,), (columns,))

    output, _ = dropout_add_norm(*inputs, 0.4, norm=norm, key=11)

    expected = NORMS[norm](inputs[1] + dropout(inputs[0], 0.4, key=11), *inputs[2:])
    upstream = expected.detach() + 0.5  # so that neither of a row's sums is near 0
    made = torch.autograd.grad(output, inputs, upstream)
    for grad, expected_grad in zip(made, torch.autograd.grad(expected, inputs, upstream), strict=True):
        assert near(grad, expected_grad, gradient_roundings(columns))


def calls_of(kind: str) -> Callable[..., Tensor]:
    """The functions on (input, residual), one output each, in float32."""
    if kind == "norm":
        return lambda x, r, **named: dropout_add_norm(x, r, **named)[0]
    return lambda x, r, **named: bias_act_dropout_add(x, None, r, **named)


def apart(kind: str, x: Tensor, r: Tensor, p: float) -> Tensor:
    if kind == "norm":
        return F.layer_norm(r + dropout(x, p, key=3), x.shape[-1:])
    return r + dropout(F.gelu(x), p, key=3)


@pytest.mark.parametrize("kind", ["norm", "activation"])
def test_derivatives_and_transforms_get_the_separate_calls(kernel, kind):
    """Second derivatives, forward mode, batched gradients, and rates in a tensor or near 1 run the separate calls."""
    call, (x, r, t) = calls_of(kind), tensors(SHAPE, SHAPE, SHAPE)

    seconds = []
    for output in (call(x, r, p=0.3, key=3), apart(kind, x, r, 0.3)):
        (first,) = torch.autograd.grad(output.pow(3).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.pow(2).sum(), [x, r]))
    assert all(near(*pair, 2 * gradient_roundings()) for pair in zip(*seconds, strict=True))

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), t.detach())
        tangents = [
            forward_ad.unpack_dual(output).tangent
            for output in (call(dual, r.detach(), p=0.3, key=3), apart(kind, dual, r.detach(), 0.3))
        ]
    assert near(*tangents, gradient_roundings())

    upstream = torch.randn(4, *SHAPE)
    batched = [
        torch.autograd.grad(output, x, upstream, is_grads_batched=True)[0]
        for output in (call(x, r, p=0.3, key=3), apart(kind, x, r, 0.3))
    ]
    assert near(*batched, gradient_roundings())

    assert near(call(x, r, p=torch.tensor(0.25), key=3), apart(kind, x, r, 0.25), norm_roundings())
    assert near(call(x, r, p=1 - 2**-40, key=3), apart(kind, x, r, 1.0), norm_roundings())


def test_a_loss_on_the_sum_alone_leaves_the_norm_alone(kernel):
    """A loss on the sum gives weight and bias no gradient, and a sum of constants requires none."""
    x, r, w, b = tensors(SHAPE, SHAPE, SHAPE[-1:], SHAPE[-1:])
    _, summed = dropout_add_norm(x, r, w, b, 0.5, key=1)
    assert torch.autograd.grad(summed.sum(), [x, w, b], allow_unused=True)[1:] == (None, None)
    assert not dropout_add_norm(x.detach(), r.detach(), w, b, 0.5, key=1)[1].requires_grad


def test_dropout_add_norm_scales_rows(kernel):
    """Stochastic depth: a row that is scaled by 0 keeps its residual, and its branch gets no gradient."""
    input, residual = tensors(SHAPE, SHAPE)
    rows = torch.tensor([0.0, 2.0]).repeat(8)[:15].view(3, 5)

    output, summed = dropout_add_norm(input, residual, p=0.3, row_scale=rows, key=4)

    expected = residual + dropout(input, 0.3, key=4) * rows.unsqueeze(-1)
    assert same_bits(summed.detach(), expected.detach())
    assert near(output, F.layer_norm(expected, SHAPE[-1:]), norm_roundings())
    of_input, of_residual = gradients((output, summed), [input, residual])
    wanted = gradients((F.layer_norm(expected, SHAPE[-1:]), expected), [input, residual])
    assert near(of_input, wanted[0], gradient_roundings())
    assert near(of_residual, wanted[1], gradient_roundings())
    assert not of_input[rows == 0].any()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_act_dropout_add_is_the_four_calls(kernel, activation, with_bias):
    """The mask is equal to the bit, values and every gradient within rounding."""
    shape = (7, 5, 37)  # several blocks, the last one incomplete
    input, residual, bias = tensors(shape, shape, shape[-1:])
    bias = bias if with_bias else None
    inputs = [tensor for tensor in (input, residual, bias) if tensor is not None]

    output = bias_act_dropout_add(input, bias, residual, 0.4, activation=activation, key=9)

    branch = ACTIVATIONS[activation](input if bias is None else input + bias)
    expected = residual + dropout(branch, 0.4, key=9)
    assert near(output, expected, ACTIVATION_ROUNDINGS)
    kept = dropout(torch.ones(shape), 0.4, key=9) != 0
    assert torch.equal(output[~kept], residual[~kept])
    roundings = 2 * ACTIVATION_ROUNDINGS + 7 * 5  # the bias gets the sum over the rows
    for grad, expected_grad in zip(gradients(output, inputs), gradients(expected, inputs), strict=True):
        assert near(grad, expected_grad, roundings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("columns", [1, 8, 12, 40, 1028, 1030])
def test_each_element_gets_the_bias_of_its_column(kernel, columns, dtype):
    """Also where rows begin and end within a block, and whether or not they are of whole groups of neighbours."""
    input, residual, bias = tensors((2500 // columns, columns), (2500 // columns, columns), (columns,), dtype=dtype)

    output = bias_act_dropout_add(input, bias, residual, 0.3, activation="relu", key=4)

    assert same_bits(output, residual + dropout(F.relu(input + bias), 0.3, key=4))
    expected = dropout(torch.ones_like(input), 0.3, key=4) * (input + bias > 0)
    assert torch.equal(torch.autograd.grad(output, input, torch.ones_like(input))[0], expected)


def test_fused_calls_take_torchs_keys(kernel):
    """Each drops as the separate calls do, forward and backward, from the key's first block on."""
    key = torch.tensor([2**63 + 5, 2**64 - 20], dtype=torch.uint64)
    x, r = tensors(SHAPE, SHAPE)
    calls = {
        "norm": (lambda: dropout_add_norm(x, r, p=0.4, key=key)[1], lambda: r + dropout(x, 0.4, key=key)),
        "activation": (
            lambda: bias_act_dropout_add(x, None, r, 0.4, activation="relu", key=key),
            lambda: r + dropout(x.relu(), 0.4, key=key),
        ),
        "add": (lambda: dropout_add(x, r, 0.4, key=key), lambda: r + dropout(x, 0.4, key=key)),
    }
    for name, (fused_call, separate_calls) in calls.items():
        output, expected = fused_call(), separate_calls()
        assert torch.equal(output, expected), name
        for grad, wanted in zip(gradients(output, [x, r]), gradients(expected, [x, r]), strict=True):
            assert torch.equal(grad, wanted), name
    (grad,) = gradients(dropout_add_norm(x, r, p=0.4, key=key)[0], [x])
    assert torch.equal(grad != 0, dropout(torch.ones(SHAPE), 0.4, key=key) != 0)


def test_half_precision_is_rounded_where_the_calls_round(kernel):
    """In float16 the sum is equal to the bit; the norm is rounded twice, before and after it is computed."""
    input, residual, weight, bias = tensors(SHAPE, SHAPE, SHAPE[-1:], SHAPE[-1:], dtype=torch.float16, grad=False)

    output, summed = dropout_add_norm(input, residual, weight, bias, 0.3, key=1)
    activated = bias_act_dropout_add(input, bias, residual, 0.3, key=1)

    expected = residual + dropout(input, 0.3, key=1)
    assert same_bits(summed, expected)
    assert near(output, F.layer_norm(expected, SHAPE[-1:], weight, bias), 2)
    assert near(activated, residual + dropout(F.gelu(input + bias), 0.3, key=1), 2)


@pytest.mark.parametrize("module", [made(module) for module in FUSED], ids=repr)
def test_modules_follow_their_mode(module: nn.Module):
    """The modules drop in training mode alone; their parameters have the names of torch's norms."""
    input, residual = tensors(SHAPE, SHAPE, grad=False)

    def first(*given: Any, **named: Any) -> Tensor:
        output = module(*given, **named)
        return output[0] if isinstance(output, tuple) else output

    assert not torch.equal(first(input, residual, key=1), first(input, residual, key=2))
    assert torch.equal(first(input, residual, key=1), first(input, residual, key=1))
    torch.manual_seed(3)
    drawn = first(input, residual)
    torch.manual_seed(3)
    assert torch.equal(first(input, residual), drawn)
    module.eval()
    assert torch.equal(first(input, residual), first(input, residual))
    assert set(dict(module.named_parameters())) <= {"weight", "bias"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: dropout_add(x, x, 1.5), "between 0 and 1, but got 1.5"),
        (lambda x: dropout_add(x, x, 0.5, key=1, generator=torch.Generator()), "key must be None where generator"),
        (lambda x: dropout_add_norm(x, x[:1]), r"residual must be of shape \(3, 5, 12\), got \(1, 5, 12\)"),
        (lambda x: dropout_add_norm(x, x, torch.ones(5)), r"weight must be of shape \(12,\), got \(5,\)"),
        (lambda x: dropout_add_norm(x, x, norm="batch"), 'norm must be "layer" or "rms", got batch'),
        (
            lambda x: dropout_add_norm(x, x, row_scale=torch.ones(12)),
            r"row_scale must be of shape \(3, 5\), got \(12,\)",
        ),
        (
            lambda x: bias_act_dropout_add(x, None, x, activation="tanh"),
            "activation must be one of relu, gelu, gelu_tanh, silu, got tanh",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    """The error names the argument, what it must be, and what it was."""
    with pytest.raises(ValueError, match=message):
        call(torch.randn(SHAPE))


def test_monte_carlo_sees_the_dropout_inside():
    """Every fused module drops under `mc.sampling`, while it stays in evaluation mode."""
    from dropkit import mc

    input, residual = tensors(SHAPE, SHAPE, grad=False)
    for module in map(made, FUSED):
        module.eval()
        with mc.sampling():
            outputs = module(input, residual), module(input, residual)
        first, second = (output[0] if isinstance(output, tuple) else output for output in outputs)
        assert not torch.equal(first, second), module
