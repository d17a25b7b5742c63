"""The GPU kernel: on a GPU, or else in Triton's interpreter on CPU tensors and compiled ahead of time for GPUs."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.kernel_grid import DTYPES, GRID, INDICES, LAYOUTS, by_reference, same_bits
from helpers.triton_device import INTERPRETED, needs_device, needs_interpreter, on_device
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dropkit
from dropkit.kernels import gpu
from dropkit.kernels.mask import Mask, row_major
from dropkit.kernels.numbers import NORMAL, UNIFORM
from dropkit.kernels.params import DropoutParams, NoiseParams, alpha, gaussian, inverted, unscaled
from dropkit.patch import native_dropout

pytestmark = [
    pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
    needs_device,
    # NumPy warns of integer overflow, which Philox relies on.
    pytest.mark.filterwarnings("ignore:overflow encountered"),
]

NOISE = NoiseParams(NORMAL, 0.7, 2.0)
SPLITS_PRODUCTS = gpu.missing is None and [*map(int, version("triton").split(".")[:2])] < [3, 8]


def by_gpu(input: Tensor, mask: Mask) -> Tensor:
    input = on_device(input)
    output = torch.empty_like(input)
    gpu.drop(output, input, mask)
    return output.cpu()


def truncated(output: Tensor) -> Tensor:
    """float32 converted to bfloat16 as the interpreter does it: truncated, where a GPU rounds to nearest even."""
    return (output.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)


def expected_of(input: Tensor, mask: Mask) -> Tensor:
    if input.dtype != torch.bfloat16 or not INTERPRETED:
        return by_reference(input, mask)
    return truncated(by_reference(input.float(), mask).contiguous())


@pytest.mark.parametrize(("indices", "dtype"), GRID, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bits_are_those_of_the_reference(monkeypatch, layout, indices, dtype):
    """The output equals the reference for every layout, mask, dtype and kind of noise, in small and larger blocks."""
    if layout not in ("short", "long", "ragged"):
        monkeypatch.setattr(gpu, "_BLOCK", 2**15)
    input = LAYOUTS[layout]().to(dtype)
    strides, offset = INDICES[indices](input)
    kinds: list[DropoutParams | NoiseParams] = [inverted(0.3)]
    if indices == "element":
        kinds.append(alpha(0.3))
    # Words are computed in three ways, for noise as for dropout.
    if indices in ("element", "channel", "any strides"):
        kinds.append(NOISE)
    for params in kinds:
        mask = Mask(-5, params, strides, offset)
        assert same_bits(by_gpu(input, mask), expected_of(input, mask)), params


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_strides_on_a_gpu_give_the_bits_of_the_reference(data):
    """Up to six dimensions in any memory order, with any mask strides and offset."""
    shape = data.draw(st.lists(st.integers(1, 5) | st.sampled_from([8, 33]), max_size=6))
    if torch.Size(shape).numel() > 5000:
        return
    order = data.draw(st.permutations(range(len(shape))))
    gaps = [data.draw(st.integers(1, 2)) for _ in shape]
    stored = torch.randn([shape[d] * gaps[d] for d in order])[tuple(slice(None, None, gaps[d]) for d in order)]
    input = stored.permute([order.index(d) for d in range(len(shape))])
    strides = tuple(
        data.draw(st.sampled_from([stride, 0, 4, 3]) if data.draw(st.booleans()) else st.just(stride))
        for stride in row_major(shape)
    )
    offset = data.draw(st.integers(0, 2**62))
    params = data.draw(st.sampled_from([inverted(0.5), gaussian(0.5)]))

    mask = Mask(17, params, strides, offset)

    output = by_gpu(input, mask)

    assert same_bits(output, by_reference(input, mask))


@pytest.mark.parametrize("params", [inverted(0.4), gaussian(0.4)], ids=str)
@pytest.mark.parametrize("layout", ["ragged", "long", "offset", "sliced", "channels_last"])
def test_in_place_gives_the_bits_of_out_of_place(layout, params):
    """In place the bits are the same."""
    input = LAYOUTS[layout]()
    expected = by_gpu(input, Mask(3, params))
    input = on_device(input)

    gpu.drop(input, input, Mask(3, params))

    assert same_bits(input.cpu(), expected)


@pytest.mark.parametrize("params", [inverted(0.3), alpha(0.3), NOISE, NoiseParams(UNIFORM, 0.7, 2.0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_an_addition_is_rounded_by_itself(dtype, params):
    """Adding in the same kernel gives the bits of adding afterwards, with the numbers of dropout and of noise."""
    input, add = torch.randn(2, 3000).to(dtype)
    output = on_device(torch.empty_like(input))

    gpu.drop(output, on_device(input), Mask(3, params), on_device(add))

    assert same_bits(output.cpu(), by_reference(input, Mask(3, params)) + add)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_mask_is_written_with_the_output(dtype):
    """Which elements are kept comes from the same pass as the output, for any number of elements."""
    for count in (1, 4100):
        input = on_device(torch.zeros(count, dtype=dtype))
        output, kept = torch.empty_like(input), on_device(torch.empty(count, dtype=torch.bool))

        assert gpu.drop_and_mask(output, kept, input, Mask(3, inverted(0.3)))

        assert torch.equal(kept.cpu(), by_reference(torch.ones(count), Mask(3, unscaled(0.3))).bool())
        assert same_bits(output, input)


@needs_interpreter
@pytest.mark.parametrize("shape", [(40, 30), (0,)], ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
def test_native_dropout_takes_one_pass(monkeypatch, shape, transposed):
    """Under `install` it is one launch for contiguous inputs, and others have the same mask."""
    x = torch.randn(shape)
    x = x.t() if transposed else x
    with dropkit.installed():
        torch.manual_seed(5)
        expected = torch.native_dropout(x, 0.3, True)
        monkeypatch.setattr(native_dropout, "kernel_for", lambda device: SimpleNamespace(drop=gpu.drop))
        one_pass = transposed or x.numel() == 0
        monkeypatch.setattr(native_dropout, "_kept_elements", native_dropout._kept_elements if one_pass else None)
        torch.manual_seed(5)
        output, kept = torch.native_dropout(x, 0.3, True)

    assert torch.equal(output, expected[0])
    assert torch.equal(kept, expected[1])
    assert kept.stride() == output.stride() == x.stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dropped_is_exactly_zero(dtype):
    """A dropped NaN or infinity is +0."""
    strange = torch.tensor([float("nan"), float("inf"), -1.0, -0.0] * 50, dtype=dtype)

    output = by_gpu(strange, Mask(9, inverted(0.5)))

    dropped = by_gpu(torch.ones_like(strange), Mask(9, inverted(0.5))) == 0
    assert dropped.any()
    assert same_bits(output[dropped], torch.zeros_like(output[dropped]))


@pytest.mark.parametrize("params", [inverted(0.3), alpha(0.3), NOISE], ids=str)
def test_four_rows_share_their_random_words(monkeypatch, params):
    """Where mask indices run across rows of memory, an element does not compute the four words of a block alone."""
    choose, chosen = gpu._kind, []
    monkeypatch.setattr(gpu, "_kind", lambda *given: chosen.append(choose(*given)) or chosen[-1])
    keys = torch.arange(6).view(3, 2)
    cases = [
        (torch.randn(30, 132).t(), Mask(-5, params)._replace(strides=(32, 1))),
        (torch.randn(3, 10, 6, 2).permute(0, 3, 1, 2), Mask(-5, params, (120, 60, 1, 12), 4)),
        (torch.randn(2, 70, 8, 8).to(memory_format=torch.channels_last), Mask(-5, params)),
        (torch.randn(3, 2, 12, 5).transpose(2, 3), Mask(keys, params, (0, 400, 12, 1), 40)),
        (
            torch.randn(3, 2, 12, 5).transpose(2, 3),
            Mask(torch.stack([keys, keys], -1).view(torch.uint64), params, (0, 400, 12, 1)),
        ),
    ]
    for input, mask in cases:
        assert same_bits(by_gpu(input, mask), by_reference(input, mask)), input.shape

    across = gpu.triton_kernels("strided").ACROSS
    assert [kind is across for kind, _ in chosen] == [True] * len(cases)


def test_the_key_is_read_from_memory():
    """A key in a tensor is read at each call, so that writing to the tensor changes the mask."""
    x, key = torch.randn(1000), torch.tensor(5)
    first = by_gpu(x, Mask(key, inverted(0.5)))
    key.fill_(-(2**62) - 3)
    second = by_gpu(x, Mask(key, inverted(0.5)))

    assert same_bits(first, by_gpu(x, Mask(5, inverted(0.5))))
    assert same_bits(second, by_gpu(x, Mask(-(2**62) - 3, inverted(0.5))))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["ragged", "sliced"])
def test_a_pair_counts_from_its_first_block(monkeypatch, layout, dtype):
    """torch's keys are read from memory, wherever their two numbers lie; blocks wrap at 2**64."""
    monkeypatch.setattr(gpu, "_BLOCK", 2**12)
    input = LAYOUTS[layout]().to(dtype)
    for first in (1, 2**61, 2**64 - 2):
        key = torch.tensor([[2**63 + 5, 0], [first, 0]], dtype=torch.uint64)[:, 0]
        for strides, offset in (INDICES[indices](input) for indices in ("element", "channel", "any strides")):
            mask = Mask(key, inverted(0.3), strides, offset)
            assert same_bits(by_gpu(input, mask), expected_of(input, mask))
            assert same_bits(by_gpu(input, mask._replace(key=(2**63 + 5, first))), expected_of(input, mask))


