"""Arguments that the CPU kernel refuses, instead of reading memory that is not the tensor's."""

import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from dropkit.functional import dropout
from dropkit.kernels import cpu
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import NoiseParams, gaussian, inverted


@pytest.mark.extension
def test_the_extension_refuses_what_it_cannot_run():
    """Wrong numbers and types of arguments raise instead of crashing."""
    mask = Mask(0, inverted(0.5))
    good = [0, 0, 0, mask, 0]
    beyond = inverted(0.5)._replace(threshold=2**32 + 1)
    for position, wrong in [
        (2, 4),
        (2, -1),
        (3, (0,)),
        (3, Mask(0, (1, 2))),
        (3, Mask(0, beyond)),
        (3, Mask(0, (2, 1.0, 0.0))),
    ]:
        arguments = good.copy()
        arguments[position] = wrong
        with pytest.raises(ValueError, match=r"dtype|mask|params|threshold"):
            cpu._cpu.drop(*arguments)
    with pytest.raises(ValueError, match="5 to 8 arguments"):
        cpu._cpu.drop(*good, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="those of noise, and add"):
        cpu._cpu.drop(0, 0, 0, Mask(0, gaussian(0.5)), 0, 1)
    with pytest.raises(ValueError, match="threshold is not below"):
        cpu._cpu.drop(0, 0, 0, Mask(0, inverted(1.0)), 0, 1)
    with pytest.raises(ValueError, match="equal length"):
        cpu._cpu.drop(0, 0, 0, Mask(0, inverted(0.5), (1,) * 65), (1,) * 65, (1,) * 65, (1,) * 65)
    with pytest.raises(TypeError):
        cpu._cpu.drop(0, 0, 0, mask, "many")
    with pytest.raises(TypeError):
        cpu._cpu.drop(0, 0, 0, Mask("none", inverted(0.5)), 0)


@pytest.mark.extension
def test_the_extension_takes_only_tuples_and_memory():
    """Lists raise TypeError, null pointers and negative sizes ValueError."""
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
        # These are valid inputs, and no addition is valid, too.
        if place == "output" or wrong not in ("expanded", "shifted", "None") or (wrong, place) == ("None", "input")
    ],
)
def test_tensors_that_do_not_fit_are_refused(wrong, place):
    """The check raises before the extension gets an address."""
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
    [2**70, -(2**63) - 1, "a", None, 1.5, torch.ones(()), torch.ones(2).long(), torch.ones((), device="meta").long(),
     (), (1,), (1, 2, 3), (1, "a"), (1, 2**64), torch.tensor(1, dtype=torch.uint64)],
)  # fmt: skip
def test_wrong_keys_are_refused(key):
    """A key is 64 bits: an int, or an int64 tensor with memory, 0-d or of the input's first sizes."""
    with pytest.raises((TypeError, ValueError), match=r"^key must"):
        cpu.drop(torch.ones(12), torch.ones(12), Mask(key, inverted(0.5)))


KEYS = torch.arange(12).view(3, 4)
FREED_KEYS = torch.arange(3)
FREED_KEYS.untyped_storage().resize_(0)
WRONG_NUMBERS = {
    "another size": KEYS[0], "more dimensions": KEYS[:, :, None].expand(3, 4, 5), "dtype": KEYS[:, 0].int(),
    "unsigned": KEYS[:, 0].to(torch.uint64), "triples": KEYS[:, :3].to(torch.uint64),
    "too many pairs": KEYS[:, :2].to(torch.uint64).expand(3, 3, 2), "floats": KEYS[:, 0].double(),
    "meta": KEYS[:, 0].to("meta"),
    "sparse": KEYS[:, 0].to_sparse(), "freed": FREED_KEYS,
}  # fmt: skip


@pytest.mark.extension
@pytest.mark.parametrize("wrong", WRONG_NUMBERS)
def test_wrong_batches_of_keys_are_refused(wrong):
    """Keys for slices have the sizes of the slices' dimensions, 64 bits or a pair each, and memory on which all lie."""
    with pytest.raises((TypeError, ValueError), match=r"^key must"):
        cpu.drop(torch.ones(3, 4), torch.ones(3, 4), Mask(WRONG_NUMBERS[wrong], inverted(0.5)))


@pytest.mark.extension
def test_the_extension_takes_no_more_strides_of_keys_than_there_are_dimensions():
    """Wrong numbers and types of strides raise, and so does an address of 0."""
    x, keys, mask = torch.ones(3, 4), torch.arange(3), Mask(0, inverted(0.5), (4, 1))
    good = [x.data_ptr(), x.data_ptr(), 0, mask, (3, 4), (4, 1), (4, 1)]
    at = keys.data_ptr()
    for wrong in [(), (at, 0), (at, 0, (1, 1, 1)), (at, 0, (1,), ()), (0, 0, (1,))]:
        with pytest.raises(ValueError, match=r"slices must be|must not be null"):
            cpu._cpu.drop(*good, wrong)
    for wrong in [None, [at, 0, (1,)], (at, 0, [1]), ("a", 0, (1,)), (at, 0, ("a",))]:
        with pytest.raises(TypeError):
            cpu._cpu.drop(*good, wrong)


@pytest.mark.extension
@pytest.mark.parametrize(("strides", "overlaps"), [((1, 1), True), ((2, 3), False), ((3, 1), False), ((0, 1), True)])
def test_an_output_that_overlaps_itself_is_refused(strides, overlaps):
    """An output may interleave elements, but no two may share memory, also with nonzero strides."""
    output, refused = torch.zeros(50).as_strided((3, 2), strides), pytest.raises(ValueError, match="overlap itself")
    with refused if overlaps else nullcontext():
        cpu.drop(output, torch.ones(3, 2), Mask(0, inverted(0.5)))


@pytest.mark.extension
@pytest.mark.parametrize(
    "params", [None, (1, 2), [1, 1.0, 0.0, 0.0], (-1, 1.0, 0.0, 0.0), ("a", 1.0, 0.0, 0.0), NoiseParams(2, 1.0, 0.0)]
)
@pytest.mark.parametrize("strides", [None, (1,)])
def test_wrong_params_are_refused(params, strides):
    """Params are a tuple of four numbers, with the threshold in range."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        cpu.drop(torch.ones(12), torch.ones(12), Mask(0, params, strides))


@pytest.mark.extension
@pytest.mark.parametrize("inplace", [False, True])
def test_a_tensor_with_freed_memory_raises(inplace):
    """Sharded training frees storages; torch's dropout crashes on such a tensor."""
    with pytest.raises(ValueError, match="must not be null"):
        dropout(FREED, 0.5, inplace=inplace)
