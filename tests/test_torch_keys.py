"""torch's own keys, uint64 (seed, offset): taken as `key=` by every call, derived, converted, and torch's own words."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from helpers import oracle
from helpers.kernel_grid import same_bits
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit import random
from dropkit.functional import dropout, dropout1d
from dropkit.kernels import cpu, reference
from dropkit.kernels.key import as_tensor
from dropkit.kernels.mask import Mask, mask_strides
from dropkit.kernels.params import inverted

# Offsets count blocks of four words. Those that torch's `split` makes have 64 random bits, so four times as many words
# are before most of them as 64 bits can count; the last two wrap within a call.
PAIRS = [(7, 0), (2**64 - 1, 5), (11, 2**32 - 3), (3, 2**61), (5, 2**63 - 1), (2**63 + 9, 2**64 - 3), (0, 2**64 - 1)]
LARGE = (2**63 + 9, 2**64 - 3)
X = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))


def key_of(pair: tuple[int, int]) -> Tensor:
    return torch.tensor(pair, dtype=torch.uint64)


def kept_by_oracle(pair: tuple[int, int], p: float, size: int, first: int = 0) -> Tensor:
    seed, offset = pair
    return torch.tensor([oracle.keeps(index, seed, p, offset) for index in range(first, first + size)])


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_an_element_uses_the_word_that_torch_gives_it(pair):
    """Element i is kept by word i % 4 of block offset + i // 4, modulo 2**64, in every memory layout."""
    kept = kept_by_oracle(pair, 0.3, 240).view(4, 60)
    for input in (torch.ones(4, 60), torch.ones(60, 4).t(), torch.ones(4, 120)[:, ::2]):
        assert torch.equal(dropout(input, 0.3, key=key_of(pair)) != 0, kept)


@pytest.mark.extension
@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("level", [level for level, runs_here in cpu.levels().items() if runs_here])
def test_every_kernel_counts_from_the_first_block(monkeypatch, level, pair):
    """Every instruction set gives the bits of the reference: dense, by rows, transposed, from inside a block on."""
    before = cpu.level()
    for input in (X, X.mT, X[:, ::3], torch.randn(70, 300).t()):
        for strides, offset in ((None, 0), (mask_strides((*input.shape[:-1], 1)), 0), (None, 4097)):
            mask = Mask(key_of(pair), inverted(0.4), strides, offset)
            expected, output = torch.empty_like(input), torch.empty_like(input)
            reference.drop(expected, input, mask)
            try:
                cpu.use_level(level)
                cpu.drop(output, input, mask)
            finally:
                cpu.use_level(before)
            assert same_bits(output, expected)


def test_an_offset_of_0_gives_the_masks_of_the_int64_key(layer):
    """[seed, 0] is the key of these 64 bits, for every layer."""
    input = torch.ones(layer.example_shape)
    for seed in (7, 2**64 - 1):
        expected = layer.function(input, 0.4, True, key=seed)
        assert same_bits(layer.function(input, 0.4, True, key=key_of((seed, 0))), expected)


def test_every_way_to_call_a_layer_takes_torchs_key(layer):
    """Function, module, in place, operator and reference give the same bits, and all derivatives the same mask."""
    input, key = torch.randn(layer.example_shape), key_of(LARGE)
    strides = None if layer.mask_shape is None else mask_strides(layer.mask_shape(input.shape))
    expected = torch.empty_like(input)
    reference.drop(expected, input, Mask(key, layer.params(0.4), strides))

    def call(x: Tensor) -> Tensor:
        return layer.function(x, 0.4, True, key=key)

    ways = {
        "function": call(input),
        "module": layer.module(0.4)(input, key=key),
        "in place": layer.function(input.clone(), 0.4, True, True, key=key),
        "operator": torch.vmap(call)(input[None])[0],
    }
    for name, output in ways.items():
        assert same_bits(output, expected), name
    leaf = input.clone().requires_grad_()
    call(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.func.grad(lambda x: call(x).sum())(input))
    assert torch.equal(leaf.grad, torch.func.jvp(call, (input,), (torch.ones_like(input),))[1])


