"""Keys: drawn, given, derived."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import oracle
from hypothesis import given
from hypothesis import strategies as st

from dropkit import random
from dropkit.functional import dropout
from dropkit.kernels import cpu
from dropkit.nn.draw_key import draw_key

VECTORS = json.loads((Path(__file__).parent / "vectors" / "mask-v1.json").read_text())
KEYS = st.integers(-(2**63), 2**64 - 1)


def unsigned(key: torch.Tensor) -> int:
    return key.item() % 2**64


@pytest.mark.parametrize("vector", VECTORS["derived keys"], ids=lambda v: f"{v['key']}-{v['n']}")
def test_derived_keys_are_the_published_ones(vector):
    """fold_in is frozen with version 1 of the specification."""
    assert unsigned(random.fold_in(vector["key"], vector["n"])) == vector["fold_in"]
    assert oracle.fold_in(vector["key"], vector["n"]) == vector["fold_in"]


def test_fold_in_is_injective():
    """Different n give different keys: no two of 2**17 collide, for several keys."""
    for key in (0, -1, 12345):
        derived = random.fold_in(key, torch.arange(2**17))
        assert derived.unique().numel() == 2**17


@given(key=KEYS, n=KEYS)
def test_fold_in_can_be_undone(key, n):
    """fold_in is a Feistel network: inverting it gives n, which proves that it is injective."""
    left, right = divmod(unsigned(random.fold_in(key, n)), 2**32)

    for r in (3, 2, 1, 0):
        left, right = right ^ oracle.philox4x32_10((left, 0, r, 1), oracle.halves(key))[0], left

    assert left * 2**32 + right == n % 2**64


def test_fold_in_broadcasts():
    """Keys and numbers broadcast, and each pair gives its own key."""
    keys, numbers = torch.tensor([[1], [2]]), torch.tensor([5, 6, 7])

    derived = random.fold_in(keys, numbers)

    assert derived.shape == (2, 3)
    assert derived[1, 2] == random.fold_in(2, 7)


@pytest.mark.parametrize("missing", [None, "not built"], ids=["extension", "Python"])
@given(key=KEYS, n=KEYS)
def test_a_single_key_is_that_of_a_batch(missing, key, n):
    """One key, which is derived from ints, is the one that torch's operators derive in a batch."""
    key, n = (random.key(number).unsqueeze(0) for number in (key, n))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "missing", cpu.missing or missing)
        assert torch.equal(random.fold_in(key[0], n[0]), random.fold_in(key, n)[0])


def test_split_is_fold_in_of_the_first_numbers():
    """split(key, n)[i] is fold_in(key, i), along a new first dimension."""
    assert random.split(9, 3).tolist() == [random.fold_in(9, i).item() for i in range(3)]
    assert random.split(torch.tensor([1, 2]), 4).shape == (4, 2)
    assert random.split(9, 0).shape == (0,)


@given(seed=KEYS)
def test_key_holds_the_bits_of_the_seed(seed):
    """An int and its key name the same mask."""
    assert unsigned(random.key(seed)) == seed % 2**64
    assert torch.equal(dropout(torch.ones(64), key=seed), dropout(torch.ones(64), key=random.key(seed)))


def test_composed_layers_draw_on_the_host():
    """In eager mode their key is an int, from which other keys are derived without a device; the bits are draw()'s."""
    torch.manual_seed(0)
    drawn = draw_key(torch.ones(3), 0.5, True, None, None)
    torch.manual_seed(0)

    assert type(drawn) is int
    assert drawn == random.draw()


def test_draw_takes_what_a_call_takes():
    """draw() and a dropout call use the same bits of the same generator."""
    torch.manual_seed(3)
    by_call = dropout(torch.ones(64))
    torch.manual_seed(3)

    assert torch.equal(dropout(torch.ones(64), key=random.draw()), by_call)


def test_drawn_keys_use_all_bits():
    """Every one of the 64 bits is as often 1 as 0."""
    keys = torch.stack([random.draw() for _ in range(2000)])
    for bit in range(64):
        ones = (keys >> bit & 1).double().mean().item()
        assert abs(ones - 0.5) < 5 * (0.25 / 2000) ** 0.5


def test_the_default_generator_is_left_alone():
    """A call with generator= or key= does not use torch's default generator."""
    before = torch.get_rng_state()

    dropout(torch.ones(8), generator=torch.Generator())
    dropout(torch.ones(8), key=1)
    random.draw(torch.Generator())

    assert torch.equal(torch.get_rng_state(), before)


def test_a_key_is_taken_as_it_is():
    """Writing to a key tensor after the call does not change the backward pass."""
    for inplace in (False, True):
        x, key = torch.ones(64, requires_grad=True), random.key(7)

        y = dropout(x * 1, key=key, inplace=inplace)
        key.add_(1)
        y.sum().backward()

        assert torch.equal(x.grad, y.detach())


def test_dropkit_can_be_imported_under_a_mode():
    """Importing makes no tensor, so dropkit keeps none of a mode that is active then."""
    code = """
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    import dropkit.functional
import torch
assert dropkit.functional.dropout(torch.ones(64)).sum() > 0
"""

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (2**64, ValueError, r"key must fit 64 bits, in \[-2\*\*63, 2\*\*64\), got 18446744073709551616"),
        (1.0, TypeError, "key must be an int or an int64 tensor, got float"),
        (True, TypeError, "key must be an int or an int64 tensor, got bool"),
        (torch.tensor(1.0), TypeError, "key must be an int or an int64 tensor, got a tensor of torch.float32"),
        (torch.tensor([1, 2]), ValueError, r"key must be 0-d, got shape \(2,\)"),
    ],
    ids=str,
)
def test_a_wrong_key_is_refused(key, error, message):
    """The error names the argument, what is wanted and what was given, also if nothing would be dropped."""
    for training in (True, False):
        with pytest.raises(error, match=message):
            dropout(torch.ones(3), 0.5, training, key=key)


def test_wrong_numbers_are_refused():
    """The functions of dropkit.random raise such errors, too."""
    with pytest.raises(ValueError, match="seed must fit 64 bits"):
        random.key(2**64)
    with pytest.raises(TypeError, match=r"n must be an int64 tensor or an int, got a tensor of torch.float32"):
        random.fold_in(1, torch.ones(2))
    with pytest.raises(ValueError, match="num must be at least 0, got -1"):
        random.split(1, -1)
