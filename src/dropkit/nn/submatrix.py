"""Chains of linear layers or convolutions with dropout whose masks the batch shares, on submatrices of the weights.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478.

If all samples share the mask of the hidden units, the products around it need no dropped unit: its row of the matrix
before and its column of the matrix after are left out, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import (
    has_torch_function_unary,  # pyright: ignore[reportUnknownVariableType] (its stub has no types)
)

from dropkit import random
from dropkit.catalog import TRANSPOSED_LINEAR
from dropkit.kernels import FLOATS
from dropkit.kernels.gpu import keys as gpu_keys
from dropkit.kernels.gpu.capture import is_captured
from dropkit.kernels.gpu.send import send
from dropkit.kernels.mask import Mask
from dropkit.nn.draw_key import is_on_host
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.dropout import LAYER, dropout
from dropkit.nn.noise_shape import with_noise_shape
from dropkit.ops import autograd
from dropkit.ops.submatrix import Submatrix, cut
from dropkit.torch_private import function_modes_only_place_tensors, has_forward_hooks, in_forward_mode

Activation = Callable[[Tensor], Tensor]

# Cutting costs three copies of the weights, saves the share p of products of as many rows as the batch has, and takes
# half a millisecond more, whatever the sizes. From where on it is faster than the masked product on a CPU: the smallest
# rows * p, and the smallest number of multiplications saved. benchmarks/batchwise.py measures both sides of the limits.
LEAST_ROWS = 24
LEAST_MULTIPLICATIONS = 2**24
# On a GPU, by its data sheet rather than by a measurement: products of bfloat16 take as long as the copies at some 600
# rows * p, and the launches of the copies keep the host busy for as long as 2**34 multiplications, forward and
# backward, keep the GPU. benchmarks/gpu measures both sides of these limits, too.
LEAST_ROWS_ON_GPU = 2**10
LEAST_MULTIPLICATIONS_ON_GPU = 2**34
# Products take up to a third less time if they have a multiple of 8 units, where all rows of memory begin at multiples
# of 32 bytes. Multiples of 16 are no faster, and leave less out of small layers.
MULTIPLE = 8


class Chain(NamedTuple):
    """Products with an activation and dropout between each two.

    Attributes:
        layers: at least two modules, each a product with a weight.
        activation: an elementwise function.
        p: expected fraction of hidden units dropped.
        gate: a second product of the input, whose values multiply those of the first activation.
    """

    layers: Sequence[nn.Module]
    activation: Activation
    p: float | Tensor
    gate: nn.Module | None = None

    @property
    def modules(self) -> Sequence[nn.Module]:
        return self.layers if self.gate is None else (*self.layers, self.gate)


def run(
    chain: Chain, input: Tensor, training: bool, keys: Sequence[Tensor | int | None], generator: Generator | None = None
) -> Tensor:
    """The output of a chain, in which all samples and positions share the mask of a layer's units.

    Args:
        keys: one for each activation; None to draw it.
        generator: where keys are drawn from; torch's default generator of the input's device if None.
    """
    if training and _can_cut(chain, input, keys):
        return _on_submatrices(chain, input, keys, generator)
    unit_dim = _unit_dim(chain)
    for layer, key in zip(chain.layers, keys, strict=False):
        hidden = chain.activation(layer(input))
        if chain.gate is not None:
            hidden = hidden * chain.gate(input)
        shape = _shared(hidden.dim(), unit_dim)
        input = dropout(hidden, chain.p, training, noise_shape=shape, generator=generator, key=key)
    return chain.layers[-1](input)


def _on_submatrices(
    chain: Chain, input: Tensor, keys: Sequence[Tensor | int | None], generator: Generator | None
) -> Tensor:
    columns, scale = None, None
    for layer, key in zip(chain.layers, keys, strict=False):
        shape = list(input.shape)
        shape[_unit_dim(chain)] = sizes_of(layer)[0]
        rows, next_scale = _draw_kept(chain, input, shape, generator, key)
        hidden = chain.activation(_product(layer, input, Submatrix(rows, columns, scale)))
        if chain.gate is not None:
            hidden = hidden * _product(chain.gate, input, Submatrix(rows))
        input, columns, scale = hidden, rows, next_scale
    return _product(chain.layers[-1], input, Submatrix(None, columns, scale))


def _draw_kept(
    chain: Chain, input: Tensor, shape: Sequence[int], generator: Generator | None, key: Tensor | int | None
) -> tuple[Tensor, Tensor]:
    """The units that `dropout` of hidden values of this shape would keep, and a few others; what it would multiply
    each by, float64: 0 for the others.
    """
    unit_dim = _unit_dim(chain)
    hidden = input.detach().new_empty(()).expand(shape)  # without memory
    if key is not None:
        key = random.check_key(key, generator, hidden)
    mask = draw_mask(with_noise_shape(LAYER, _shared(len(shape), unit_dim)), hidden, chain.p, generator, key)
    stride = mask.strides_for(shape)[unit_dim]
    ones = torch.ones(shape[unit_dim], device="cpu", dtype=torch.float64)
    factors = autograd.drop(ones, Mask(mask.key, mask.params, (stride,), mask.offset))
    kept, dropped = factors.nonzero().flatten(), (factors == 0).nonzero().flatten()
    more = -len(kept) % MULTIPLE if len(kept) else MULTIPLE  # products take no matrix without rows
    units = torch.cat((kept, dropped[:more]))
    return send(units, input.device), send(factors.index_select(0, units), input.device)


def _product(layer: nn.Module, input: Tensor, part: Submatrix) -> Tensor:
    module: Any = layer
    bias = None if module.bias is None else cut(module.bias, Submatrix(part.rows))
    if _is_transposed(layer):
        return F.linear(input, _cut_transposed(module.weight, part), bias)
    weight = cut(module.weight, part)
    if isinstance(layer, nn.Linear):
        return F.linear(input, weight, bias)
    return _CONVOLUTIONS[weight.dim()](input, weight, bias, module.stride, module.padding, module.dilation)


def _cut_transposed(weight: Tensor, part: Submatrix) -> Tensor:
    """The part of a weight whose rows lie in memory as columns, in the usual orientation."""
    weight = cut(weight, Submatrix(part.columns, part.rows))
    if part.scale is not None:
        weight = weight * part.scale.to(weight.dtype).unsqueeze(1)
    return weight.t()


def is_product(layer: nn.Module) -> bool:
    """Whether a module is a linear layer, of torch or with a transposed weight, and nothing else."""
    return isinstance(layer, nn.Linear) or _is_transposed(layer)


def sizes_of(layer: nn.Module) -> tuple[int, int]:
    """How many features or channels the output and the input of a product have."""
    first, second = cast("Tensor", layer.weight).shape[:2]
    return (second, first) if _is_transposed(layer) else (first, second)


def _is_transposed(layer: nn.Module) -> bool:
    cls = type(layer)
    return f"{cls.__module__}.{cls.__qualname__}" in TRANSPOSED_LINEAR


# By the number of dimensions of the weight.
_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_FORWARDS = tuple(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _unit_dim(chain: Chain) -> int:
    """The dimension of units, counted from the last."""
    first = chain.layers[0]
    return -1 - len(first.kernel_size) if isinstance(first, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else -1


def _shared(dims: int, unit_dim: int) -> tuple[int | None, ...]:
    """The noise shape of a tensor of so many dimensions whose units have one mask element each."""
    return tuple(None if dim == dims + unit_dim else 1 for dim in range(dims))


def _can_cut(chain: Chain, input: Tensor, keys: Sequence[Tensor | int | None]) -> bool:
    """Whether the products can run on submatrices, unseen by any mode, tracer or transform, and whether it pays."""
    return (
        # A rate may be a tensor, for a compiler.
        isinstance(chain.p, float)
        and 0 < chain.p < 1
        and (not has_torch_function_unary(input) or function_modes_only_place_tensors())
        and autograd.can_use_fast_path(input)
        and input.layout is torch.strided
        and not input.is_nested
        and _pays(chain, input)  # before what takes longer to ask
        and not in_forward_mode()
        and (input.is_cpu or _host_knows_masks(input, keys))
        and input.dtype in FLOATS
        and all(map(_is_plain, chain.modules))
        and _fits(chain)
    )


def _host_knows_masks(input: Tensor, keys: Sequence[Tensor | int | None]) -> bool:
    """Whether the host can tell which units of a GPU are kept, without waiting for it; it draws keys of None."""
    device = input.device
    return (
        input.is_cuda
        and not is_captured(device)
        and all(gpu_keys.agrees(device) if key is None else is_on_host(key) for key in keys)
    )


def _is_plain(layer: nn.Module) -> bool:
    """Whether calling a layer means nothing but the product with its weight."""
    if "forward" in vars(layer) or has_forward_hooks(layer):
        return False
    module: Any = layer
    is_plain = is_product(layer) or (module.groups == 1 and module.padding_mode == "zeros")
    tensors = (module.weight,) if module.bias is None else (module.weight, module.bias)
    return is_plain and all(autograd.can_use_fast_path(x) and x.layout is torch.strided for x in tensors)


def _fits(chain: Chain) -> bool:
    """Whether sizes fit; if not, torch's own products say so."""
    weights = [cast("Tensor", layer.weight) for layer in chain.layers]
    if any(weight.dim() != weights[0].dim() for weight in weights):
        return False
    sizes = list(map(sizes_of, chain.layers))
    fits = all(after[1] == before[0] for before, after in pairwise(sizes))
    return fits and (chain.gate is None or sizes_of(chain.gate) == sizes[0])


