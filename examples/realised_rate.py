"""The fraction of elements that is dropped, compared with the rate p.

For n elements this fraction has standard deviation sqrt(p (1 - p) / n). It differs from p by more than five of these by
chance about once in two million times.
"""

import math

import torch

from dropkit.functional import dropout

n = 1_000_000
x = torch.ones(n)

for p in (0.1, 0.3, 0.5, 0.7):
    realised = (dropout(x, p, key=1) == 0).float().mean().item()
    bound = 5 * math.sqrt(p * (1 - p) / n)
    print(f"expected {p}  realised {realised:.6f}  off by {abs(realised - p):.6f}  bound {bound:.6f}")
