"""Keys: the 64 bits that decide a whole mask; making, drawing, deriving, converting and checking them.

A key is a 0-d int64 tensor or an int, or one of torch's own, a uint64 tensor (2,). The former are derived by
Philox4x32-10 under counters that no mask uses: word 3 of the counter is 0 for masks and 1 here.
"""

from __future__ import annotations

import ctypes
import threading
from operator import index
from typing import cast

import torch
from torch import Generator, Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.kernels.gpu import keys
from dropkit.kernels.key import HIGHEST, LOWEST, Key, as_tensor, batch_shape, is_pair, seed_and_first_block
from dropkit.ops import autograd, custom_op, recompute
from dropkit.ops.draw_key import draw as draw_traced
from dropkit.ops.fold_in import fold_in as fold_in_eager
from dropkit.ops.fold_in import fold_in_traced
from dropkit.public_names import public_names
from dropkit.torch_private import FakeTensor, backward_pass, fake_mode, forward_mode_is_enabled, saved_tensors_hooks

__all__ = [
    "check_key",
    "check_pairs",
    "choose_key",
    "draw",
    "draw_int",
    "fold_in",
    "from_torch",
    "key",
    "signed",
    "split",
    "to_torch",
]


def key(seed: int, device: torch.device | str | None = None) -> Tensor:
    """The key whose 64 bits are those of `seed`.

    Args:
        seed: an int in [-2**63, 2**64); a negative one in two's complement.
        device: of the key; the CPU if None.

    Returns:
        0-d int64 tensor.

    Raises:
        ValueError: `seed` does not fit 64 bits.

    Example:
        >>> key(7)
        tensor(7)
    """
    return torch.tensor(signed(seed, "seed"), dtype=torch.int64, device=device)


def draw(generator: Generator | None = None, device: torch.device | str | None = None) -> Tensor:
    """A new key from torch's generator, as every dropout call without `key=` draws it.

    Args:
        generator: where the bits come from; torch's default generator of `device` if None.
        device: of the key; if None that of the generator, or else the CPU.

    Returns:
        0-d int64 tensor, uniform over all 64-bit values but the largest.
    """
    if device is None:
        device = "cpu" if generator is None else generator.device
    if generator is None and autograd.is_being_traced():
        return draw_traced(torch.device(device))

    def from_generator() -> Tensor:
        return torch.randint(LOWEST, HIGHEST, (), dtype=torch.int64, device=device, generator=generator)

    if is_dynamo_compiling() or not recompute.may_be_checkpointed() or recompute.cannot_record_keys():
        return from_generator()
    return recompute.same_key_when_recomputed(from_generator, default=generator is None)


def fold_in(key: Tensor | int, n: Tensor | int) -> Tensor:
    r"""Derive a key for rank, step or sample `n`.

    Different `n` give different keys, for any `key`: the map is a Feistel network, a bijection of the 64 bits of `n`,
    whose four round functions are the first word of Philox4x32-10.

    .. math:: (L, R) \leftarrow (R,\; L \oplus \mathrm{Philox}_{key}(R, 0, r, 1)_0), \qquad r = 0, 1, 2, 3

    from :math:`L, R` = high and low word of `n` to high and low word of the new key.

    Args:
        key: int64 tensor of any shape, or an int; or a uint64 tensor (*, 2) of torch's own keys.
        n: int64 tensor that broadcasts with the keys, or an int.

    Returns:
        int64 tensor of the broadcast shape, on the device of `key`, or of `n` if `key` is an int, or on the CPU if both
        are. From torch's keys the keys that `torch.func._random.fold_in` derives: uint64, with a last dimension of 2
        besides.

    Source: Luby, Rackoff, "How to Construct Pseudorandom Permutations from Pseudorandom Functions", SIAM J. Comput. 17,
    1988; Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

    Example:
        >>> len({fold_in(7, rank).item() for rank in range(1000)})
        1000
    """
    for fake in (key, n):
        if type(fake) is FakeTensor and fake_mode() is None:
            with fake.fake_mode:
                return fold_in(custom_op.as_fake(key, fake), custom_op.as_fake(n, fake))
    device = next((x.device for x in (key, n) if isinstance(x, Tensor)), None)
    key, n = (
        x if isinstance(x, Tensor) else as_tensor(signed(x, name), device or torch.device("cpu"))
        for x, name in ((key, "key"), (n, "n"))
    )
    if is_pair(key):
        check_pairs(key)
    for tensor, name in ((key, "key"), (n, "n")):
        if tensor.dtype != torch.int64 and not (tensor is key and is_pair(key)):
            raise TypeError(f"{name} must be an int64 tensor or an int, got a tensor of {tensor.dtype}")
    return (fold_in_traced if autograd.is_being_traced() else fold_in_eager)(key, n)