@pytest.mark.parametrize("key_dim", [0, 1])
@pytest.mark.parametrize("in_dim", [None, 0, 2])
def test_vmap_gives_each_slice_its_own_of_torchs_keys(key_dim, in_dim):
    """A batch of keys gives what a loop gives, wherever the batch lies; two levels of vmap as well."""
    keys = torch.stack([key_of(pair) for pair in PAIRS[:5]])
    inputs = [X] * 5 if in_dim is None else list(torch.randn(5, *X.shape))
    input = X if in_dim is None else torch.stack(inputs, in_dim)
    for function in (dropout, dropout1d):

        def call(x: Tensor, key: Tensor, function=function) -> Tensor:
            return function(x, 0.4, key=key)

        expected = torch.stack([call(x, key) for x, key in zip(inputs, keys, strict=True)])
        batched = keys.movedim(0, key_dim).contiguous()
        assert torch.equal(torch.vmap(call, (in_dim, key_dim))(input, batched), expected)
        nested = torch.vmap(torch.vmap(call, (in_dim, 0)), (None, 0))(input, torch.stack([keys, keys]))
        assert torch.equal(nested[1], expected)


def test_per_sample_gradients_take_torchs_keys():
    """vmap of grad over a batch of keys gives each sample the gradient under its key."""
    keys, weight = torch.stack([key_of(pair) for pair in PAIRS]), torch.randn(5)

    def loss(weight: Tensor, key: Tensor) -> Tensor:
        return dropout(X * weight, 0.4, key=key).square().sum()

    expected = torch.stack([torch.func.grad(loss)(weight, key) for key in keys])
    assert torch.equal(torch.vmap(torch.func.grad(loss), (None, 0))(weight, keys), expected)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_takes_torchs_key(backend):
    """Output, gradient and derived keys are those of eager mode, and another key needs no new graph."""
    torch.compiler.reset()

    def step(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return dropout1d(dropout(x, 0.4, key=key) * 2, 0.3, key=random.fold_in(key, 1)), random.split(key, 3)

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for pair in PAIRS:
        inputs = [X.clone().requires_grad_() for _ in range(2)]
        (output, keys), (expected, expected_keys) = compiled(inputs[0], key_of(pair)), step(inputs[1], key_of(pair))
        output.sum().backward()
        expected.sum().backward()
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled(inputs[0], key_of(pair))
        assert torch.equal(output, expected)
        assert torch.equal(keys, expected_keys)
        assert torch.equal(inputs[0].grad, inputs[1].grad)


class Keyed(nn.Module):
    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return dropout(x.exp(), 0.4, self.training, key=key)


@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
def test_an_exported_program_takes_torchs_key():
    """The key is an input of the program, whose mask is that of the eager call, at any offset."""
    program = torch.export.export(Keyed(), (X, key_of((1, 0)))).module()

    assert torch.equal(program(X, key_of(LARGE)), Keyed()(X, key_of(LARGE)))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_recomputes_the_mask_of_torchs_key(use_reentrant):
    """The second run of a region uses the same mask."""
    input = X.clone().requires_grad_()

    output = torch.utils.checkpoint.checkpoint(Keyed(), input, key_of(LARGE), use_reentrant=use_reentrant)
    output.sum().backward()

    assert torch.equal(input.grad, output)


def test_a_key_that_is_written_to_later_does_not_change_the_gradient():
    """A call takes the key as it is."""
    input, key = torch.ones(64, requires_grad=True), key_of(LARGE)

    output = dropout(input, key=key)
    key.fill_(3)
    output.sum().backward()

    assert torch.equal(input.grad, output)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_tensors_take_torchs_key(layout):
    """The mask runs on from component to component."""
    components = [torch.ones(3, 4), torch.ones(5, 4)]
    nested = torch.nested.nested_tensor(components, layout=layout)

    output = torch.cat(list(dropout(nested, 0.3, key=key_of(LARGE)).unbind()))

    assert torch.equal(output != 0, kept_by_oracle(LARGE, 0.3, 32).view(8, 4))


def test_shapes_without_values_take_torchs_key():
    """On the meta device, in a fake mode, and a fake input outside of its mode."""
    assert dropout(X.to("meta"), key=key_of(LARGE).to("meta")).shape == X.shape
    assert random.split(key_of(LARGE).to("meta"), 4).shape == (4, 2)
    mode = FakeTensorMode()
    fake, fake_key = mode.from_tensor(X), mode.from_tensor(key_of(LARGE))
    assert dropout(fake, key=key_of(LARGE)).shape == X.shape
    with mode:
        assert dropout(fake, key=fake_key).shape == X.shape
        assert random.fold_in(fake_key, 1).dtype == torch.uint64
    with pytest.raises(ValueError, match="key must be on the device of the input"):
        dropout(X, key=key_of(LARGE).to("meta"))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_derived_keys_are_those_that_torch_derives(pair):
    """fold_in and split of torch's key give torch's keys: the words of block offset + n, modulo 2**64."""
    for n in (0, 1, 2**63 - 1, -1, 2**64 - 2):
        assert tuple(random.fold_in(key_of(pair), n).tolist()) == oracle.fold_in_torchs_key(*pair, n)
    assert random.split(key_of(pair), 3).tolist() == [list(oracle.fold_in_torchs_key(*pair, n)) for n in range(3)]


def test_deriving_from_torchs_keys_broadcasts():
    """A batch of keys and numbers, in eager mode and under vmap, wherever the batch lies."""
    keys, numbers = torch.stack([key_of(pair) for pair in PAIRS]), torch.tensor([[3], [4]])
    expected = torch.tensor(
        [[oracle.fold_in_torchs_key(*pair, n) for pair in PAIRS] for n in (3, 4)], dtype=torch.uint64
    )

    assert torch.equal(random.fold_in(keys, numbers), expected)
    assert random.split(keys, 4).shape == (4, len(PAIRS), 2)
    over_keys = torch.vmap(random.fold_in, (1, None), 1)(keys.t().contiguous(), numbers[:, 0])
    assert torch.equal(over_keys, expected)
    over_numbers = torch.vmap(random.fold_in, (None, 0))(keys, numbers)
    assert torch.equal(over_numbers, expected)


def test_keys_are_converted_both_ways():
    """An int64 key is the seed of torch's key at offset 0, whatever its sign and the shape of the batch."""
    for key in (7, -1, 2**64 - 1, random.key(-5), torch.tensor([[1, -2], [3, -4]])):
        converted = random.to_torch(key)
        assert converted.dtype == torch.uint64
        expected = key if isinstance(key, Tensor) else random.key(key)
        assert torch.equal(random.from_torch(converted), expected)
        assert torch.equal(random.to_torch(converted), converted)
    assert random.to_torch(-1).tolist() == [2**64 - 1, 0]
    assert torch.equal(torch.vmap(random.to_torch)(torch.arange(3)), random.to_torch(torch.arange(3)))


def test_a_key_with_an_offset_has_no_int64_key():
    """from_torch refuses what an int64 key cannot hold, and code where the offset cannot be read."""
    with pytest.raises(ValueError, match=r"key must have offset 0, got 18446744073709551613; pass it as key= itself"):
        random.from_torch(torch.stack([key_of((1, 0)), key_of(LARGE)]))
    with pytest.raises(RuntimeError, match="from_torch reads the offset of key"):
        torch.vmap(random.from_torch)(key_of((1, 0))[None])
    with pytest.raises(TypeError, match=r"key must be a uint64 tensor of shape \(\*, 2\).*got a tensor of torch.int64"):
        random.from_torch(torch.tensor([1, 0]))
    with pytest.raises(TypeError, match=r"key must be an int64 tensor or an int, got a tensor of torch\.float32"):
        random.to_torch(torch.tensor(1.0))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 2), (2, 1), (0, 2)], ids=str)
