"""What is known of tensors while a model runs: what made them, which dropout they come from, which of them are masks.

Kept by memory and not by tensor: views come for free, and what autograd wraps anew is still the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dropkit.auditor.operators import Operator, storage
from dropkit.trace import Origin, Place, Site, Visit


@dataclass(frozen=True, slots=True)
class Made:
    """What made a tensor; `feature_stride` is how far apart in memory its features lie."""

    origin: Origin
    feature_stride: int | None = None
    # The visit whose output this is, with nothing but views and scalings in between, and its site.
    dropped: tuple[Visit, Site] | None = None


@dataclass(slots=True)
class Chance:
    """Random numbers that were drawn, and the visit they turn out to belong to, once they are put to use."""

    operator: str
    place: Place | None = None
    visit: Visit | None = None
    site: Site | None = None
    counted: bool = False
    # Before it is known who spent them.
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Mask:
    """A tensor of random numbers, on their way to becoming a mask or at work as one; or the key of one.

    Attributes:
        chance: what was drawn.
        discrete: whether it has few values, as a mask has and noise has not.
        independent: whether its elements are: pooling spreads one coin over a block.
    """

    chance: Chance
    discrete: bool = True
    independent: bool = True


@dataclass(frozen=True, slots=True)
class _Held:
    """A mask, and the memory it lies in: a weak reference keeps the address from being used again."""

    mask: Mask
    memory: StorageWeakRef
    bytes: int


class Ledger:
    """The books of one run."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}
        self._masks: dict[int, _Held] = {}

    def made(self, tensor: Tensor) -> Made | None:
        key = storage(tensor)
        return self._made.get(key) if key is not None else None

    def note(self, tensor: Tensor, made: Made | None) -> None:
        key = storage(tensor)
        if key is not None and made is not None:
            self._made[key] = made
        elif key is not None:
            self._made.pop(key, None)

    def mask(self, tensor: Tensor) -> Mask | None:
        key = storage(tensor)
        held = self._masks.get(key) if key is not None else None
        return held.mask if held is not None else None

    def note_mask(self, tensor: Tensor, mask: Mask) -> None:
        """`tensor` is `mask` from now on, whatever it was."""
        key = storage(tensor)
        if key is not None:
            memory = tensor.untyped_storage()
            self._masks[key] = _Held(mask, StorageWeakRef(memory), memory.nbytes())

    def forget_mask(self, tensor: Tensor) -> None:
        """Its memory has been written over with something else."""
        key = storage(tensor)
        if key is not None:
            self._masks.pop(key, None)

    def kept(self) -> Iterator[tuple[Visit, int]]:
        """The visits whose masks are still in memory, and how many bytes of it."""
        for held in self._masks.values():
            if held.mask.chance.visit is not None and not held.memory.expired():
                yield held.mask.chance.visit, held.bytes

    def feature_dim(self, tensor: Tensor) -> int | None:
        """Along which dimension the features lie that the last layer made."""
        made = self.made(tensor)
        if made is None or made.feature_stride is None or tensor.is_nested:
            return None
        dims = [d for d in range(tensor.dim()) if tensor.size(d) > 1 and tensor.stride(d) == made.feature_stride]
        return dims[0] if len(dims) == 1 else None

    def follow(self, operator: Operator, args: Sequence[Any], inputs: Sequence[Tensor], output: Tensor) -> Made:
        """What `operator` made of `inputs`."""
        label = operator.label(args, output)
        source = next((one for one in inputs if self.made(one) is not None), None)
        made = self.made(source) if source is not None else None
        if made is None or source is None or not operator.elementwise:
            return Made(Origin(label, label), operator.feature_stride(output))
        stride = operator.feature_stride(output)
        if stride is None and _same_shape(source, output):
            stride = self._same_dim(source, output)
        layer = made.origin.layer if operator.layer in ("add", "sub", "mul", "div") or stride is not None else label
        if operator.layer in ("LayerNorm", "GroupNorm", "RMSNorm", "BatchNorm", "Softmax", "LogSoftmax"):
            layer = label
        return Made(Origin(label, layer), stride)

    def copied(self, source: Tensor, output: Tensor) -> Made | None:
        """The same values in other memory."""
        made = self.made(source)
        if made is None:
            return None
        stride = self._same_dim(source, output) if _same_shape(source, output) else None
        return replace(made, feature_stride=stride)

    def _same_dim(self, source: Tensor, output: Tensor) -> int | None:
        dim = self.feature_dim(source)
        return None if dim is None else output.stride(dim)


def _same_shape(one: Tensor, other: Tensor) -> bool:
    return not one.is_nested and not other.is_nested and one.shape == other.shape