def test_nothing_is_kept_at_one():
    """At p = 1 everything becomes the fill, without a launch."""
    for values in (inverted(1.0), alpha(1.0)):
        assert not by_gpu(torch.randn(10), Mask(3, values)).any()


def test_empty_inputs_are_left_alone():
    """A tensor without elements launches nothing."""
    for shape in [(0,), (3, 0)]:
        assert by_gpu(torch.empty(shape), Mask(1, inverted(0.5))).shape == shape


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """Facts about the kernels compiled for three GPUs, in a process where Triton does not interpret."""
    if not INTERPRETED:
        pytest.skip("Triton compiles its kernels for a GPU here")
    script = Path(__file__).parents[1] / "helpers" / "compiled_for_gpus.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["flat", "added", "kept"])
def test_contiguous_tensors_are_read_as_wide_as_memory(compiled, kernel, dtype, target):
    """Loads and stores of 16 bytes, no shared memory, no spilled registers."""
    made = compiled[f"{kernel} {str(dtype).removeprefix('torch.')} {target}"]

    assert made["wide_loads"] > 0
    assert made["wide_stores"] > 0
    assert made["shared"] == 0
    assert made["spilled"] == 0
    assert made["registers"] <= 80
    # Memory answers while the random words are computed.
    assert not made["philox_before_loads"]
    # A full block asks which of its sixteen elements are kept, and none of them whether it is inside.
    assert made["compares_before_stores"] <= 20


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_other_calls_are_compiled_well(compiled, target):
    """Odd sizes and dense rows use wide loads; no kernel spills registers."""
    strided = "strided shared", "strided consecutive", "strided keys"
    for name in ("flat odd", *strided, "norm forward", "norm backward", "activation forward"):
        made = compiled[f"{name} {target}"]
        assert made["wide_loads"] > 0, name
        assert made["wide_stores"] > 0, name
    for name in ("strided any", "strided pairs", *strided, "flat odd", "flat pair", "activation backward"):
        made = compiled[f"{name} {target}"]
        assert made["shared"] == 0, name
        assert made["registers"] <= 72, name
    # A thread has sixteen elements, and one element has its own words: a thread with four computes four blocks.
    across, apart = compiled[f"strided across {target}"], compiled[f"strided any {target}"]
    assert across["registers"] <= 72
    assert 0 < across["philox_multiplies"] / 16 < 0.3 * apart["philox_multiplies"] / 4
    # The column of the first element, and that of the eight of a thread.
    for name in ("activation forward", "activation backward"):
        assert compiled[f"{name} {target}"]["divisions"] <= 4, name
        assert compiled[f"{name} gfx942"]["shared"] == 0, name
    # Of a row, threads exchange sums alone.
    assert compiled["norm forward gfx942"]["shared"] <= 64
    assert {name for name, made in compiled.items() if name.endswith(target) and made["spilled"]} == set()


