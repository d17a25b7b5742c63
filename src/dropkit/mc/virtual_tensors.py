"""Virtual tensors: their values are computed when something reads them, if at all.

A `PrunedTensor` is a tensor after dropout of which only the kept slices exist. A `DeferredLayer` is the output of a
linear layer or a convolution that runs at the dropout behind it, so that dropped units are never computed. Functions
without a rule (see `accelerate/pruned_rules.py`) receive ordinary tensors with the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from dropkit.containers import map_leaves
from dropkit.torch_private import make_unreadable, no_torch_function, wrapper_subclass, write_count

# With fewer rows than this, selecting columns takes longer than multiplying them.
WORTHWHILE_ROWS = 64
# The layers that can be deferred.
DEFERRED_FUNCTIONS = frozenset({F.linear, F.conv1d, F.conv2d, F.conv3d})

# By function: a rule, from (function, arguments, keyword arguments) to the result, or NotImplemented.
RULES: dict[Any, Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]] = {}


class StaleInput(Exception):
    """The input or weight of a deferred layer was written into before the layer ran: it must not be deferred.

    Attributes:
        layer: its number among the layers of the pass.
    """

    def __init__(self, layer: int) -> None:
        super().__init__(f"what layer {layer} of the pass reads was written before its output was dropped")
        self.layer = layer


class VirtualTensor(Tensor):
    """A tensor without memory, which can compute its values.

    Attributes:
        full: the ordinary tensor, once it has been computed.
    """

    full: Tensor | None

    @staticmethod
    def create(kind: type[Any], shape: Sequence[int], like: Tensor) -> Any:
        tensor = wrapper_subclass(kind, tuple(shape), dtype=like.dtype, device=like.device)
        # Code that bypasses the rules must get an error, since there is no memory.
        make_unreadable(tensor)
        tensor.full = None
        return tensor

    def compute(self) -> Tensor:
        raise NotImplementedError

    def materialize(self) -> Tensor:
        """The ordinary tensor; computed once, so that every reference sees what is written into it."""
        if self.full is None:
            self.full = self.compute()
        return self.full

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return deepcopy(self.materialize(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return cast("Any", self.materialize()).__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_function(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*materialized(args), **materialized(kwargs or {}))


class PrunedTensor(VirtualTensor):
    """A tensor of which most slices along one dimension are 0.

    Attributes:
        slices: the kept slices; `scale` times these are the values.
        kept_indices: their indices along `pruned_dim`, int64.
        is_aliased: another tensor shares the slices.
    """

    slices: Tensor
    kept_indices: Tensor
    pruned_dim: int
    scale: float
    is_aliased: bool

    def compute(self) -> Tensor:
        whole = self.slices.new_zeros(self._size())
        return whole.index_copy_(self.pruned_dim, self.kept_indices, self.slices * self.scale)

    def scaled(self) -> Tensor:
        return self.slices if self.scale == 1 else self.slices * self.scale

    def _size(self) -> Sequence[int]:
        with no_torch_function():
            return self.shape


class DeferredLayer(VirtualTensor):
    """The output of a linear layer or a convolution that has not run yet.

    Attributes:
        func: the function of the layer.
        source: its input, or the kept slices of its input.
        source_kept: the indices of these slices, and their scale; None if `source` is the whole input.
        rest: its arguments after the bias, by position and by name.
        pruned_dim: the dimension of its output that can be pruned.
        then: elementwise functions that follow.
        write_counts: those of `source`, weight and bias when the layer was called.
        layer: its number among the layers of the pass.
    """

    func: Any
    source: Tensor
    source_kept: tuple[Tensor, float] | None
    weight: Tensor
    bias: Tensor | None
    rest: tuple[tuple[Any, ...], dict[str, Any]]
    pruned_dim: int
    then: tuple[Callable[[Tensor], Tensor], ...]
    write_counts: tuple[int, ...]
    layer: int

    def compute(self) -> Tensor:
        return self.run(None)

    def run(self, kept: Tensor | None) -> Tensor:
        """Run the layer for these output units alone, or for all.

        Raises:
            StaleInput: the input or a parameter has been written into.
        """
        if self.current_write_counts() != self.write_counts:
            raise StaleInput(self.layer)
        weight, bias = self.weight, self.bias
        if kept is not None:
            weight, bias = weight.index_select(0, kept), None if bias is None else bias.index_select(0, kept)
        if self.source_kept is not None:
            indices, scale = self.source_kept
            # The weights are fewer numbers to scale than the activations.
            weight = weight.index_select(1, indices) * scale
        args, kwargs = self.rest
        output = self.func(self.source, weight, bias, *args, **kwargs)
        for function in self.then:
            output = function(output)
        return output

    def current_write_counts(self) -> tuple[int, ...]:
        return tuple(0 if tensor is None else write_count(tensor) for tensor in (self.source, self.weight, self.bias))


def prune(input: Tensor, kept: Tensor, dim: int, scale: float) -> PrunedTensor:
    """Drop all slices of `input` along `dim` except `kept`, and scale these."""
    with no_torch_function():
        shape = input.shape
    if isinstance(input, DeferredLayer) and input.full is None and input.pruned_dim == dim:
        slices = input.run(kept)
    else:
        slices = (input.materialize() if isinstance(input, VirtualTensor) else input).index_select(dim, kept)
    return pruned_tensor(slices, kept, dim, scale, shape)


def pruned_tensor(slices: Tensor, kept: Tensor, dim: int, scale: float, shape: Sequence[int]) -> PrunedTensor:
    tensor: PrunedTensor = VirtualTensor.create(PrunedTensor, shape, slices)
    tensor.slices, tensor.kept_indices, tensor.pruned_dim = slices, kept, dim
    tensor.scale, tensor.is_aliased = scale, False
    return tensor


def materialized(value: Any) -> Any:
    """Replace virtual tensors by ordinary ones, also inside lists, tuples and dicts."""
    return map_leaves(lambda leaf: leaf.materialize() if isinstance(leaf, VirtualTensor) else leaf, value)


def run_function(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run a function on virtual tensors: by its rule, or on their values."""
    writes = is_inplace(func, kwargs)
    if writes and any(isinstance(value, PrunedTensor) and value.is_aliased for value in args):
        raise NotImplementedError("a view of a pruned tensor is written")
    rule = RULES.get(func)
    if rule is not None:
        output = rule(func, args, kwargs)
        if output is not NotImplemented:
            return output
    if reads_no_values(func):
        with no_torch_function():
            return func(*args, **kwargs)
    output = func(*materialized(args), **materialized(kwargs))
    if writes and any(_has_another_shape(value) for value in args):
        raise NotImplementedError(f"{func.__name__} of a pruned tensor changes its shape")
    return output


def is_inplace(func: Any, kwargs: Mapping[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or bool(kwargs.get("inplace"))


def _has_another_shape(value: Any) -> bool:
    if not isinstance(value, VirtualTensor) or value.full is None:
        return False
    with no_torch_function():
        return value.shape != value.full.shape


def reads_no_values(func: Any) -> bool:
    """Whether a function tells nothing but the shape, the dtype and the like."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return name in _READING_NO_VALUES


_READING_NO_VALUES = frozenset(
    {
        "shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_cpu", "requires_grad", "is_sparse", "is_nested",
        "dim", "size", "numel", "is_floating_point", "is_complex", "__len__", "ndimension", "nelement", "element_size",
        "is_quantized", "is_mkldnn", "is_meta", "is_mps", "is_xpu", "is_leaf", "grad_fn", "is_inference",
    }
)  # fmt: skip
