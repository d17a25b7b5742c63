"""How much faster does an unchanged transformer train under dropkit.install()?

A training step of `torch.nn.TransformerEncoder` with `dropkit.install()` is compared with the same step without it. The
second row of each pair replaces dropkit's side by a model without any dropout: no dropout can gain more than that.
"""

import torch
from side_by_side import Row, faster, threads

import dropkit


def rows() -> list[Row]:
    batch = torch.randn(8, 256, 256)
    table = []
    for number in (1, 2):
        encoder, without = training(encoder_of(0.1), batch), training(encoder_of(0.0), batch)

        with threads(number):
            case = f"training step, 2 layers, d=256, 8 heads, 8 x 256 tokens, p=0.1, threads: {number}"
            goal = ">= 1.6" if number == 2 else ""
            table.append(faster(case, encoder, encoder, goal, runs=11, within=dropkit.installed))
            table.append(
                faster(f"the same without any dropout (the limit), threads: {number}", without, encoder, runs=11)
            )
    return table


def encoder_of(p: float) -> torch.nn.TransformerEncoder:
    layer = torch.nn.TransformerEncoderLayer(256, 8, dropout=p, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2)


def training(model: torch.nn.Module, batch: torch.Tensor):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    return step
