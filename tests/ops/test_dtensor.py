"""Dropout of a DTensor is, on any mesh and for any placements, bit for bit that of the whole tensor in one process.

Each check runs on all ranks of a group of gloo processes. A rank computes the expected result of the whole tensor for
itself, and compares its own part of it.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.dtensors import ALL_LAYERS, equal, mesh_of, shardings, shared, values
from helpers.processes import Ranks
from torch import Tensor, distributed
from torch.distributed._local_tensor import LocalIntNode, LocalTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from dropkit import functional, kernels
from dropkit.kernels import params

# The sizes of a mesh, whose product is the number of processes.
MESHES = [(2,), (3,), (4,), (2, 2), (2, 1, 2)]


def check_layer(name: str, sizes: tuple[int, ...]) -> None:
    layer, mesh = ALL_LAYERS[name], mesh_of(sizes)
    for placements in shardings(mesh, len(layer.example_shape)):
        for arguments in ({}, {"key": 5}, {"key": torch.tensor(-5)}):
            whole, upstream = values(layer).requires_grad_(), values(layer) + 1
            part = shared(whole.detach(), mesh, placements).requires_grad_()
            results = []
            for input, gradient in ((whole, upstream), (part, shared(upstream, mesh, placements))):
                torch.manual_seed(7)
                output = layer.function(input, 0.4, True, **layer.options, **arguments)
                output.backward(gradient)
                results.append((output.detach(), input.grad, torch.get_rng_state()))
            (expected, expected_grad, expected_state), (output, grad, state) = results
            case = placements, arguments
            assert output.placements == grad.placements == placements, case
            assert equal(output, expected), case
            assert equal(grad, expected_grad), case
            assert torch.equal(state, expected_state), case


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize("name", ALL_LAYERS)
def test_a_part_has_the_mask_of_the_whole(name, sizes, groups):
    """Output, gradient and the generator's state are those of one process, however the tensor is sharded."""
    groups[torch.Size(sizes).numel()].run(check_layer, name, sizes)


def check_dtypes_and_layouts() -> None:
    mesh = mesh_of((2, 2))
    for dtype, dims in itertools.product(kernels.FLOATS, itertools.permutations(range(3))):
        whole = values(ALL_LAYERS["Dropout1d"], dtype).permute(dims).contiguous().permute(*map(dims.index, range(3)))
        for placements in ((Shard(0), Shard(1)), (Shard(2), Replicate()), (Shard(1), Shard(1))):
            for function in (functional.dropout, functional.dropout1d, functional.alpha_dropout):
                assert equal(
                    function(shared(whole, mesh, placements), 0.4, True, key=3), function(whole, 0.4, True, key=3)
                )


def test_dtype_and_memory_layout_are_kept(groups):
    """Every floating dtype and order of the dimensions in memory has the values of one process."""
    groups[4].run(check_dtypes_and_layouts)


def check_in_place() -> None:
    mesh = mesh_of((3,))
    for placement in (Shard(0), Shard(1), Replicate()):
        whole, part = torch.randn(4, 6), torch.empty(0)
        part = shared(whole, mesh, (placement,))
        for input in (whole.requires_grad_(), part.requires_grad_()):
            written = input * 1
            version = written._version
            assert functional.dropout(written, 0.4, inplace=True, key=3) is written
            assert written._version == version + 1
            written.backward(torch.ones_like(written))
        assert equal(written.detach(), functional.dropout(whole.detach(), 0.4, key=3))
        assert equal(part.grad, whole.grad)


def test_in_place_writes_this_rank_s_part(groups):
    """In place, a DTensor is written, returned and differentiated like the whole tensor."""
    groups[3].run(check_in_place)


def check_partial() -> None:
    mesh = mesh_of((2, 2))
    rank = distributed.get_rank()
    parts = [torch.randn(3, 5, generator=torch.Generator().manual_seed(rank)) for rank in range(4)]
    reductions = {"sum": (sum, {"dropout"}), "avg": (lambda parts: sum(parts) / 4, {"dropout"}),
                  "max": (lambda parts: torch.stack(parts).amax(0), {"dropout", "alpha_dropout"}),
                  "min": (lambda parts: torch.stack(parts).amin(0), {"dropout", "alpha_dropout"}),
                  "product": (lambda parts: torch.stack(parts).prod(0), set())}  # fmt: skip
    for name, (reduce, staying) in reductions.items():
        input = DTensor.from_local(parts[rank], mesh, [Partial(name)] * 2).requires_grad_()
        whole = input.detach().full_tensor()
        assert torch.allclose(whole, reduce(parts))
        for function in (functional.dropout, functional.alpha_dropout):
            output = function(input, 0.5, True, key=3)
            assert all(placement.is_partial() == (function.__name__ in staying) for placement in output.placements), (
                name,
                function,
                output.placements,
            )
            # A partial sum is rounded once on each rank; scaling by 2 is exact.
            assert torch.equal(output.detach().full_tensor(), function(whole, 0.5, True, key=3)), (name, function)
            upstream = DTensor.from_local(parts[rank], mesh, [Partial()] * 2)
            (grad,) = torch.autograd.grad(output, input, upstream)
            expected = functional.dropout(upstream.full_tensor(), 0.5, key=3)
            scale = torch.tensor(params.alpha(0.5).scale / 2 if function is functional.alpha_dropout else 1)
            assert all(placement.is_partial() for placement in grad.placements)
            torch.testing.assert_close(grad.full_tensor(), expected * scale)


def test_partial_sums_stay_partial(groups):
    """Dropout of a part of a sum is a part of the dropped sum; where it is not, the sum is computed first."""
    groups[4].run(check_partial)


