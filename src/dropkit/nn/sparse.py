"""Dropout of sparse tensors: of the values that they store; the pattern stays, and a dropped value is stored as 0.

A value uses the mask element of its position among the stored ones. So a COO and a CSR tensor of the same elements have
the same mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.nn.layer import Layer
from dropkit.ops import slices

_BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def is_sparse(input: Tensor) -> bool:
    return input.layout in (torch.sparse_coo, *_BY_ROWS, *_BY_COLUMNS)


def drop(layer: Layer, input: Tensor, inplace: bool, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Drop the stored values by `run`, which drops a dense tensor.

    Duplicates of a COO tensor are added up before, since an element is dropped or kept as a whole.

    Raises:
        NotImplementedError: the layer does not drop single elements, or makes another number of 0, which is not stored;
            or in place, and torch could not go backward.
    """
    slices.refuse("for sparse tensors")
    name = layer.function.__name__
    if layer.mask_shape is not None or not layer.keeps_zeros:
        raise NotImplementedError(f"{name}: input must be dense, got a tensor of layout {input.layout}")
    if inplace and input.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(f"{name}: inplace must be False for sparse tensors that require grad, got True")
    source: Any = input.coalesce() if input.is_sparse else input
    values: Tensor = source.values()
    # They are a view of a sparse tensor, which compilers and torch's functions of complex numbers do not take.
    dense = values.clone() if values.requires_grad and torch.is_grad_enabled() else values.detach()
    output = _with_values(source, run(dense))
    return input.copy_(output) if inplace else output


def _with_values(source: Any, values: Tensor) -> Tensor:
    # The indices are those of a tensor; not to say that they need no check makes torch warn.
    if source.is_sparse:
        indices = source.indices()
        return torch.sparse_coo_tensor(indices, values, source.shape, is_coalesced=True, check_invariants=False)
    by_rows = source.layout in _BY_ROWS
    compressed = source.crow_indices() if by_rows else source.ccol_indices()
    plain = source.col_indices() if by_rows else source.row_indices()
    make = cast("Any", torch).sparse_compressed_tensor
    return make(compressed, plain, values, source.shape, layout=source.layout, check_invariants=False)
