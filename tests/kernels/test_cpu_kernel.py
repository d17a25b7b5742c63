"""The CPU kernel: published masks, and the bits of the reference on every instruction set."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers import oracle
from helpers.kernel_grid import DTYPES, GRID, INDICES, LAYOUTS, by_reference, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dropkit.kernels import cpu, reference
from dropkit.kernels.mask import Mask, row_major
from dropkit.kernels.numbers import NORMAL, UNIFORM, numbers
from dropkit.kernels.params import NoiseParams, additive_normal, alpha, gaussian, inverted

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "mask-v1.json").read_text())
LEVELS = [name for name, runs_here in cpu.levels().items() if runs_here]
# Random123's known answers for 10 rounds: counter, key, words.
RANDOM123 = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def by_cpu(input: Tensor, mask: Mask) -> Tensor:
    output = torch.empty_like(input)
    cpu.drop(output, input, mask)
    return output


@contextmanager
def at_level(name: str) -> Iterator[None]:
    before = cpu.level()
    cpu.use_level(name)
    yield
    cpu.use_level(before)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    with at_level(request.param):
        yield request.param


@pytest.mark.extension
@pytest.mark.parametrize(("counter", "key", "words"), RANDOM123)
def test_philox_gives_the_known_answers(counter, key, words):
    """The oracle, the reference and the compiled kernel give the words that Random123 publishes."""
    tensors = tuple(torch.tensor(c) for c in counter)
    bits = key[0] + key[1] * 2**32

    from_reference = reference.philox(tensors, torch.tensor(bits - 2**64 if bits >= 2**63 else bits))
    from_cpu = cpu._cpu.philox(bits, counter[0] + counter[1] * 2**32, counter[2] + counter[3] * 2**32)

    assert oracle.philox4x32_10(counter, key) == words
    assert tuple(int(w) for w in from_reference) == words
    assert from_cpu == words


def test_masks_are_the_published_ones(level):
    """A mask depends only on key, mask index and p: the frozen vectors of version 1."""
    for vector in VECTORS["masks"]:
        ones = torch.ones(vector["n"])

        output = by_cpu(ones, Mask(vector["key"], inverted(vector["p"]), (1,), vector["first"]))

        bits = sum(1 << i for i, kept in enumerate((output != 0).tolist()) if kept)
        assert f"{bits:0{vector['n'] // 4}x}" == vector["keep"], vector


def test_vectors_come_from_the_oracle():
    """The frozen vectors follow from the specification, not from a kernel."""
    for vector in VECTORS["masks"]:
        assert oracle.keep_bits(vector["first"], vector["n"], vector["key"], vector["p"]) == vector["keep"]


@pytest.mark.parametrize(("indices", "dtype"), GRID, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_level_gives_the_bits_of_the_reference(layout, indices, dtype):
    """The output equals the reference to the bit for every layout, mask, dtype and kind of dropout."""
    input = LAYOUTS[layout]().to(dtype)
    strides, offset = INDICES[indices](input)
    cases = [inverted(0.3), alpha(0.3), gaussian(0.3), NoiseParams(UNIFORM, 0.7, -1.3)]
    if indices == "element":
        # Nothing kept, and a fill without a shift, which no layer has.
        cases += [inverted(1.0), inverted(0.3)._replace(fill=-1.5)]

    for params in cases:
        mask = Mask(-5, params, strides, offset)
        expected = by_reference(input, mask)
        for level in LEVELS:
            with at_level(level):
                assert same_bits(by_cpu(input, mask), expected), (level, params)


def test_numbers_of_rare_words_are_those_of_the_reference(level):
    """Among a million words some lie in the far tails, and in every lane of a vector."""
    zeros = torch.zeros(2**20)
    words = reference.words(torch.arange(2**20), torch.tensor(3))

    output = by_cpu(zeros, Mask(3, additive_normal(1.0)))

    assert output.abs().max() > 4.5
    assert same_bits(output, numbers(words, NORMAL, torch.float32))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith(("expanded", "overlapping"))])
def test_in_place_gives_the_bits_of_out_of_place(layout, level):
    """In place the bits are the same, and nothing outside the tensor is written."""
    base = LAYOUTS[layout]()
    whole = base._base if base._base is not None else base
    before = whole.clone()
    expected = by_cpu(base, Mask(3, inverted(0.4)))

    cpu.drop(base, base, Mask(3, inverted(0.4)))

    assert same_bits(base, expected)
    base.copy_(before.as_strided(base.shape, base.stride(), base.storage_offset()))
    assert torch.equal(whole, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.7, 0.9])
def test_every_16_bit_number_is_scaled_and_rounded_as_by_torch(dtype, p, level):
    """The product is a float32 product, rounded to nearest even: all 65,536 inputs, infinities and subnormals too."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = every[~every.isnan()]
    keep_all = inverted(p)._replace(threshold=0)

    output = by_cpu(numbers, Mask(0, keep_all))

    assert same_bits(output, (numbers.float() * torch.tensor(keep_all.scale, dtype=torch.float32)).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dropped_is_exactly_zero(dtype, level):
    """A dropped NaN, infinity or negative number is +0; a kept one is scaled."""
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0, -0.0] * 40, dtype=dtype)

    output = by_cpu(strange, Mask(9, inverted(0.5)))

    dropped = by_cpu(torch.ones_like(strange), Mask(9, inverted(0.5))) == 0
    assert dropped.any()
    assert same_bits(output[dropped], torch.zeros_like(output[dropped]))
    assert torch.equal(output[~dropped].nan_to_num(5.0), (strange * 2)[~dropped].nan_to_num(5.0))


