"""Sparse tensors: dropout of the values that they store, by the same laws in each layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dropkit import mc
from dropkit.functional import dropout
from dropkit.nn import LAYERS, Dropout

KEY = 7
ABLE = [layer for layer in LAYERS if layer.mask_shape is None and layer.keeps_zeros]
UNABLE = [record for layer in LAYERS for record in (layer, *layer.variants) if record not in ABLE]
LAYOUTS = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
    "bsr": lambda x: x.to_sparse_bsr((2, 2)),
    "bsc": lambda x: x.to_sparse_bsc((2, 2)),
    "hybrid": lambda x: x.view(6, 4, 2).to_sparse(2),
    "batch": lambda x: torch.stack([x, x]).to_sparse_csr(),
}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
each = pytest.mark.parametrize("drops", ABLE, ids=lambda layer: layer.name)
layouts = pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)


def example(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dense = torch.rand(6, 8, generator=generator) + 0.5
    return (dense * (torch.rand(6, 8, generator=generator) > 0.5)).to(dtype)


def ones_stored(x: Tensor) -> Tensor:
    """Ones where `x` stores values."""
    ones = torch.ones_like(x.values())
    if x.is_sparse:
        return torch.sparse_coo_tensor(x.indices(), ones, x.shape, is_coalesced=True)
    by_rows = x.layout in (torch.sparse_csr, torch.sparse_bsr)
    indices = (x.crow_indices(), x.col_indices()) if by_rows else (x.ccol_indices(), x.row_indices())
    return torch.sparse_compressed_tensor(*indices, ones, x.shape, layout=x.layout)


@each
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_values_are_dropped_like_a_dense_tensor(drops, make, dtype):
    """The layout and the pattern stay."""
    x = make(example(dtype))

    output = drops.function(x, 0.5, True, key=KEY)

    assert output.layout == x.layout
    assert torch.equal(output.values(), drops.function(x.values(), 0.5, True, key=KEY))
    assert torch.equal(ones_stored(output).to_dense(), ones_stored(x).to_dense())


@each
def test_coo_and_csr_have_one_mask(drops):
    """Their values lie in the same order."""
    x = example()

    of_coo, of_csr = (drops.function(make(x), 0.5, True, key=KEY) for make in (LAYOUTS["coo"], LAYOUTS["csr"]))

    assert torch.equal(of_coo.to_dense(), of_csr.to_dense())


@each
@layouts
def test_gradients_are_those_of_the_values(drops, make):
    """Of a sparse leaf, and of the dense tensor that a sparse one was made from."""
    leaf, dense = make(example()).requires_grad_(), example().requires_grad_()
    slope = drops.function(ones_stored(leaf), 0.5, True, key=KEY).to_dense()

    (of_leaf,) = torch.autograd.grad(drops.function(leaf, 0.5, True, key=KEY).values().sum(), leaf)
    (of_dense,) = torch.autograd.grad(drops.function(make(dense), 0.5, True, key=KEY).values().sum(), dense)

    assert of_leaf.layout == leaf.layout
    assert torch.equal(of_leaf.to_dense(), slope)
    assert torch.equal(of_dense, slope.view(-1, 6, 8).sum(0))


def test_duplicates_are_one_element():
    """A value stored in two parts is dropped or kept as a whole."""
    indices = torch.tensor([[0] * 100, [*range(50)] * 2])
    x = torch.sparse_coo_tensor(indices, torch.ones(100), (1, 50))

    output = dropout(x, 0.5, key=KEY)

    assert torch.equal(output.to_dense()[0], dropout(torch.full((50,), 2.0), 0.5, key=KEY))


@each
@layouts
def test_eval_mode_and_rate_0_return_the_input(drops, make):
    """And a tensor that stores nothing stays so."""
    x = make(example())

    assert drops.function(x, 0.5, False) is x
    assert drops.function(x, 0.0, True) is x
    assert drops.function(torch.zeros(2, 3).to_sparse(), 0.5, True)._nnz() == 0


@layouts
def test_at_rate_1_all_values_are_0(make):
    """NaN and infinity too."""
    output = dropout(make(example() * torch.inf), 1.0)

    assert output.values().count_nonzero() == 0


@each
@layouts
def test_in_place_the_input_is_written(drops, make):
    """Once, and only where no graph needs its gradient, which torch could not give."""
    x = make(example())
    expected = drops.function(x, 0.5, True, key=KEY)
    version = x._version

    output = drops.function(x, 0.5, True, True, key=KEY)

    assert output is x
    assert x._version == version + 1
    assert torch.equal(output.values(), expected.values())
    with pytest.raises(NotImplementedError, match="inplace must be False for sparse tensors that require grad"):
        drops.function(make(example()).requires_grad_() * 1.0, 0.5, True, True)


@pytest.mark.parametrize("record", UNABLE, ids=lambda layer: f"{layer.name}, {dict(layer.options)}")
def test_other_layers_refuse(record):
    """They drop whole groups of elements, or would change zeros, which are not stored. Nothing is drawn."""
    state = torch.get_rng_state()

    with pytest.raises(NotImplementedError, match=f"{record.function.__name__}: input must be dense.*got.*sparse_coo"):
        record.function(torch.ones(record.example_shape).to_sparse(), 0.5, True, **record.options)

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [LAYOUTS["coo"], LAYOUTS["csr"]], ids=["coo", "csr"])
def test_complex_values_have_one_mask_element_each(make):
    """As those of dense tensors."""
    x = make(example(torch.complex64))

    assert torch.equal(dropout(x, 0.5, key=KEY).values(), dropout(x.values().clone(), 0.5, key=KEY))


def test_compiled_code_has_the_mask_of_eager_code():
    """torch takes no sparse tensor into a graph; the call runs between graphs."""
    x, weight = example().to_sparse_csr(), torch.randn(8, 3)

    def layer(x):
        return dropout(x, 0.5, key=KEY) @ weight

    assert torch.equal(torch.compile(layer, backend="eager")(x), layer(x))


def test_monte_carlo_dropout_samples_dropped_edges():
    """A graph layer whose adjacency matrix is dropped varies from sample to sample."""

    class GraphLayer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.linear = Dropout(0.5), torch.nn.Linear(4, 2)
            self.adjacency = example()[:, :6].to_sparse()

        def forward(self, x):
            return self.drop(self.adjacency) @ self.linear(x)

    variance = mc.predict(GraphLayer().eval(), torch.randn(6, 4), samples=8, task="regression", seed=3).variance

    assert (variance > 0).any()
