"""OutputCalls: which call of a pass made a tensor, to tell logits from probabilities."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, cast
from weakref import WeakValueDictionary, ref

import torch
import torch.nn.functional as F
from torch import Tensor


class OutputCall(Enum):
    """The kind of call that made a tensor. OTHER calls usually return logits, even if these lie in [0, 1]."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    LOG_SIGMOID = "log sigmoid"
    LOG_SOFTMAX = "log softmax"
    OTHER = "other"


def _functions(names: str) -> frozenset[Any]:
    """The functions and tensor methods of torch with these names."""
    owners = (torch, torch.special, F, Tensor)
    return frozenset(getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name))


_CALLS: dict[Any, OutputCall] = {
    **dict.fromkeys(_functions("sigmoid sigmoid_ expit hardsigmoid"), OutputCall.SIGMOID),
    **dict.fromkeys(_functions("softmax"), OutputCall.SOFTMAX),
    **dict.fromkeys(_functions("logsigmoid"), OutputCall.LOG_SIGMOID),
    **dict.fromkeys(_functions("log_softmax"), OutputCall.LOG_SOFTMAX),
    **dict.fromkeys(
        _functions(
            "linear bilinear matmul mm bmm mv addmm baddbmm einsum tensordot conv1d conv2d conv3d conv_transpose1d "
            "conv_transpose2d conv_transpose3d layer_norm rms_norm normalize cosine_similarity cdist pairwise_distance "
            "hardtanh one_hot"
        ),
        OutputCall.OTHER,
    ),
}
# How many tensors made by OTHER calls are remembered.
_LAST = 16
_EXP = _functions("exp exp_")
# What exp makes of logarithms.
_EXP_OF = {OutputCall.LOG_SIGMOID: OutputCall.SIGMOID, OutputCall.LOG_SOFTMAX: OutputCall.SOFTMAX}
# Functions that move, join, round or clamp numbers, or take their mean: logits stay logits.
_MOVING: frozenset[Any] = _functions(
    "cat concat concatenate stack hstack vstack dstack column_stack row_stack clone contiguous detach cpu cuda to "
    "float double half bfloat16 type type_as squeeze unsqueeze view view_as reshape reshape_as flatten unflatten "
    "ravel transpose swapaxes swapdims permute movedim moveaxis t adjoint expand expand_as repeat tile flip roll "
    "narrow select index_select gather take_along_dim masked_select split chunk tensor_split hsplit vsplit unbind "
    "where clamp clamp_ clamp_min clamp_max clip clip_ masked_fill masked_fill_ nan_to_num nan_to_num_ mean add div "
    "true_divide __getitem__"
) | {cast("Any", attribute).__get__ for attribute in (Tensor.T, Tensor.mT, Tensor.H, Tensor.mH)}


class OutputCalls:
    """The tensors of a pass that a known kind of call made, held by weak references."""

    def __init__(self) -> None:
        self._known: dict[OutputCall, WeakValueDictionary[int, Tensor]] = {
            call: WeakValueDictionary() for call in OutputCall if call is not OutputCall.OTHER
        }
        self._has_known = False
        # Calls that make logits are so frequent that only the last ones are kept.
        self._others: deque[ref[Tensor]] = deque(maxlen=_LAST)

    def record(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Record which call made the tensors that a function of torch returned."""
        try:
            call, is_moving, is_exp = _CALLS.get(func), func in _MOVING, func in _EXP
        except TypeError:  # some callables have no hash
            return
        if call is OutputCall.OTHER and type(output) is Tensor and not self._has_known:
            self._others.append(ref(output))
            return
        if is_moving or is_exp or call is OutputCall.OTHER:
            inputs = self._calls_of_inputs(args, kwargs)
            common = next(iter(inputs)) if len(inputs) == 1 else None
            if is_moving:
                call = common
            elif is_exp and common in _EXP_OF:
                call = _EXP_OF[common]
            else:
                # A mixture of sigmoids is neither.
                call = OutputCall.OTHER if inputs <= {None, OutputCall.OTHER} else None
        if call is not None:
            outputs = cast("list[Any]", output) if isinstance(output, (tuple, list)) else [output]
            for tensor in outputs:
                if isinstance(tensor, Tensor) and call is OutputCall.OTHER:
                    self._others.append(ref(tensor))
                elif isinstance(tensor, Tensor):
                    self._known[call][id(tensor)], self._has_known = tensor, True

    def of(self, tensor: Any) -> OutputCall | None:
        """Return the call that made this tensor, if that is known."""
        # Most models have no such call before their end, and every function of torch asks.
        if self._has_known:
            for call, tensors in self._known.items():
                if tensors.get(id(tensor)) is tensor:
                    return call
        return OutputCall.OTHER if any(reference() is tensor for reference in self._others) else None

    def _calls_of_inputs(self, args: Any, kwargs: Any) -> set[OutputCall | None]:
        """The calls that made the arguments of a function, without those of indices and masks."""
        if not self._others and not self._has_known:
            return {None}
        calls: set[OutputCall | None] = set()
        for argument in (*args, *kwargs.values()):
            for item in cast("list[Any]", argument) if isinstance(argument, (list, tuple)) else [argument]:
                if isinstance(item, Tensor) and item.dtype.is_floating_point:
                    calls.add(self.of(item))
        return calls
