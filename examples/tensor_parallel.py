"""Split the hidden units of a network over processes, with the dropout mask of one process. Every line prints the same:

torchrun --standalone --nproc-per-node 1 examples/tensor_parallel.py
torchrun --standalone --nproc-per-node 2 examples/tensor_parallel.py

Between the two linear layers each process holds other hidden units, as an ordinary tensor. Without `LocalShard` all
processes would drop their units by one mask.
"""

import torch
import torch.nn.functional as F
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from dropkit import nn, shard


class FeedForward(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.dropout, self.fc2 = torch.nn.Linear(8, 30), nn.Dropout(0.5), torch.nn.Linear(30, 1)

    def forward(self, x):
        return self.fc2(self.dropout(torch.relu(self.fc1(x))))


def train(steps=20):
    """Return the loss of each step."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    torch.manual_seed(0)  # one seed for all ranks
    x = torch.randn(64, 8, dtype=torch.float64)
    y = x.prod(1, keepdim=True)
    # On your own linear layers instead of a plan: shard.split(model.dropout).
    plan = {"fc1": ColwiseParallel(), "dropout": shard.LocalShard(-1), "fc2": RowwiseParallel()}
    model = parallelize_module(FeedForward().double(), mesh, plan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    losses = []
    for _ in range(steps):
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    losses = train()
    if distributed.get_rank() == 0:
        print("loss", *(f"{loss:.8f}" for loss in losses[::5]))
    distributed.destroy_process_group()