def _pays(chain: Chain, input: Tensor) -> bool:
    """Whether all layers are products, and large enough."""
    unit_dim = _unit_dim(chain)
    if input.dim() < -unit_dim:
        return False
    p: Any = chain.p
    rows = input.numel() // max(1, input.shape[unit_dim]) * p
    least_rows, least_multiplications = (
        (LEAST_ROWS_ON_GPU, LEAST_MULTIPLICATIONS_ON_GPU) if input.is_cuda else (LEAST_ROWS, LEAST_MULTIPLICATIONS)
    )
    if rows < least_rows or not all(
        type(layer).forward in _FORWARDS or _is_transposed(layer) for layer in chain.modules
    ):
        return False
    return rows * sum(cast("Tensor", layer.weight).numel() for layer in chain.modules) >= least_multiplications


def dropped_columns(output: Tensor, layer: nn.Module) -> Tensor:
    """Which columns of the weight got no input, from outputs of a linear layer with more rows than columns.

    For the records of layers. Of a convolution, the outputs are those of an input that is constant over space.

    Shape:
        output: (*, rows). Returns (columns), boolean.
    """
    module: Any = layer
    weight: Tensor = module.weight.detach().double()
    values = output.detach().double()
    if module.bias is not None:
        values = values - module.bias.detach().double()
    matrix = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    linalg: Any = torch.linalg
    inputs: Tensor = linalg.lstsq(matrix, values.flatten(0, -2).mT).solution
    return inputs.abs().amax(1) < 0.1
