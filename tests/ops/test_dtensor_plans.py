"""torch's plans for parallel modules give, with dropout in them, what one process gives.

Small integers as weights and inputs keep every sum exact, so that outputs and gradients are compared bit by bit.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.dtensors import mesh_of
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import dropkit
from dropkit import functional, nn, shard

SIZES = (4, 6, 8)  # batch, sequence, features


def exact(*shape: int) -> Tensor:
    return torch.randint(-3, 4, shape).float()


class MLP(torch.nn.Module):
    """Dropout of the hidden units, which tensor parallelism splits, and of the output."""

    def __init__(self, dropout: type[torch.nn.Module]) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8)
        self.hidden_dropout, self.dropout = dropout(0.5), dropout(0.5)
        for parameter in self.parameters():
            parameter.data = exact(*parameter.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.hidden_dropout(self.up(x).relu())))


PLANS: dict[str, dict[str, Any]] = {
    "tensor parallel": {
        "up": ColwiseParallel(use_local_output=False),
        "down": RowwiseParallel(use_local_output=False),
    },
    "partial sums": {
        "up": ColwiseParallel(use_local_output=False),
        "down": RowwiseParallel(output_layouts=Partial(), use_local_output=False),
    },
    "sequence parallel": {
        "up": ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        "dropout": SequenceParallel(use_local_output=False),
    },
    "prepared": {
        "up": ColwiseParallel(use_local_output=False),
        "hidden_dropout": PrepareModuleInput(
            input_layouts=Shard(-1), desired_input_layouts=Replicate(), use_local_output=False
        ),
        "down": RowwiseParallel(input_layouts=Replicate(), use_local_output=False),
        "dropout": PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=Shard(0)),
    },
}


def step(model: torch.nn.Module, input: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and gradients by name, of a forward and backward pass from seed 7."""
    torch.manual_seed(7)
    output = model(input)
    output = output.full_tensor() if isinstance(output, DTensor) else output
    output.backward(torch.ones_like(output))
    return output.detach(), {name: whole(parameter.grad) for name, parameter in model.named_parameters()}


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_plan(name: str, dropout: type[torch.nn.Module]) -> None:
    mesh = mesh_of((distributed.get_world_size(),))
    torch.manual_seed(1)
    model, input = MLP(dropout), exact(*SIZES)
    with dropkit.installed():
        output, grads = step(model, input)
        parallel = parallelize_module(copy.deepcopy(model), mesh, PLANS[name])
        start = distribute_tensor(input, mesh, [Shard(1) if name == "sequence parallel" else Replicate()])
        parallel_output, parallel_grads = step(parallel, start)
        if name == "prepared":
            gathered = [torch.empty_like(parallel_output) for _ in range(mesh.size())]
            distributed.all_gather(gathered, parallel_output)
            parallel_output = torch.cat(gathered)
    assert torch.equal(parallel_output, output)
    for parameter, grad in grads.items():
        assert torch.equal(parallel_grads[parameter], grad), parameter


@pytest.mark.parametrize("dropout", [nn.Dropout, nn.Dropout1d, torch.nn.Dropout], ids=lambda kind: f"{kind.__module__}")
@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_gives_the_result_of_one_process(plan, dropout, groups):
    """Outputs and the gradients of all parameters, for dropkit's modules and for torch's under `installed`."""
    groups[2].run(check_plan, plan, dropout)


def check_two_dimensions() -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    torch.manual_seed(1)
    model, input = MLP(nn.Dropout), exact(*SIZES)
    row = mesh.get_local_rank("data")
    expected = []
    for seed in range(2):  # one process for each half of the batch, with its seed
        single = copy.deepcopy(model)
        torch.manual_seed(seed)
        output = single(input[2 * seed : 2 * seed + 2])
        output.backward(torch.ones_like(output))
        expected.append((output.detach(), [parameter.grad for parameter in single.parameters()]))
    parallel = parallelize_module(model, mesh["model"], PLANS["tensor parallel"])
    fully_shard(parallel, mesh=mesh["data"])
    torch.manual_seed(row)
    output = parallel(distribute_tensor(input[2 * row : 2 * row + 2], mesh["model"], [Replicate()], src_data_rank=None))
    output.backward(DTensor.from_local(torch.ones(2, 6, 8), mesh["model"], [Replicate()]))
    assert torch.equal(output.full_tensor(), expected[row][0])
    for parameter, grads in zip(
        parallel.parameters(), zip(*(grads for _, grads in expected), strict=True), strict=True
    ):
        assert torch.equal(parameter.grad.full_tensor(), sum(grads) / 2)


def test_fsdp_with_tensor_parallelism_gives_the_result_of_one_process(groups):
    """FSDP2 over two groups of two tensor-parallel ranks: a mask for each half of the batch, shared by its ranks."""
    groups[4].run(check_two_dimensions)


def check_data_parallel() -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    row = mesh.get_local_rank("data")
    batch = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))
    rows = batch[:2] if row == 0 else batch[2:]
    for function in (functional.dropout, functional.dropout1d, functional.drop_path):
        torch.manual_seed(3)
        expected = function(batch, 0.5)
        expected = expected[:2] if row == 0 else expected[2:]
        for placement in (Shard(0), Shard(1), Shard(2), Replicate()):
            input = distribute_tensor(rows, mesh["model"], [placement], src_data_rank=None)
            torch.manual_seed(3)
            with shard.data_parallel(mesh.get_group("data")):
                output = function(input, 0.5)
            assert torch.equal(output.full_tensor(), expected), (function, placement)


def test_a_dtensor_of_a_part_of_the_batch_has_the_mask_of_the_whole_batch(groups):
    """`data_parallel` over one dimension of a mesh and DTensors over the other: one mask for all four ranks."""
    groups[4].run(check_data_parallel)
