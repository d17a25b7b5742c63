"""Attention with dropout of its weights, which follows the mode of a model and a key.

Source: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention Is All You Need", 2017,
arXiv:1706.03762, section 3.2.1; dropout of the weights as in its reference implementation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.overrides import has_torch_function  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit import random
from dropkit.nn.checks import checked_rate
from dropkit.nn.dropout import dropout


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    training: bool,
    generator: Generator | None = None,
    dropout_key: Tensor | int | None = None,
) -> Tensor:
    r"""Compute `torch.nn.functional.scaled_dot_product_attention`, with dropout in training mode only.

    .. math:: \mathrm{dropout}(\mathrm{softmax}(Q K^\top / \sqrt E + M))\, V

    torch's function drops whenever `dropout_p` is not 0, also after `model.eval()`. Here `training` has no default, so
    that a call says `training=self.training`. What drops nothing runs torch's fused kernels; what drops computes the
    weights, as torch does on the CPU. On a GPU torch's fused kernels have a dropout of their own, without keys.

    Args:
        query, key, value, attn_mask, is_causal, scale, enable_gqa: as for torch's function.
        dropout_p: expected fraction of attention weights dropped, in [0, 1].
        training: if false, drop nothing.
        generator: where the random key is drawn from; torch's default generator of the input's device if None.
        dropout_key: the random key, which other functions call `key`: 64 bits, an int or a 0-d int64 tensor, or one of
            torch's own keys. Drawn if None.

    Shape:
        query: (..., L, E), key: (..., S, E), value: (..., S, Ev), output: (..., L, Ev). One mask element for each
        weight, (..., L, S).

    Raises:
        ValueError: `dropout_p` is not in [0, 1], or both `generator` and `dropout_key` are given.

    Example:
        >>> q = k = v = torch.ones(1, 4, 2)
        >>> scaled_dot_product_attention(q, k, v, dropout_p=0.5, training=True, dropout_key=7)[0]
        tensor([[1., 1.],
                [1., 1.],
                [1., 1.],
                [0., 0.]])
        >>> scaled_dot_product_attention(q, k, v, dropout_p=0.5, training=False)[0, 0]
        tensor([1., 1.])
    """
    rate = checked_rate(dropout_p)
    if dropout_key is not None:
        random.check_key(dropout_key, generator, query)
    # A function mode, such as Monte Carlo dropout's, may switch the dropout on in eval mode.
    may_drop = training or has_torch_function((query, key, value))
    if not may_drop or (not isinstance(rate, Tensor) and rate == 0):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    weights, value = attention_weights(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return dropout(weights, rate, training, generator=generator, key=dropout_key) @ value


def attention_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weights of `F.scaled_dot_product_attention` as torch documents it, and the values with as many heads.

    Raises:
        RuntimeError: `attn_mask` is given and `is_causal` set, in torch's words.
    """
    if attn_mask is not None and is_causal:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if enable_gqa:
        key, value = (heads.repeat_interleave(query.size(-3) // heads.size(-3), -3) for heads in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
    scores = query @ key.mT * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    if attn_mask is not None:
        # As in torch, a fully masked row is 0.
        weights = weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    return weights, value