def split(key: Tensor | int, num: int = 2) -> Tensor:
    """`num` keys, the i-th of them `fold_in(key, i)`.

    Returns:
        Tensor of shape (num, *key.shape), int64. Of torch's keys, what `torch.func._random.split` returns.

    Example:
        >>> first, second = split(7)
        >>> first.item() == fold_in(7, 0).item()
        True
    """
    if num < 0:
        raise ValueError(f"num must be at least 0, got {num}")
    if isinstance(key, Tensor):
        return fold_in(key, torch.arange(num, device=key.device).view((-1,) + (1,) * len(batch_shape(key))))
    return fold_in(key, torch.arange(num))


def to_torch(key: Tensor | int) -> Tensor:
    """The key as one of torch's own, for the functions of `torch.func._random`: its 64 bits as the seed, and offset 0.

    Args:
        key: int64 tensor of any shape, or an int; torch's own keys are returned as they are.

    Returns:
        uint64 tensor (*key.shape, 2).

    Example:
        >>> to_torch(7)
        tensor([7, 0], dtype=torch.uint64)
    """
    if not isinstance(key, Tensor):
        key = torch.tensor(signed(key, "key"))
    if is_pair(key):
        return check_pairs(key)
    if key.dtype != torch.int64:
        raise TypeError(f"key must be an int64 tensor or an int, got a tensor of {key.dtype}")
    # Not `view`, which torch 2.10 cannot do under vmap.
    return torch.stack((key, torch.zeros_like(key)), -1).to(torch.uint64)


def from_torch(key: Tensor) -> Tensor:
    """The int64 key that gives the masks of one of torch's own keys, whose offset must be 0.

    An int64 key has no place for another offset. torch's key itself may be passed as `key=`, whatever its offset.

    Args:
        key: uint64 tensor (*, 2) of seeds and offsets. The offsets are read, so not in compiled or transformed code.

    Returns:
        int64 tensor of the shape of `key` without its last dimension.

    Raises:
        ValueError: an offset is not 0.

    Example:
        >>> from_torch(torch.tensor([7, 0], dtype=torch.uint64))
        tensor(7)
    """
    check_pairs(key)
    if autograd.is_being_traced():
        raise RuntimeError(
            "from_torch reads the offset of key, so it must be called outside of compiled or transformed code"
        )
    seed, first = seed_and_first_block(key)
    if first.any():
        offset = int(first[first != 0][0]) % 2**64
        raise ValueError(f"key must have offset 0, got {offset}; pass it as key= itself")
    return seed.clone()


def check_pairs(key: Tensor) -> Tensor:
    """Validate a batch of torch's own keys, and return it."""
    if not is_pair(key) or key.dim() == 0 or key.shape[-1] != 2:
        got = f"a tensor of {key.dtype} and shape {tuple(key.shape)}"
        raise TypeError(f"key must be a uint64 tensor of shape (*, 2), torch's seeds and offsets, got {got}")
    return key


def signed(number: int, name: str) -> int:
    """The 64 bits of `number` as an int64."""
    if not isinstance(number, (int, Tensor)) and hasattr(number, "__index__"):
        number = index(number)  # NumPy's integers
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int or an int64 tensor, got {type(number).__name__}")
    if not LOWEST <= number < 2**64:
        raise ValueError(f"{name} must fit 64 bits, in [-2**63, 2**64), got {number}")
    return number - 2**64 if number >= 2**63 else number


