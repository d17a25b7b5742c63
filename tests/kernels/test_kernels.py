"""The kernels: known answers, and every kernel equal to the reference to the bit."""

import ctypes
import importlib.metadata
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import oracle
from helpers.kernel_grid import DTYPES, GRID, INDICES, LAYOUTS, by_reference, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dropkit import kernels
from dropkit.functional import dropout
from dropkit.kernels import cpu, gpu, reference
from dropkit.kernels.mask import Mask, row_major
from dropkit.kernels.params import alpha, inverted
from dropkit.ops import inductor

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
    """A mask is a function of key, coin and p alone: the frozen vectors of version 1."""
    for vector in VECTORS["masks"]:
        ones = torch.ones(vector["n"])

        output = by_cpu(ones, Mask(vector["key"], inverted(vector["p"]), (1,), vector["first"]))

        bits = sum(1 << i for i, kept in enumerate((output != 0).tolist()) if kept)
        assert f"{bits:0{vector['n'] // 4}x}" == vector["keep"], vector


def test_vectors_come_from_the_oracle():
    """The frozen file holds what the specification says, not what a kernel once gave."""
    for vector in VECTORS["masks"]:
        assert oracle.keep_bits(vector["first"], vector["n"], vector["key"], vector["p"]) == vector["keep"]


@pytest.mark.parametrize(("indices", "dtype"), GRID, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_level_gives_the_bits_of_the_reference(layout, indices, dtype):
    """Whatever the layout, the coins, the dtype and the rule: output equals the reference to the bit."""
    input = LAYOUTS[layout]().to(dtype)
    strides, offset = INDICES[indices](input)
    rules = [inverted(0.3), alpha(0.3)]
    if indices == "element":
        # Nothing kept, and a fill without a shift, which no layer has yet.
        rules += [inverted(1.0), inverted(0.3)._replace(fill=-1.5)]

    for values in rules:
        expected = by_reference(input, Mask(-5, values, strides, offset))
        for level in LEVELS:
            with at_level(level):
                assert same_bits(by_cpu(input, Mask(-5, values, strides, offset)), expected), (level, values)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("expanded", "overlapping")])
def test_in_place_gives_the_bits_of_out_of_place(layout, level):
    """Reading and writing the same memory changes nothing, and nothing outside of the tensor is written."""
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
    """No element, no access."""
    for shape in [(0,), (3, 0), (0, 4, 5)]:
        assert by_cpu(torch.empty(shape), Mask(1, inverted(0.5))).shape == shape


@pytest.mark.extension
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_walks_give_the_bits_of_the_reference(data):
    """Any shape, any order of dimensions in memory, any gaps, any steps, any first coin, any level."""
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
@pytest.mark.parametrize("unit", ["element", "channel"])
@pytest.mark.parametrize("layout", LARGE)
def test_the_number_of_threads_does_not_change_the_bits(layout, unit):
    """Large tensors are cut up between threads; where the cuts are does not matter."""
    input = LARGE[layout]()
    strides, offset = INDICES[unit](input)
    before = torch.get_num_threads()

    outputs = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        outputs.append(by_cpu(input, Mask(4, inverted(0.5), strides, offset)))
    torch.set_num_threads(before)

    expected = by_reference(input, Mask(4, inverted(0.5), strides, offset))
    assert all(same_bits(output, expected) for output in outputs)


@pytest.mark.extension
def test_twenty_threads_at_once():
    """Concurrent calls do not disturb one another: each thread's masks are those of its key."""
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
def test_a_forked_child_can_go_on():
    """A process forked after the thread pool was used neither hangs nor draws other masks."""
    done = subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False)

    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_the_environment_forces_a_level(name):
    """DROPKIT_CPU_LEVEL chooses the instruction set of a process."""
    code = "from dropkit.kernels import cpu; print(cpu.level())"
    environment = os.environ | {cpu.LEVEL: name}

    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == name


