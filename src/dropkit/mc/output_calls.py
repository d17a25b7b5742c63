"""Endings: which of the last calls of a pass made its outputs, where that tells what they are."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, cast
from weakref import WeakValueDictionary, ref

import torch
import torch.nn.functional as F
from torch import Tensor


class Ending(Enum):
    """What made a tensor; OTHER is what gives logits as a rule, also where they lie in [0, 1]."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    LOG_SIGMOID = "log sigmoid"
    LOG_SOFTMAX = "log softmax"
    OTHER = "other"


def _called(names: str) -> frozenset[Any]:
    """Functions of torch, of its functional interface and of its tensors, by their names."""
    owners = (torch, torch.special, F, Tensor)
    return frozenset(getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name))


_MADE: dict[Any, Ending] = {
    **dict.fromkeys(_called("sigmoid sigmoid_ expit hardsigmoid"), Ending.SIGMOID),
    **dict.fromkeys(_called("softmax"), Ending.SOFTMAX),
    **dict.fromkeys(_called("logsigmoid"), Ending.LOG_SIGMOID),
    **dict.fromkeys(_called("log_softmax"), Ending.LOG_SOFTMAX),
    **dict.fromkeys(
        _called(
            "linear bilinear matmul mm bmm mv addmm baddbmm einsum tensordot conv1d conv2d conv3d conv_transpose1d "
            "conv_transpose2d conv_transpose3d layer_norm rms_norm normalize cosine_similarity cdist pairwise_distance "
            "hardtanh one_hot"
        ),
        Ending.OTHER,
    ),
}
_LAST = 16
_EXP = _called("exp exp_")
_OF_LOGS = {Ending.LOG_SIGMOID: Ending.SIGMOID, Ending.LOG_SOFTMAX: Ending.SOFTMAX}
# What puts numbers elsewhere, or several tensors together, rounds or limits them, or takes their mean.
_MOVED: frozenset[Any] = _called(
    "cat concat concatenate stack hstack vstack dstack column_stack row_stack clone contiguous detach cpu cuda to "
    "float double half bfloat16 type type_as squeeze unsqueeze view view_as reshape reshape_as flatten unflatten "
    "ravel transpose swapaxes swapdims permute movedim moveaxis t adjoint expand expand_as repeat tile flip roll "
    "narrow select index_select gather take_along_dim masked_select split chunk tensor_split hsplit vsplit unbind "
    "where clamp clamp_ clamp_min clamp_max clip clip_ masked_fill masked_fill_ nan_to_num nan_to_num_ mean add div "
    "true_divide __getitem__"
) | {cast("Any", one).__get__ for one in (Tensor.T, Tensor.mT, Tensor.H, Tensor.mH)}


class Endings:
    """The tensors of a pass that are known to have been made so; those that are gone are forgotten."""

    def __init__(self) -> None:
        telling = [one for one in Ending if one is not Ending.OTHER]
        self._known: dict[Ending, WeakValueDictionary[int, Tensor]] = {one: WeakValueDictionary() for one in telling}
        self._tells = False
        # Whatever makes logits is called so often that only the last are kept.
        self._others: deque[ref[Tensor]] = deque(maxlen=_LAST)

    def note(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Take notice of a call of torch's and of what it gave."""
        try:
            ending, moved, exp = _MADE.get(func), func in _MOVED, func in _EXP
        except TypeError:  # some callables have no hash
            return
        if ending is Ending.OTHER and type(output) is Tensor and not self._tells:
            self._others.append(ref(output))
            return
        if moved or exp or ending is Ending.OTHER:
            found = self._found(args, kwargs)
            common = next(iter(found)) if len(found) == 1 else None
            if moved:
                ending = common
            elif exp and common in _OF_LOGS:
                ending = _OF_LOGS[common]
            else:
                # A mixture of sigmoids is neither.
                ending = Ending.OTHER if found <= {None, Ending.OTHER} else None
        if ending is not None:
            outputs = cast("list[Any]", output) if isinstance(output, (tuple, list)) else [output]
            for one in outputs:
                if isinstance(one, Tensor) and ending is Ending.OTHER:
                    self._others.append(ref(one))
                elif isinstance(one, Tensor):
                    self._known[ending][id(one)], self._tells = one, True

    def of(self, tensor: Any) -> Ending | None:
        """What made this tensor, if that is known."""
        found = next((one for one, known in self._known.items() if known.get(id(tensor)) is tensor), None)
        is_other = found is None and any(one() is tensor for one in self._others)
        return Ending.OTHER if is_other else found

    def _found(self, args: Any, kwargs: Any) -> set[Ending | None]:
        """What made the tensors that a call is given, but for indices and masks."""
        if not self._others and not self._tells:
            return {None}
        tensors: set[Ending | None] = set()
        for part in (*args, *kwargs.values()):
            for one in cast("list[Any]", part) if isinstance(part, (list, tuple)) else [part]:
                if isinstance(one, Tensor) and one.dtype.is_floating_point:
                    tensors.add(self.of(one))
        return tensors
