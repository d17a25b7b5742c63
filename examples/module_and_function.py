"""Module and function compared: what print(model) shows, and whether they drop in train and in eval mode."""

import torch

from dropkit.functional import dropout
from dropkit.nn import Dropout


class WithModule(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x)


class WithFunction(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, 0.5)


class WithFunctionAndFlag(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, 0.5, training=self.training)


torch.manual_seed(0)
x = torch.ones(8)

for model in (WithModule(), WithFunction(), WithFunctionAndFlag()):
    print(model)
    print("  train", model.train()(x).tolist())
    print("  eval ", model.eval()(x).tolist())
