"""Train a digit network on any number of processes, with the dropout masks of one process. Every line prints the same:

torchrun --standalone --nproc-per-node 1 examples/data_parallel.py
torchrun --standalone --nproc-per-node 2 examples/data_parallel.py
torchrun --standalone --nproc-per-node 3 examples/data_parallel.py

With a file name as argument it writes a checkpoint after each step, and goes on from there, on any number of processes.
"""

import os
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dropkit import nn, shard

BATCH, STEPS = 50, 20


def train(checkpoint=None, steps=STEPS, after_forward=lambda step: None):
    """Return the loss of each step, from the first one or from that of the checkpoint."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16), torch.tensor(digits.target)

    torch.manual_seed(0)  # one seed for all ranks
    network = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), nn.Dropout(0.5), torch.nn.Linear(128, 10)
    ).double()
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    first = 0
    if checkpoint is not None and os.path.exists(checkpoint):
        saved = torch.load(checkpoint)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["generator"])  # that of rank 0, on every rank
        first = saved["step"]

    losses = []
    for step in range(first, steps):
        # All ranks choose the same batch, by a generator that belongs to the data, and each takes its part of it.
        batch = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:BATCH]
        part = batch.tensor_split(world_size)[rank]
        with shard.data_parallel():
            output = model(images[part])
        after_forward(step)
        # DistributedDataParallel averages gradients over ranks, which may have parts of different sizes.
        loss = F.cross_entropy(output, labels[part], reduction="sum") / BATCH
        optimizer.zero_grad()
        (loss * world_size).backward()
        optimizer.step()
        loss = loss.detach()
        distributed.all_reduce(loss)
        losses.append(loss.item())
        if checkpoint is not None:
            if rank == 0:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "generator": torch.get_rng_state(), "step": step + 1}, f"{checkpoint}.new")
                os.replace(f"{checkpoint}.new", checkpoint)
            distributed.barrier()
    return losses


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    losses = train(*sys.argv[1:])
    if distributed.get_rank() == 0:
        print("loss", *(f"{loss:.8f}" for loss in losses[::5]))
    distributed.destroy_process_group()
