"""All ranks of a mesh have one key: by one seed, by agreement at the first draw, and by a check, if it is on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from helpers.dtensors import equal, mesh_of, shared
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard

from dropkit.functional import dropout
from dropkit.ops.dtensor_keys import check_keys

WHOLE = torch.ones(4, 6)


def new_mesh(*sizes: int) -> DeviceMesh:
    """A mesh that no generator has been compared for."""
    return init_device_mesh("cpu", sizes)


def outputs(mesh: DeviceMesh, **arguments: Any) -> tuple[Tensor, list[str]]:
    """What three calls on a replicated tensor give here, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        input = shared(WHOLE, mesh, (Replicate(),) * mesh.ndim)
        found = [dropout(input, 0.5, **arguments).to_local() for _ in range(3)]
    return torch.stack(found), [str(warning.message) for warning in caught if "DTensor draws" in str(warning.message)]


def draw_with_other_states(sizes: tuple[int, ...], has_generator: bool) -> tuple[Tensor, list[str]]:
    rank = distributed.get_rank()
    mesh = new_mesh(*sizes)
    torch.manual_seed(10 + rank // 2)
    generator = {"generator": torch.Generator().manual_seed(10 + rank // 2)} if has_generator else {}
    return outputs(mesh, **generator)


@pytest.mark.parametrize("has_generator", [False, True])
@pytest.mark.parametrize("sizes", [(4,), (2, 2)], ids=str)
def test_other_states_become_that_of_the_first_rank(sizes, has_generator, groups):
    """Ranks whose generators differ agree from the first draw on, and one warning names them and what to do."""
    answers = groups[4].run(draw_with_other_states, sizes, has_generator)

    torch.manual_seed(10)
    expected = torch.stack([dropout(WHOLE, 0.5) for _ in range(3)])
    for found, warned in answers:
        assert torch.equal(found, expected)
        assert len(warned) == 1
        assert "got another on ranks [2, 3] than on the first" in warned[0]
        assert "torch.manual_seed" in warned[0]


def draw_with_one_state(sizes: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    mesh = new_mesh(*sizes)
    torch.manual_seed(10)
    return outputs(mesh)


def test_equal_states_are_left_alone(groups):
    """With one seed nothing is changed, and nothing is said."""
    torch.manual_seed(10)
    expected = torch.stack([dropout(WHOLE, 0.5) for _ in range(3)])

    for found, warned in groups[4].run(draw_with_one_state, (2, 2)):
        assert torch.equal(found, expected)
        assert warned == []


def draw_on_a_part_of_the_mesh() -> Tensor:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    torch.manual_seed(mesh.get_local_rank("data"))
    found, warned = outputs(mesh["model"])
    assert warned == []
    return found


def test_other_meshes_keep_other_states(groups):
    """Only the ranks of the DTensor's mesh agree: groups with other batches keep masks of their own."""
    first, second, third, fourth = groups[4].run(draw_on_a_part_of_the_mesh)

    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
    assert not torch.equal(first, third)


def check_that_nothing_is_compared() -> None:
    mesh = new_mesh(2)
    torch.manual_seed(distributed.get_rank())
    before = torch.get_rng_state()
    input = shared(WHOLE, mesh, (Shard(0),))
    for arguments in ({"key": 3}, {"p": 1.0}, {"p": 0.0}, {"training": False}):
        dropout(input, **{"p": 0.5, **arguments})
    dropout(shared(WHOLE[:0], mesh, (Replicate(),)), 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_calls_that_draw_nothing_compare_nothing(groups):
    """A generator is compared when it is drawn from, and not before."""
    groups[2].run(check_that_nothing_is_compared)


def check_empty_parts() -> None:
    mesh = mesh_of((3,))
    torch.manual_seed(5)
    part = dropout(shared(torch.ones(2, 6), mesh, (Shard(0),)), 0.5)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    assert equal(part, dropout(torch.ones(2, 6), 0.5))
    assert torch.equal(torch.get_rng_state(), after)


def test_a_rank_with_an_empty_part_draws_too(groups):
    """Each rank draws one key a call, whatever it holds."""
    groups[3].run(check_empty_parts)


def call_with_other_keys(as_tensor: bool) -> str:
    mesh, rank = mesh_of((2, 2)), distributed.get_rank()
    input = shared(WHOLE, mesh, (Shard(0), Replicate()))
    with check_keys():
        dropout(input, 0.5, key=3)
        torch.manual_seed(3)
        dropout(input, 0.5)
        key = 7 if rank == 2 else 3
        with pytest.raises(RuntimeError, match="must be the same on all ranks") as raised:
            dropout(input, 0.5, key=torch.tensor(key) if as_tensor else key)
    dropout(input, 0.5, key=key)
    return str(raised.value)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_check_names_the_ranks_that_disagree(as_tensor, groups):
    """It raises on all ranks, so that none waits for another, and only as long as it is switched on."""
    answers = groups[4].run(call_with_other_keys, as_tensor)

    for rank, text in enumerate(answers):
        assert text.startswith("key must be the same on all ranks of DeviceMesh")
        assert "got another on ranks [2] than on the first" in text
        assert text.endswith(f"on rank {rank}, it is {7 if rank == 2 else 3}")


def check_drifted_generators() -> None:
    mesh = mesh_of((2,))
    torch.manual_seed(3)
    input = shared(WHOLE, mesh, (Replicate(),))
    dropout(input, 0.5)
    if distributed.get_rank() == 1:
        torch.rand(())
    with check_keys(), pytest.raises(RuntimeError, match=r"key must be the same .* ranks \[1\]"):
        dropout(input, 0.5)


def test_the_check_finds_generators_that_drifted_apart(groups):
    """A rank that drew alone after the first comparison is found at its next call."""
    groups[2].run(check_drifted_generators)


def test_the_environment_switches_the_check_on():
    """DROPKIT_CHECK_KEYS=1 checks a whole run; 0 does not."""
    program = "from dropkit.ops import dtensor_keys; print(dtensor_keys.is_checking())"
    for value, expected in (("1", "True"), ("0", "False")):
        environment = {**os.environ, "DROPKIT_CHECK_KEYS": value}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