def check_key(key: Tensor | int, generator: Generator | None, input: Tensor) -> Tensor | int:
    """Validate a key that a caller gave for `input`; an int is returned as the 64 bits that torch holds.

    Raises:
        ValueError: a generator was given too, or `key` is out of range, not one key, or on the meta device.
        TypeError: `key` is neither an int nor an int64 tensor, nor one of torch's keys.
    """
    if generator is not None:
        raise ValueError("key must be None where generator is given, got both")
    if not isinstance(key, Tensor):
        return signed(key, "key")
    if is_pair(key):
        if key.shape != (2,):
            wanted = "of shape (2,) where it is uint64, torch's seed and offset"
            raise ValueError(
                f"key must be {wanted}, got shape {tuple(key.shape)}; torch.vmap takes a key for each slice"
            )
    elif key.dtype != torch.int64:
        raise TypeError(f"key must be an int or an int64 tensor, got a tensor of {key.dtype}")
    elif key.dim() != 0:
        raise ValueError(f"key must be 0-d, got shape {tuple(key.shape)}")
    custom_op.refuse_meta("key", key, input)
    if type(key) is FakeTensor and autograd.can_use_fast_path(input):
        raise ValueError("key must have bits that can be read where the input has memory, got a FakeTensor")
    return key


def choose_key(
    key: Tensor | int | None, generator: Generator | None, input: Tensor, p: float | Tensor, by_operator: bool = False
) -> Key:
    """The key of a dropout call: the given one, or a new one, or 0 at `p` = 1, where nothing is random.

    Args:
        key: given by the caller and checked by `check_key`; None to draw one.
        generator: where a new key is drawn from; torch's default generator of the input's device if None.
        p: rate of the call, not 0; a tensor if it is read when an operator runs.
        by_operator: whether the call goes through dropkit's registered operators. They see the caller's key itself, and
            the draw is an operator too.
    """
    if key is None and not by_operator and p != 1:
        if input.is_cpu:
            return draw_int(generator)
        if input.is_cuda:
            return _draw_for_gpu(generator, input.device)
    scheduled = by_operator and isinstance(p, Tensor)
    if not scheduled and p == 1:
        return 0
    if key is not None:
        return key if by_operator or type(key) is int else autograd.detach_key(key)
    if by_operator and generator is None:
        return draw_traced(input.device, cast("Tensor", p) if scheduled else None)
    return draw(generator, input.device)


def _draw_for_gpu(generator: Generator | None, device: torch.device) -> Tensor | int:
    """The key that `draw` would return on a GPU: an int, without a launch, or a tensor where that cannot be."""
    if recompute.may_be_checkpointed() and not recompute.cannot_record_keys():
        return recompute.same_key_when_recomputed(lambda: _next_of_gpu(generator, device), default=generator is None)
    return _next_of_gpu(generator, device)


def _next_of_gpu(generator: Generator | None, device: torch.device) -> Tensor | int:
    key = keys.draw(generator, device)
    return draw(generator, device) if key is None else key


class _Scratch(threading.local):
    """A tensor for each thread's draws: reading its bits by address is 0.5 us faster than `Tensor.item`."""

    tensor_and_bits: tuple[Tensor, ctypes.c_int64]

    def make(self) -> tuple[Tensor, ctypes.c_int64]:
        # Not at import time, which may be under a mode that makes tensors without memory.
        with torch.inference_mode(False):
            tensor = torch.empty((), dtype=torch.int64, device="cpu")
        self.tensor_and_bits = tensor, ctypes.c_int64.from_address(tensor.data_ptr())
        return self.tensor_and_bits


_scratch = _Scratch()


def draw_int(generator: Generator | None = None) -> int:
    """The key that `draw` would return on the CPU, as an int, in half the time; only for eager mode without tracing."""
    # `recompute.may_be_checkpointed`, inlined.
    if saved_tensors_hooks(True) is not None or backward_pass() != -1 or not forward_mode_is_enabled():
        return int(draw(generator))
    try:
        tensor, bits = _scratch.tensor_and_bits
    except AttributeError:
        tensor, bits = _scratch.make()
    if generator is None:
        tensor.random_(LOWEST, HIGHEST)
    else:
        tensor.random_(LOWEST, HIGHEST, generator=generator)
    return bits.value


def __dir__() -> list[str]:
    return public_names(globals())
