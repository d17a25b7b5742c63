"""A script that imports torch alone. Run it in two ways, and see which dropout kernel ran:

python examples/plain_torch.py
dropkit run examples/plain_torch.py

Its exit code is its argument.
"""

import sys

import torch

torch.manual_seed(0)
layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))
output = layer(torch.ones(2, 8))
output.sum().backward()

print("called as", __name__, sys.argv[1:])
print("dropped", int((output == 0).sum()), "of", output.numel())
print("backward runs", output.grad_fn.name())

if __name__ == "__main__":
    sys.exit(int(sys.argv[1]) if sys.argv[1:] else 0)
