"""Keys of DTensors, which must be the same on all ranks of a mesh: generators that agree, and a check for debugging.

Every rank draws a key for itself, without communication. So their generators must be in one state at the first draw,
and every rank must draw as often as the others; then N ranks have the keys of one process with the same seed.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Generator as Yields
from collections.abc import MutableMapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, distributed

from dropkit.kernels.key import Key, read

# Environment variable that switches the check on for a whole process.
CHECK_KEYS = "DROPKIT_CHECK_KEYS"

# The meshes for which a generator was compared; under None for torch's default generators.
_compared: dict[int, Any] = {}
# On torch 2.10, where a generator cannot be referred to weakly, this keeps it and its 5 KB.
_compared_generators: MutableMapping[Generator, dict[int, Any]] = (
    WeakKeyDictionary() if Generator.__weakrefoffset__ else {}
)
_checks = int(os.environ.get(CHECK_KEYS, "0") not in ("", "0"))


@contextmanager
def check_keys() -> Yields[None]:
    """Compare the keys of each eager call on a DTensor over its mesh, for the length of a `with` block; for debugging.

    Every rank of the mesh must be in such a block at the same calls. `DROPKIT_CHECK_KEYS=1` in the environment does the
    same for a whole run. A call takes as long as an exchange of 16 bytes between the ranks.

    Raises:
        RuntimeError: at a call whose ranks do not have one key and one shape, on all of them; names those that differ.

    Example:
        >>> with check_keys():
        ...     y = dropkit.functional.dropout(torch.ones(4))
    """
    global _checks
    _checks += 1
    try:
        yield
    finally:
        _checks -= 1


def is_checking() -> bool:
    """Whether keys are compared at each call."""
    return _checks > 0


def agree(mesh: Any, device: torch.device, generator: Generator | None) -> None:
    """At the first draw for this mesh, give all its ranks the state of the first rank's generator; warn if it differed.

    torch does the same for its own random operators on a GPU.
    """
    meshes = _compared if generator is None else _compared_generators.setdefault(generator, {})
    if id(mesh) in meshes or not _can_communicate(mesh):
        return
    meshes[id(mesh)] = mesh  # kept alive, or another mesh may get its id
    state = _state(device, generator)
    ranks = _differing(mesh, state.numpy().tobytes())
    if not ranks:
        return
    for mesh_dim in range(mesh.ndim):
        state = _broadcast(state, mesh, mesh_dim)
    _set_state(device, generator, state)
    warnings.warn(
        f"the generators of all ranks of {mesh} must be in one state where a DTensor draws a key, got another on ranks "
        f"{ranks} than on the first; they have its state now. Call torch.manual_seed with one seed on every rank, or "
        "pass key=",
        stacklevel=2,
    )


def check(mesh: Any, shape: torch.Size, key: Key) -> None:
    """Raise unless all ranks of the mesh have this shape and this key; does nothing outside of `check_keys`."""
    if not is_checking() or not _can_communicate(mesh):
        return
    for name, value in (("shape", tuple(shape)), ("key", read(key) if isinstance(key, Tensor) else key)):
        ranks = _differing(mesh, repr(value).encode())
        if ranks:
            raise RuntimeError(
                f"{name} must be the same on all ranks of {mesh}, got another on ranks {ranks} than on the first; "
                f"here, on rank {distributed.get_rank()}, it is {value}"
            )


def _can_communicate(mesh: Any) -> bool:
    """Whether this rank has others in its mesh, none of which is simulated."""
    return (
        mesh.size() > 1 and mesh.get_coordinate() is not None and distributed.get_backend(mesh.get_group(0)) != "fake"
    )


def _differing(mesh: Any, value: bytes) -> list[int]:
    """The ranks of the mesh whose value is not that of its first rank."""
    digest = int.from_bytes(hashlib.sha256(value).digest()[:8], "big", signed=True)
    numbers = torch.tensor([digest], dtype=torch.int64, device=mesh.device_type)
    for mesh_dim in reversed(range(mesh.ndim)):
        gathered = [torch.empty_like(numbers) for _ in range(mesh.size(mesh_dim))]
        distributed.all_gather(gathered, numbers, group=mesh.get_group(mesh_dim))
        numbers = torch.cat(gathered)
    ranks: list[int] = mesh.mesh.flatten().tolist()
    digests = cast("list[int]", numbers.tolist())
    return [rank for rank, other in zip(ranks, digests, strict=True) if other != digests[0]]


def _broadcast(state: Tensor, mesh: Any, mesh_dim: int) -> Tensor:
    """The state of the first rank along a dimension of the mesh."""
    state = state.to(mesh.device_type)
    distributed.broadcast(state, group=mesh.get_group(mesh_dim), group_src=0)
    return state.cpu()


def _state(device: torch.device, generator: Generator | None) -> Tensor:
    if generator is not None:
        return generator.get_state()
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


def _set_state(device: torch.device, generator: Generator | None, state: Tensor) -> None:
    if generator is not None:
        generator.set_state(state)
    elif device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
