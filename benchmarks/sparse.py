"""Is dropout of a sparse tensor's values faster than by hand?

The adjacency matrix of a graph, 10**6 edges between 10**5 nodes: a forward pass, and a forward and a backward pass, of
a COO tensor alone, since PyTorch's gradient of CSR tensors is dense. By hand is what graph networks write: PyTorch's
dropout of the values, and a sparse tensor made of the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Row, faster
from torch import Tensor

from dropkit.functional import dropout

NODES, EDGES, P = 10**5, 10**6, 0.5


def rows() -> list[Row]:
    warnings.filterwarnings("ignore", message="Sparse ")  # that sparse tensors are a beta version
    coo = torch.sparse_coo_tensor(torch.randint(NODES, (2, EDGES)), torch.rand(EDGES), (NODES, NODES)).coalesce()
    csr, leaf = coo.to_sparse_csr(), coo.clone().requires_grad_()
    return [
        faster("COO, forward", lambda: dropout(coo, P), lambda: _coo_by_hand(coo), ">= 1", runs=21),
        faster("COO, forward and backward", _step(dropout, leaf), _step(_coo_by_hand, leaf), ">= 1", runs=21),
        faster("CSR, forward", lambda: dropout(csr, P), lambda: _csr_by_hand(csr), ">= 1", runs=21),
    ]


def _coo_by_hand(x: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(x.indices(), F.dropout(x.values(), P), x.shape, is_coalesced=True)


def _csr_by_hand(x: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), F.dropout(x.values(), P), x.shape)


def _step(call: Callable[[Tensor], Tensor], leaf: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call(leaf).values().sum(), leaf)