def test_empty_inputs_are_left_alone(level):
    """A tensor without elements is not accessed."""
    for shape in [(0,), (3, 0), (0, 4, 5)]:
        assert by_cpu(torch.empty(shape), Mask(1, inverted(0.5))).shape == shape


@pytest.mark.extension
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_strides_give_the_bits_of_the_reference(data):
    """Any shape, memory order, gaps, mask strides and mask offset, on any instruction set."""
    shape = data.draw(st.lists(st.integers(1, 9) | st.sampled_from([64, 65, 130, 257]), min_size=0, max_size=4))
    if torch.Size(shape).numel() > 20_000:
        return
    order = data.draw(st.permutations(range(len(shape))))
    gaps = [data.draw(st.integers(1, 2)) for _ in shape]
    stored = torch.randn([shape[d] * gaps[d] for d in order])[tuple(slice(None, None, gaps[d]) for d in order)]
    input = stored.permute([order.index(d) for d in range(len(shape))])
    dense = row_major(shape)
    strides = tuple(
        data.draw(st.sampled_from([stride, 0, 1, 3]) if data.draw(st.booleans()) else st.just(stride))
        for stride in dense
    )
    offset = data.draw(st.integers(0, 2**62))

    with at_level(data.draw(st.sampled_from(LEVELS))):
        output = by_cpu(input, Mask(17, inverted(0.5), strides, offset))

    assert input.shape == tuple(shape)
    assert same_bits(output, by_reference(input, Mask(17, inverted(0.5), strides, offset)))


LARGE = {
    "rows": lambda: torch.randn(300, 1001),
    "tiles": lambda: torch.randn(700, 600).t(),
    "maps": lambda: torch.randn(4, 40, 50, 50).to(memory_format=torch.channels_last),
}


@pytest.mark.extension
@pytest.mark.parametrize("params", [inverted(0.5), gaussian(0.5)], ids=["dropout", "noise"])
@pytest.mark.parametrize("unit", ["element", "channel"])
@pytest.mark.parametrize("layout", LARGE)
def test_the_number_of_threads_does_not_change_the_bits(layout, unit, params):
    """Large tensors are divided between threads; where they are divided does not matter."""
    input = LARGE[layout]()
    strides, offset = INDICES[unit](input)
    before = torch.get_num_threads()

    outputs = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        outputs.append(by_cpu(input, Mask(4, params, strides, offset)))
    torch.set_num_threads(before)

    expected = by_reference(input, Mask(4, params, strides, offset))
    assert all(same_bits(output, expected) for output in outputs)


@pytest.mark.extension
def test_concurrent_calls_do_not_interfere():
    """Each of twenty threads gets the masks of its key."""
    input = torch.ones(50_000)
    expected = {key: by_cpu(input, Mask(key, inverted(0.5))) for key in range(20)}
    wrong: list[int] = []

    def work(key: int) -> None:
        for _ in range(20):
            if not torch.equal(by_cpu(input, Mask(key, inverted(0.5))), expected[key]):
                wrong.append(key)

    workers = [threading.Thread(target=work, args=(key,)) for key in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert wrong == []


FORKED = """
import os, torch
from dropkit.functional import dropout
input = torch.ones(1_000_000)
torch.set_num_threads(2)
expected = dropout(input, key=1)
child = os.fork()
if child == 0:
    # torch.equal would use torch's own thread pool, which hangs in a forked child.
    os._exit(0 if dropout(input, key=1).numpy().tobytes() == expected.numpy().tobytes() else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
@pytest.mark.extension
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_the_same_masks():
    """A process forked after the thread pool was used neither hangs nor gets other masks."""
    done = subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False)

    assert done.returncode == 0


@pytest.mark.extension
def test_p_is_exact_to_the_last_of_32_bits():
    """The smallest rate drops one word in 2**32, the threshold of p is round(p * 2**32), and p = 1 drops all."""
    assert inverted(2**-32).threshold == 1
    assert inverted(2**-34).threshold == 0
    assert inverted(0.1).threshold == 429496730
    assert inverted(1.0).threshold == alpha(1.0).threshold == 2**32
    for p, key in itertools.product([0.25, 1 - 2**-32], range(50)):
        kept = by_cpu(torch.ones(4), Mask(key, inverted(p))) != 0
        assert kept.tolist() == [oracle.word(index, key) >= round(p * 2**32) for index in range(4)]
