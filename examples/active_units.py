"""The fraction of units that are active (not 0) before and after dropout, in train and in eval mode."""

import torch

from dropkit.nn import Dropout

torch.manual_seed(0)
hidden = torch.nn.Sequential(torch.nn.Linear(20, 1000), torch.nn.ReLU())
dropout = Dropout(0.3)
before = hidden(torch.randn(100, 20))


def active(values: torch.Tensor) -> float:
    return (values != 0).float().mean().item()


print(f"before dropout: {active(before):.4f}")
print(f"after, train:   {active(dropout.train()(before)):.4f}")
print(f"after, eval:    {active(dropout.eval()(before)):.4f}")