def test_an_unknown_level_is_refused():
    """The error names the variable, what is possible here and what came."""
    with pytest.raises(ValueError, match=rf"DROPKIT_CPU_LEVEL must be one of {', '.join(LEVELS)} .* got 'sse9'"):
        cpu.use_level("sse9")


def without_extension(monkeypatch):
    """The reference serves the CPU."""
    monkeypatch.setattr(kernels, "_on_cpu", reference.drop)


def test_the_reference_leaves_gradients_to_its_callers(monkeypatch):
    """In place, where autograd sees what a kernel made of operators does, the gradient is that of one dropout."""
    without_extension(monkeypatch)
    x = torch.ones(64, requires_grad=True)

    output = dropout(x * 1, 0.5, inplace=True, key=3)
    output.sum().backward()

    assert torch.equal(x.grad, output)


def test_compiled_code_on_disk_runs_without_the_extension(monkeypatch):
    """What inductor wrote when there was an extension calls the kernel that there is now."""
    without_extension(monkeypatch)
    monkeypatch.setattr(cpu, "_drop", None)
    output = torch.empty(64)

    inductor.drop_v1(torch.ones(64), torch.tensor(3), *inverted(0.5), None, 0, out=output)

    assert torch.equal(output, by_reference(torch.ones(64), Mask(3, inverted(0.5))))


@pytest.mark.extension
def test_one_thread_is_said_once_with_the_reason(monkeypatch):
    """Where torch's thread pool cannot be reached the kernel runs all the same, with one warning."""
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace())
    spec = importlib.util.spec_from_file_location("dropkit.kernels.alone", cpu.__file__)
    alone = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(alone)
    finally:
        monkeypatch.undo()
        cpu._cpu.use_pool(cpu._torch_parallel_for())
    monkeypatch.setattr(cpu, "single_threaded", alone.single_threaded)
    monkeypatch.setattr(kernels, "_on_cpu", kernels._drop_on_one_thread)

    with pytest.warns(
        kernels.SlowKernelWarning, match=r"runs on one thread: torch 2\..* exports no torch_parallel_for"
    ) as said:
        first, second = dropout(torch.ones(64), key=7), dropout(torch.ones(64), key=7)

    assert len(said) == 1
    assert torch.equal(first, second)
    assert alone.detail().endswith(f"one thread, because {alone.single_threaded}")


@pytest.mark.parametrize(("spec", "gil", "reason"), [
    (None, 0, "is missing, since dropkit was installed without a working C++17 compiler"),
    (None, 1, "is not built for free-threaded Python"),
    ("there", 0, "cannot be loaded (wrong ELF class)"),
])  # fmt: skip
def test_a_missing_extension_says_why(spec, gil, reason, monkeypatch):
    """Not built, not to be built, and built for another machine are three things."""
    monkeypatch.setattr(cpu, "PathFinder", SimpleNamespace(find_spec=lambda name, path: spec))
    monkeypatch.setattr(cpu, "sysconfig", SimpleNamespace(get_config_var=lambda name: gil))

    assert f"the compiled extension {reason}" in cpu._why_missing(ImportError("wrong ELF class"))


@pytest.mark.parametrize(("module", "said"), [
    (SimpleNamespace(__version__="3.4.0+rocm"), "Triton 3.4.0+rocm"),
    (None, "Triton, which cannot be imported"),
])  # fmt: skip
def test_triton_is_known_by_its_module(module, said, monkeypatch):
    """AMD's and Intel's builds of torch bring it along under the names of other distributions."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: fails())
    monkeypatch.setitem(sys.modules, "triton", module)

    assert gpu.detail().startswith(said)


def fails():
    raise importlib.metadata.PackageNotFoundError("triton")


WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["dropkit.kernels._cpu"] = None
import torch
from dropkit.functional import dropout
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first, second = dropout(torch.ones(8), key=7), dropout(torch.ones(8), key=7)
assert first.tolist() == [2, 2, 0, 0, 0, 2, 0, 2], first
print(*[f"{w.category.__name__}: {w.message}" for w in caught], sep="\\n")
"""


