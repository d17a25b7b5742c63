"""A network of three linear layers with a dropout after each of the first two, and the shape of each output."""

import torch

from dropkit.nn import Dropout

model = torch.nn.Sequential(
    torch.nn.Linear(784, 256),
    torch.nn.ReLU(),
    Dropout(0.5),
    torch.nn.Linear(256, 64),
    torch.nn.ReLU(),
    Dropout(0.3),
    torch.nn.Linear(64, 10),
)
print(model)

x = torch.randn(32, 784)
print("input", tuple(x.shape))
for layer in model:
    x = layer(x)
    print(type(layer).__name__, tuple(x.shape))