def test_a_uint64_tensor_of_another_shape_is_refused(shape):
    """The error says which shape is wanted, also where nothing would be dropped; a batch is for vmap."""
    key = torch.zeros(shape, dtype=torch.uint64)
    for training in (True, False):
        with pytest.raises(ValueError, match=r"key must be of shape \(2,\) where it is uint64.*got shape \("):
            dropout(X, 0.5, training, key=key)
    if shape[-1:] != (2,):
        with pytest.raises(TypeError, match=r"key must be a uint64 tensor of shape \(\*, 2\)"):
            random.fold_in(key, 1)
    with pytest.raises(ValueError, match="key must be None where generator is given"):
        dropout(X, key=key_of(LARGE), generator=torch.Generator())


def test_an_int64_pair_is_not_torchs_key():
    """Two int64 numbers are refused as before: they may as well be two keys."""
    with pytest.raises(ValueError, match=r"key must be 0-d, got shape \(2,\)"):
        dropout(X, key=torch.tensor([7, 0]))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_block_has_the_words_of_torchs_source(tmp_path):
    """The function that torch's kernels call for a block, compiled for the host, gives the oracle's four words."""
    include = Path(torch.__file__).parent / "include"
    if not (include / "ATen/cuda/StatelessPhilox4x32.cuh").exists():
        pytest.skip(f"torch {torch.__version__} has no stateless Philox")
    (tmp_path / "block.cpp").write_text(r"""
#include <cstdint>
#define __device__
#define __forceinline__ inline
struct uint2 { std::uint32_t x, y; };
struct uint4 { std::uint32_t x, y, z, w; };
static std::uint32_t __umulhi(std::uint64_t a, std::uint64_t b) { return a * b >> 32; }
#include <ATen/cuda/StatelessPhilox4x32.cuh>
extern "C" void block(std::uint64_t seed, std::uint64_t offset, uint4* words) {
  *words = at::cuda::philox_4x32(seed, offset);
}
""")
    library = tmp_path / "block.so"
    subprocess.run(["g++", "-w", "-shared", "-fPIC", f"-I{include}", tmp_path / "block.cpp", "-o", library], check=True)
    block = ctypes.CDLL(str(library)).block
    for seed, offset in PAIRS:
        words = (ctypes.c_uint32 * 4)()
        block(ctypes.c_uint64(seed), ctypes.c_uint64(offset), words)
        assert list(words) == [oracle.word(lane, seed, offset) for lane in range(4)]


DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_torchs_own_numbers_come_from_the_same_words(device):
    """uniform() takes the low bits of an element's word, 24 in float32; torch's derived keys are dropkit's."""
    torchs = pytest.importorskip("torch.func._random", reason=f"torch {torch.__version__} has no keys of its own")
    low_bits = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
    for pair in PAIRS:
        key = key_of(pair).to(device)
        try:
            derived = torchs.split(key, 3), torchs.fold_in(key, 5)
            uniform = {dtype: torchs.uniform(key, (66,), dtype=dtype) for dtype in (*low_bits, torch.float64)}
        except NotImplementedError:
            pytest.skip(f"torch {torch.__version__} has no kernel for its keys on {device}")
        if device == "meta":  # torch's checks of shapes and dtypes
            assert derived[0].shape == random.split(key, 3).shape
            continue
        assert torch.equal(derived[0], random.split(key, 3))
        assert torch.equal(derived[1], random.fold_in(key, 5))
        words = torch.tensor([oracle.word(index, *pair) for index in range(132)])
        for dtype, bits in low_bits.items():
            integers = (uniform[dtype].cpu().double() * 2**bits).long()
            assert torch.equal(integers, words[:66] & (2**bits - 1)), dtype
        # float64 takes two words for an element, so it has no more to do with the mask.
        integers = (uniform[torch.float64].cpu() * 2**53).long()
        assert torch.equal(integers, (words[::2] << 32 | words[1::2]) & (2**53 - 1))
        kept = words[:66] >= round(0.3 * 2**32)
        assert torch.equal(dropout(torch.ones(66, device=device), 0.3, key=key).cpu() != 0, kept)


def test_a_pair_of_numbers_is_not_copied_to_a_device():
    """On a GPU a copy from the CPU would wait for the device, and graphs cannot capture it."""
    called: list[str] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.name())
            return func(*args, **(kwargs or {}))

    with Seen():
        made = [as_tensor(pair, torch.device("cpu")) for pair in ((7, 1), (-1, 2**64 - 3), (2**63, -(2**63)))]
        as_tensor((7, 1), torch.device("meta"))

    assert [key.tolist() for key in made] == [[7, 1], [2**64 - 1, 2**64 - 3], [2**63, 2**63]]
    assert not {"aten::_to_copy", "aten::copy_", "aten::lift_fresh"} & {*called}
