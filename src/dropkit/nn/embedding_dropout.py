"""EmbeddingDropout: zero all occurrences of a word.

Source: Gal, Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", NeurIPS 2016,
arXiv:1512.05287, section 4.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from dropkit.nn.checks import check_probability, checked_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import slices


def embedding_dropout(
    input: Tensor,
    weight: Tensor,
    p: float = 0.1,
    training: bool = True,
    *,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Look up embeddings, zero those of words dropped with probability `p`, and scale the others by :math:`1/(1-p)`.

    .. math:: y_i = k_{w_i}\, W_{w_i} / (1 - p), \qquad k_w \sim \mathrm{Bernoulli}(1 - p)

    A word is dropped at all of its occurrences in `input` or at none. Only the rows that are looked up are scaled, not
    the whole of `weight`.

    Args:
        input: indices of words; int32 or int64.
        weight: the embeddings, floating.
        p: expected fraction of words dropped, in [0, 1].
        training: if false, only look up.
        padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: as for `torch.nn.functional.embedding`.
        generator, key: as for `dropout`. Word w has mask element w.

    Shape:
        input: any (*), weight: (V, D), output: (*, D).

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> embedding_dropout(torch.tensor([0, 1, 2, 3, 2]), torch.ones(4, 2), 0.5, key=7)
        tensor([[2., 2.],
                [2., 2.],
                [0., 0.],
                [0., 0.],
                [0., 0.]])
    """
    rate = checked_rate(p)
    rows = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    ones = torch.ones(weight.shape[:1], dtype=weight.dtype, device=weight.device)
    with slices.Holding(slices.unsplit_parts()):  # each process has the whole vocabulary
        factors = dropout(ones, rate, training, generator=generator, key=key)
    if factors is ones:
        return rows
    factor = factors[input].unsqueeze(-1)
    return (rows * factor).masked_fill(factor == 0, 0)


class EmbeddingDropout(DynamicRate):
    """Look up in an `nn.Embedding`, in training mode with `dropkit.functional.embedding_dropout`.

    Args:
        embedding: its parameters and options are used; in `state_dict` it has the prefix `embedding.`.
        p: expected fraction of words dropped, in [0, 1].

    Example:
        >>> words = EmbeddingDropout(torch.nn.Embedding(1000, 32), 0.1)
        >>> words(torch.tensor([[3, 14, 15]])).shape
        torch.Size([1, 3, 32])
    """

    _function = staticmethod(embedding_dropout)

    def __init__(self, embedding: nn.Embedding, p: float = 0.1) -> None:
        super().__init__()
        check_probability(p)
        self.embedding: nn.Embedding = embedding
        self.p: float = p

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Look up `input`, with words dropped in training mode."""
        table = self.embedding
        return embedding_dropout(
            input,
            table.weight,
            self.rate,
            self.training,
            padding_idx=table.padding_idx,
            max_norm=table.max_norm,
            norm_type=table.norm_type,
            scale_grad_by_freq=table.scale_grad_by_freq,
            sparse=table.sparse,
            generator=generator,
            key=key,
        )

    def extra_repr(self) -> str:
        return f"p={self.p}"


LAYER = ComposedLayer(
    module=EmbeddingDropout,
    function=embedding_dropout,
    inputs=lambda dtype: (torch.arange(256).view(8, 32),),
    dropped=lambda output, module: (output == 0).all(-1),
    wraps=lambda: {"embedding": nn.Embedding(256, 3)},
    where="on the embeddings of a language model, 0.1 to 0.4",
)
