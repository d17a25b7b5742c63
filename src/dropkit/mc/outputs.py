"""Outputs: from what a model returns to the numbers that are summed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.estimates import entropy

# How far the sum of float16 probabilities of some thousand classes may be from 1.
_SLACK = 1e-2
# Rows of logits that hardly all sum to 1 by chance.
_TELLING = 8
# Numbers of float32 in a vector register.
_VECTOR = 16


def tensor_of(returned: Any) -> Tensor:
    """The outputs, by the customs of most models."""
    if isinstance(returned, Tensor):
        return returned
    if isinstance(getattr(returned, "logits", None), Tensor):
        return returned.logits
    if isinstance(returned, Mapping) and isinstance(cast("Any", returned).get("logits"), Tensor):
        return cast("Any", returned)["logits"]
    if isinstance(returned, (tuple, list)) and returned and isinstance(returned[0], Tensor):
        return returned[0]
    kind = type(cast("Any", returned)).__name__
    raise TypeError(f"the model must return a tensor, logits, or a tuple that begins with one, got {kind}; see output=")


def probabilities(outputs: Tensor, form: str, class_dim: int) -> tuple[Tensor, Tensor]:
    """(samples, N, ..., classes) in float32, and their entropies in nats.

    Args:
        outputs: (samples, N, ...), with the classes in dimension `class_dim` of each sample's.
    """
    if outputs.dim() == 2:
        outputs = outputs.unsqueeze(2)
    dims = outputs.dim() - 1
    if not (-dims < class_dim < dims and class_dim != 0):
        raise ValueError(f"class_dim must be a dimension of the output after the first, of {dims}, got {class_dim}")
    outputs = outputs.float().movedim(class_dim + (class_dim >= 0), -1)
    if form == "logits":
        _check_logits(outputs[0])
    if outputs.shape[-1] == 1:
        # Of the second of two classes.
        rest = 1 - outputs if form == "probabilities" else torch.zeros_like(outputs)
        outputs = torch.cat([rest, outputs], -1)
    if form == "probabilities":
        # The first sample tells.
        check_probabilities(outputs[0], "outputs", '"logits" where they are no probabilities')
        return outputs, entropy(outputs)
    logs = _log_softmax(outputs)
    p = logs.exp()
    # 0 log 0 is 0, as 0 times any finite logarithm is.
    return p.contiguous(), logs.clamp_(min=torch.finfo(logs.dtype).min).mul_(p).sum(-1).neg_()


def check_rows(output: Tensor, count: int) -> None:
    if output.dim() == 0 or len(output) != count:
        raise ValueError(f"the model must return one row for each of {count} inputs, got shape {tuple(output.shape)}")


def _log_softmax(outputs: Tensor) -> Tensor:
    """Over the last dimension."""
    if outputs.shape[-1] >= _VECTOR:
        return outputs.log_softmax(-1)
    # torch takes several times as long over few neighbours as over numbers that lie apart.
    return outputs.transpose(-1, -2).contiguous().log_softmax(-2).transpose(-1, -2)


def _check_logits(outputs: Tensor) -> None:
    """Of the first sample; of a few rows it cannot be told."""
    if outputs.shape[-1] == 1 or outputs[..., 0].numel() < _TELLING:
        return
    if bool((outputs >= 0).all()) and torch.allclose(outputs.sum(-1), outputs.new_ones(()), atol=1e-3):
        raise ValueError(
            'outputs must be "probabilities" where the model returns them, got "logits" and numbers that sum to 1'
        )


def check_probabilities(p: Tensor, argument: str, wanted: str) -> None:
    """Raise where numbers along the last dimension are no probabilities; not a number is let through.

    Raises:
        ValueError: "<argument> must be <wanted>, got sums of ...": some are negative, or do not sum to 1.
    """
    sums = p.sum(-1)
    if bool((p < 0).any() | ((sums - 1).abs() > _SLACK).any()):
        least, most = (float(one) for one in sums.aminmax())
        check(argument, False, wanted, f"sums of {least:.3g} to {most:.3g}")