@pytest.mark.slow
def test_falling_back_is_said_once_with_the_reason():
    """Without the compiled kernel the reference serves, with the same masks and one warning."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "SlowKernelWarning: dropkit runs its slow reference kernel on cpu: the compiled extension"
    )


@pytest.mark.extension
def test_every_device_has_a_kernel():
    """The first kernel that serves a device is used, and the last serves all."""
    assert kernels.kernel_for("cpu").name == "cpu"
    assert kernels.kernel_for("meta").name == "meta"
    assert kernels.KERNELS[-1].devices is None
    assert kernels.why_slow("cpu") is None
    assert kernels.why_slow("abacus") == "no kernel was written for this device"


@pytest.mark.extension
def test_the_extension_refuses_what_it_cannot_run():
    """Wrong numbers and kinds of arguments are errors, not crashes."""
    mask = Mask(0, inverted(0.5))
    good = [0, 0, 0, mask, 0]
    beyond = inverted(0.5)._replace(threshold=2**32 + 1)
    for position, wrong in [(2, 4), (2, -1), (3, (0,)), (3, Mask(0, (1, 2))), (3, Mask(0, beyond))]:
        arguments = good.copy()
        arguments[position] = wrong
        with pytest.raises(ValueError, match=r"dtype|mask|params|threshold"):
            cpu._cpu.drop(*arguments)
    with pytest.raises(ValueError, match="5, 6 or 7 arguments"):
        cpu._cpu.drop(*good, 1, 1, 1)
    with pytest.raises(ValueError, match="threshold is not below"):
        cpu._cpu.drop(0, 0, 0, Mask(0, inverted(1.0)), 0, 1)
    with pytest.raises(ValueError, match="equal length"):
        cpu._cpu.drop(0, 0, 0, Mask(0, inverted(0.5), (1,) * 65), (1,) * 65, (1,) * 65, (1,) * 65)
    with pytest.raises(TypeError):
        cpu._cpu.drop(0, 0, 0, mask, "many")
    with pytest.raises(TypeError):
        cpu._cpu.drop(0, 0, 0, Mask("none", inverted(0.5)), 0)


@pytest.mark.extension
def test_the_extension_takes_tuples_and_memory_alone():
    """Lists are TypeErrors, null pointers and negative sizes ValueErrors."""
    x = torch.ones(4)
    mask = Mask(0, inverted(0.5), (1,))
    good = [x.data_ptr(), x.data_ptr(), 0, mask, (4,), (1,), (1,)]
    lists = [(3, mask._replace(params=list(mask.params))), (3, mask._replace(strides=[1]))]
    for position, wrong in [*((place, list(good[place])) for place in (3, 4, 5, 6)), *lists]:
        with pytest.raises(TypeError, match="must be a tuple"):
            cpu._cpu.drop(*good[:position], wrong, *good[position + 1 :])
    for position, wrong in [(0, 0), (1, 0), (4, (-4,))]:
        with pytest.raises(ValueError, match=r"must (not be null|be at least 0)"):
            cpu._cpu.drop(*good[:position], wrong, *good[position + 1 :])
    with pytest.raises(ValueError, match="must not be null"):
        cpu._cpu.drop(*good[:4], 4, 0)


ROW = torch.ones(12)
FREED = torch.ones(12)
FREED.untyped_storage().resize_(0)
WRONG_TENSORS = {
    "short": ROW[:5], "long": torch.ones(99), "shape": torch.ones(3, 4), "dtype": torch.ones(12).double(),
    "integers": torch.ones(12, dtype=torch.int64), "meta": torch.empty(12, device="meta"),
    "sparse": torch.ones(12).to_sparse(), "list": [1.0] * 12, "array": torch.ones(12).numpy(), "None": None,
    "negated": torch.full((12,), 1j).conj().imag,
    "freed": FREED, "expanded": torch.ones(1).expand(12), "shifted": torch.ones(13)[1:],
    "nested": torch.nested.nested_tensor([torch.ones(12)], layout=torch.jagged),
}  # fmt: skip


@pytest.mark.extension
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (wrong, place)
        for wrong, place in itertools.product(WRONG_TENSORS, ("output", "input", "add"))
        # A good input, and no addition.
        if place == "output" or wrong not in ("expanded", "shifted", "None") or (wrong, place) == ("None", "input")
    ],
)
def test_tensors_that_do_not_fit_are_refused(wrong, place):
    """Before the extension is given an address: an error, never a crash."""
    tensors: dict[str, Any] = {"output": torch.ones(12), "input": torch.ones(12), "add": torch.ones(12)}
    tensors[place] = WRONG_TENSORS[wrong]
    if wrong == "shifted":
        tensors["input"] = WRONG_TENSORS[wrong]._base[:12]

    with pytest.raises((TypeError, ValueError), match=r"(output|input|add) must"):
        cpu.drop(tensors["output"], tensors["input"], Mask(0, inverted(0.5)), tensors["add"])


@pytest.mark.extension
@pytest.mark.parametrize(
    ("strides", "offset"),
    [((), 0), ((1, 1), 0), ((-1,), 0), ((2**63,), 0), ((2**62,), 0), (("a",), 0), (1, 0), ("x", 0),
     ((1.5,), 0), (None, -1), (None, 2**63), (None, 2**63 - 5), (None, 1.0), (None, None)],
)  # fmt: skip
def test_wrong_mask_indices_are_refused(strides, offset):
    """As many strides as dimensions, none negative, and all mask indices below 2**63."""
    with pytest.raises((TypeError, ValueError)):
        cpu.drop(torch.ones(12), torch.ones(12), Mask(0, inverted(0.5), strides, offset))


@pytest.mark.extension
@pytest.mark.parametrize(
    "key",
    [2**70, -(2**63) - 1, "a", None, 1.5, torch.ones(()), torch.ones(2).long(), torch.ones((), device="meta").long()],
)
def test_keys_that_are_none_are_refused(key):
    """64 bits, as an int or a 0-d int64 tensor that can be read."""
    with pytest.raises((TypeError, ValueError), match=r"^key must"):
        cpu.drop(torch.ones(12), torch.ones(12), Mask(key, inverted(0.5)))


@pytest.mark.extension
@pytest.mark.parametrize(("strides", "overlaps"), [((1, 1), True), ((2, 3), False), ((3, 1), False), ((0, 1), True)])
def test_an_output_that_overlaps_itself_is_refused(strides, overlaps):
    """Also where no stride is 0; not where elements lie between one another."""
    output, refused = torch.zeros(50).as_strided((3, 2), strides), pytest.raises(ValueError, match="overlap itself")
    with refused if overlaps else nullcontext():
        cpu.drop(output, torch.ones(3, 2), Mask(0, inverted(0.5)))


@pytest.mark.extension
@pytest.mark.parametrize("params", [None, (1, 2), [1, 1.0, 0.0, 0.0], (-1, 1.0, 0.0, 0.0), ("a", 1.0, 0.0, 0.0)])
@pytest.mark.parametrize("strides", [None, (1,)])
def test_wrong_params_are_refused(params, strides):
    """Four numbers in a tuple, the threshold among them in range."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        cpu.drop(torch.ones(12), torch.ones(12), Mask(0, params, strides))


@pytest.mark.extension
@pytest.mark.parametrize("inplace", [False, True])
def test_a_tensor_without_its_memory_is_an_error(inplace):
    """Whose storage was freed, as sharded training frees it: torch crashes."""
    with pytest.raises(ValueError, match="must not be null"):
        dropout(FREED, 0.5, inplace=inplace)


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