def check_strided_shards() -> None:
    for sizes, placements in (
        ((2,), [_StridedShard(0, split_factor=3)]),
        ((2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),
        ((2, 2), [_StridedShard(1, split_factor=2), Shard(1)]),
        ((2, 2), [_StridedShard(0, split_factor=3), _StridedShard(1, split_factor=2)]),
        ((3,), [_StridedShard(1, split_factor=2)]),
    ):
        if distributed.get_world_size() != torch.Size(sizes).numel():
            continue
        mesh = mesh_of(sizes)
        for shape in ((12, 12, 3), (7, 13, 2), (2, 1, 5)):
            whole = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            local = local_part(whole, mesh, placements)
            input = DTensor.from_local(local, mesh, placements, shape=whole.shape, stride=whole.stride())
            for function in (functional.dropout, functional.dropout1d, functional.drop_path):
                output = function(input.requires_grad_(), 0.4, key=3)
                expected = function(whole, 0.4, key=3)
                assert torch.equal(output.to_local(), local_part(expected, mesh, placements)), (placements, shape)
                assert output.placements == tuple(placements)


def local_part(whole: Tensor, mesh: DeviceMesh, placements: list[Any]) -> Tensor:
    """The part that torch gives this rank, one placement after the other."""
    for mesh_dim, placement in enumerate(placements):
        pieces, _ = placement._split_tensor(whole, mesh.size(mesh_dim), with_padding=False, contiguous=True)
        whole = pieces[mesh.get_coordinate()[mesh_dim]]
    return whole


@pytest.mark.parametrize("size", [2, 3, 4])
def test_strided_shards_have_the_mask_of_the_whole(size, groups):
    """`_StridedShard`, as of FSDP2 with tensor parallelism or of a flattened dimension, is right too."""
    groups[size].run(check_strided_shards)


def check_flattened() -> None:
    mesh = mesh_of((2,))
    whole = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    for placement in (Shard(0), Shard(1), Shard(2)):
        try:
            flat = shared(whole, mesh, (placement,)).flatten(0, 1)
        except RuntimeError:
            continue  # torch refuses to flatten what would have to be moved
        output = functional.dropout(flat, 0.4, key=3)
        assert torch.equal(output.full_tensor(), functional.dropout(whole.flatten(0, 1), 0.4, key=3))


def test_flattened_tokens_have_the_mask_of_the_whole(groups):
    """A DTensor with tokens flattened is dropped like the whole tensor with tokens flattened."""
    groups[2].run(check_flattened)


def check_outside() -> None:
    mesh = DeviceMesh("cpu", [0, 1])
    whole = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    input = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None).requires_grad_()
    for arguments in ({}, {"key": 3}, {"inplace": True, "key": 3}):
        torch.manual_seed(1)
        output = functional.dropout(input * 1, 0.4, **arguments)
        state = torch.get_rng_state()
        torch.manual_seed(1)
        expected = functional.dropout(whole, 0.4, key=arguments.get("key"))
        assert torch.equal(state, torch.get_rng_state())
        if distributed.get_rank() < 2:
            assert equal(output.detach(), expected)
        else:
            assert output.to_local().numel() == 0


def test_a_rank_outside_of_the_mesh_draws_and_drops_nothing(groups):
    """Its generator keeps pace with the others, and its local tensor stays empty."""
    groups[3].run(check_outside)


def check_refusals() -> None:
    mesh = mesh_of((2,))
    rank = distributed.get_rank()
    uneven = DTensor.from_local(torch.ones(3 - 2 * rank, 2), mesh, [Shard(0)], shape=torch.Size([4, 2]), stride=(2, 1))
    with pytest.raises(RuntimeError, match=r"input must have a local tensor of shape \(2, 2\) .* got \([13], 2\)"):
        functional.dropout(uneven, 0.5)
    part = shared(torch.ones(4, 2), mesh, (Shard(0),))
    key = shared(torch.tensor(3), mesh, (Replicate(),))
    assert torch.equal(
        functional.dropout(part, 0.5, key=key).full_tensor(), functional.dropout(torch.ones(4, 2), key=3)
    )


def test_what_would_give_a_wrong_mask_is_refused(groups):
    """Local tensors that are not cut as torch cuts them, and keys that ranks do not share, are errors."""
    groups[2].run(check_refusals)


def check_simulated_ranks() -> None:
    distributed.destroy_process_group()
    distributed.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    whole = torch.randn(9, 8, 8, generator=torch.Generator().manual_seed(1))
    for function in (functional.dropout, functional.dropout1d):
        torch.manual_seed(3)
        expected = function(whole, 0.4)
        with LocalTensorMode(8):
            for sizes in ((8,), (2, 4), (2, 2, 2)):
                mesh = init_device_mesh("cpu", sizes)
                for placements in shardings(mesh, 3, most=6):
                    torch.manual_seed(3)
                    input = distribute_tensor(whole, mesh, placements).requires_grad_()
                    output = function(input, 0.4)
                    output.backward(distribute_tensor(torch.ones_like(whole), mesh, placements))
                    assert torch.equal(output.full_tensor().reconcile(), expected), placements
                    assert torch.equal(input.grad.full_tensor().reconcile() != 0, expected != 0), placements


@pytest.mark.skipif(
    not hasattr(LocalIntNode, "sym_min"), reason=f"torch {torch.__version__} has no minimum of simulated ranks' numbers"
)
def test_simulated_ranks_have_the_mask_of_the_whole():
    """torch's simulation of eight ranks in one process gives the mask of one, on meshes of one to three dimensions."""
    alone = Ranks(1)
    alone.run(check_simulated_ranks)
    alone.stop()
