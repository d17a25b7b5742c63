"""Record the provenance of tensors: what computed them, which dropout they come from, and whether they are random.

The key is the memory and not the tensor object: views share it, and autograd may wrap a tensor anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dropkit.auditor.operators import Operator, memory_id
from dropkit.catalog import HOMOGENEOUS_KINDS
from dropkit.trace import Origin, Place, Site, Visit

_NORMALIZATIONS = frozenset({"LayerNorm", "GroupNorm", "RMSNorm", "BatchNorm", "Softmax", "LogSoftmax"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "div"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """What computed a tensor.

    Attributes:
        origin: names of the operations.
        feature_stride: stride of the feature dimension; None if unknown.
        dropped_by: the visit and site whose output this is, up to views and scaling.
        dropped_before: the same for the input of the activation that computed this, if that moves no zeros.
        factor: product of the numbers that it was multiplied by since; None if one is unknown.
    """

    origin: Origin
    feature_stride: int | None = None
    dropped_by: tuple[Visit, Site] | None = None
    dropped_before: tuple[Visit, Site] | None = None
    factor: float | None = 1.0


@dataclass(slots=True)
class RandomDraw:
    """A draw of random numbers, and the visit that uses them as a mask, once that is known.

    Attributes:
        owner: name of the module that draws.
        is_counted: whether the mask is already counted in the visit.
    """

    operator: str
    place: Place | None = None
    visit: Visit | None = None
    site: Site | None = None
    owner: str = ""
    is_counted: bool = False


@dataclass(frozen=True, slots=True)
class RandomTensor:
    """A tensor computed from random numbers: a mask, a preliminary stage of one, or a key.

    Attributes:
        draw: where the numbers come from.
        is_discrete: whether it has few values, as a mask has and noise has not.
        is_independent: whether its elements are independent; pooling spreads one draw over a block.
    """

    draw: RandomDraw
    is_discrete: bool = True
    is_independent: bool = True


@dataclass(frozen=True, slots=True)
class _Stored:
    """A random tensor and its memory. The weak reference keeps the address from being reused."""

    random: RandomTensor
    memory: StorageWeakRef
    nbytes: int


class ProvenanceTable:
    """The provenance of all tensors of one run."""

    def __init__(self) -> None:
        self._provenance: dict[int, Provenance] = {}
        self._random: dict[int, _Stored] = {}

    def get(self, tensor: Tensor) -> Provenance | None:
        key = memory_id(tensor)
        return self._provenance.get(key) if key is not None else None

    def set(self, tensor: Tensor, provenance: Provenance | None) -> None:
        key = memory_id(tensor)
        if key is not None and provenance is not None:
            self._provenance[key] = provenance
        elif key is not None:
            self._provenance.pop(key, None)

    def get_random(self, tensor: Tensor) -> RandomTensor | None:
        key = memory_id(tensor)
        stored = self._random.get(key) if key is not None else None
        return stored.random if stored is not None else None

    def set_random(self, tensor: Tensor, random: RandomTensor) -> None:
        key = memory_id(tensor)
        if key is not None:
            memory = tensor.untyped_storage()
            self._random[key] = _Stored(random, StorageWeakRef(memory), memory.nbytes())

    def discard_random(self, tensor: Tensor) -> None:
        """Note that something else was written into the memory of a random tensor."""
        key = memory_id(tensor)
        if key is not None:
            self._random.pop(key, None)

    def masks_in_memory(self) -> Iterator[tuple[Visit, int]]:
        """Yield the visits whose masks are still in memory, with their bytes."""
        for stored in self._random.values():
            if stored.random.draw.visit is not None and not stored.memory.expired():
                yield stored.random.draw.visit, stored.nbytes

    def feature_dim(self, tensor: Tensor) -> int | None:
        """Return the dimension of the features that the last layer computed; None if unknown."""
        provenance = self.get(tensor)
        if provenance is None or provenance.feature_stride is None or tensor.is_nested:
            return None
        stride = provenance.feature_stride
        dims = [dim for dim in range(tensor.dim()) if tensor.size(dim) > 1 and tensor.stride(dim) == stride]
        return dims[0] if len(dims) == 1 else None

    def after(self, operator: Operator, args: Sequence[Any], inputs: Sequence[Tensor], output: Tensor) -> Provenance:
        """Return the provenance of the output of `operator`."""
        label = operator.label(args, output)
        source = next((tensor for tensor in inputs if self.get(tensor) is not None), None)
        provenance = self.get(source) if source is not None else None
        if provenance is None or source is None or not operator.is_elementwise:
            return Provenance(Origin(label, label), operator.feature_stride(output))
        dropped = provenance.dropped_by if label in HOMOGENEOUS_KINDS else None
        stride = operator.feature_stride(output)
        if stride is None and _same_shape(source, output):
            stride = self._stride_of_same_dim(source, output)
        keeps_layer = (operator.layer in _ARITHMETIC or stride is not None) and operator.layer not in _NORMALIZATIONS
        return Provenance(Origin(label, provenance.origin.layer if keeps_layer else label), stride, None, dropped)

    def copied(self, source: Tensor, output: Tensor) -> Provenance | None:
        """Return the provenance of the same values in other memory."""
        provenance = self.get(source)
        if provenance is None:
            return None
        stride = self._stride_of_same_dim(source, output) if _same_shape(source, output) else None
        return replace(provenance, feature_stride=stride)

    def _stride_of_same_dim(self, source: Tensor, output: Tensor) -> int | None:
        dim = self.feature_dim(source)
        return None if dim is None else output.stride(dim)


def product(left: float | None, right: float | None) -> float | None:
    """Multiply two numbers; None if one is unknown."""
    return None if left is None or right is None else left * right


def _same_shape(source: Tensor, output: Tensor) -> bool:
    return not source.is_nested and not output.is_nested and source.shape == output.shape
