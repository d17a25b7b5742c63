"""R-Drop: a loss that pulls together the predictions under two masks.

Source: Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu, "R-Drop: Regularized Dropout for Neural Networks", NeurIPS
2021, arXiv:2106.14448, equations 1 to 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dropkit.arguments import check


def r_drop_loss(
    first: Tensor, second: Tensor, target: Tensor, alpha: float = 1.0, *, reduction: str = "mean"
) -> Tensor:
    r"""Cross-entropy of two predictions of the same inputs under two masks, and the distance between them.

    .. math:: \mathcal L = -\log P_1(y|x) - \log P_2(y|x)
        + \tfrac{\alpha}{2} [D_{KL}(P_1 \| P_2) + D_{KL}(P_2 \| P_1)]

    Args:
        first, second: logits.
        target: classes or their probabilities, as for `torch.nn.functional.cross_entropy`.
        alpha: weight of the distance; the paper uses 1 to 5.
        reduction: "mean" or "sum" over samples, or "none".

    Shape:
        first, second: (N, C); target: (N,) or (N, C); output: a number, or (N,) if `reduction` is "none".

    Raises:
        ValueError: shapes of the logits differ, `alpha` is negative, or `reduction` is another word.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> r_drop_loss(logits, logits, torch.tensor([0]))  # equal predictions: twice the cross-entropy
        tensor(0.2539)
    """
    check("second", first.shape == second.shape, f"of the shape of first, {tuple(first.shape)}", tuple(second.shape))
    check("alpha", alpha >= 0, "at least 0", alpha)
    check("reduction", reduction in ("mean", "sum", "none"), '"mean", "sum" or "none"', repr(reduction))
    log_p, log_q = first.log_softmax(1), second.log_softmax(1)
    # The sum of both divergences: sum((p - q) * (log p - log q)).
    distance = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)
    losses = sum(F.cross_entropy(logits, target, reduction="none") for logits in (first, second))
    losses = losses + alpha / 2 * distance
    return losses if reduction == "none" else getattr(losses, reduction)()


def run_twice(model: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of a model under two independent masks, from one call on the inputs and themselves.

    Args:
        model: a module in training mode, or any function from a batch to a tensor.
        inputs: its arguments, all with the batch as dimension 0.

    Returns:
        Two tensors of the shape of `model(*inputs)`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 3), dropkit.nn.Dropout(0.1))
        >>> first, second = run_twice(model, torch.randn(4, 8))
        >>> loss = r_drop_loss(first, second, torch.tensor([0, 1, 2, 0]), alpha=5)
    """
    first, second = model(*(torch.cat([input, input]) for input in inputs)).chunk(2)
    return first, second