def test_every_kernel_can_be_launched(compiled):
    """A program uses no more threads and shared memory than each of these GPUs has for one."""
    programs = {name: made for name, made in compiled.items() if isinstance(made, dict)}

    assert {name for name, made in programs.items() if made["threads"] > 1024 or made["shared"] > 2**16 - 1} == set()


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_noise_is_compiled_well(compiled, target):
    """No multiply-add is fused, and threads exchange neither words nor numbers through shared memory."""
    contiguous = [f"noise {name}" for name in ("bfloat16", "float16", "float32", "float64", "uniform")]
    for name in contiguous:
        made = compiled[f"{name} {target}"]
        assert made["wide_loads"] > 0, name
        assert made["wide_stores"] > 0, name
    for name in (*contiguous, "noise strided any", "noise strided shared"):
        made = compiled[f"{name} {target}"]
        assert made["fused_multiply_adds"] == 0, name
        assert made["shared"] == 0, name
        # A thread has sixteen numbers, and a multiprocessor of 65,536 registers runs twenty warps at least.
        assert made["registers"] <= 96, name
    # A row's number is computed once, not for each of its elements, and takes 36 multiplications.
    assert compiled[f"noise strided shared {target}"]["float_multiplies"] < 36 * 16


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("function", ["inverted", "alpha", "gaussian"])
def test_a_rate_in_memory_is_compiled_well(compiled, function, target):
    """Its numbers are made by exact operations alone, and cost no more registers than a warp may have."""
    made = compiled[f"rate {function} {target}"]

    assert made["wide_loads"] > 0
    assert made["wide_stores"] > 0
    assert made["shared"] == 0
    assert made["registers"] <= (96 if function == "gaussian" else 72)
    assert made["fused_multiply_adds"] == 0
    assert made["inexact_doubles"] == 0


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_half_a_round_is_one_multiply(compiled, target):
    """Philox uses 32 x 32 -> 64 bit multiplies, at most 20 a block: a thread has four, of a full or of the last block.

    LLVM in Triton 3.7 makes vectors of two products in different rounds, and computes one half of them separately.
    """
    made, splits = compiled[f"flat float32 {target}"], SPLITS_PRODUCTS

    assert 0 < made["wide_multiplies"] <= 20 * 8
    assert made["philox_multiplies"] <= (25 if splits else 20) * 8
    assert splits or made["high_multiplies"] == 0


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the helper replaces parts of torch 2.13")
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", ["inductor", "inductor bfloat16", "inductor backward"])
def test_the_kernels_of_inductor_compute_a_block_once(compiled, kernel, target):
    """Eight elements of a thread take two Philox blocks, and products are rounded by themselves, subnormal ones too."""
    made = compiled[f"{kernel} {target}"]

    # 37 by Triton 3.8, and 47 by 3.7, which computes some halves of products by themselves. Apart, they would be 160.
    assert 0 < made["philox_multiplies"] <= 2 * 24
    assert made["products"] == ["mul.rn.f32"]
    assert made["fused_multiply_adds"] == 0
    assert made["inexact_doubles"] == 0
    assert made["wide_loads"] > 0
    assert made["spilled"] == 0


def test_amd_compiles(compiled):
    """Every kernel compiles for AMD: none uses an intrinsic of one vendor."""
    sizes = [made["size"] for name, made in compiled.items() if name.endswith("gfx942")]

    assert len(sizes) == sum(name.endswith("sm_90") for name in compiled)
    assert all(sizes)


def test_nothing_is_compiled_for_a_new_rate_key_or_size(compiled):
    """Ten calls with five rates and two keys use one kernel; a single row is another kernel, of one dimension less."""
    assert compiled["kernels for ten rates and keys"] == 1
    assert compiled["kernels for five sizes"] == 1
    assert compiled["kernels for four heights"] == 2
