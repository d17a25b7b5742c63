"""BatchwiseConv: convolutions with dropout of whole channels between them; dropped channels are not computed.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.nn.batchwise_chain import BatchwiseChain
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.submatrix import Activation, dropped_columns

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class BatchwiseConv(BatchwiseChain):
    r"""Convolutions whose hidden channels are dropped for the whole batch at once, and not computed.

    All samples of a call share a mask with one element for each channel. Output and gradients are those of the plain
    layers with `dropout(..., noise_shape=(1, channels, 1, 1))` of the same key, up to the order of sums. Where
    `FeedForward` runs the plain products, so does this.

    Args:
        channels: of the input, of each hidden layer, and of the output.
        kernel_size, stride, padding, dilation: of each convolution, as for `torch.nn.Conv2d`.
        p: expected fraction of the channels of each hidden layer dropped, in [0, 1].
        activation: elementwise; a function or a module. ReLU if None.
        dims: number of spatial dimensions, 1 to 3.
        bias: whether the convolutions have biases.
        device, dtype: of the parameters.

    Shape:
        input: (N, channels[0], *) or (channels[0], *), output: (N, channels[-1], *) or (channels[-1], *).

    Raises:
        ValueError: `p` is not in [0, 1], there are fewer than two layers, `dims` is not 1, 2 or 3, or both
            `generator` and `key` are given.

    Example:
        >>> model = BatchwiseConv((3, 64, 64, 10), 3, 0.5, padding=1)
        >>> model(torch.randn(8, 3, 16, 16)).shape
        torch.Size([8, 10, 16, 16])
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernel_size: int | tuple[int, ...],
        p: float = 0.5,
        activation: Activation | None = None,
        *,
        dims: int = 2,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check("dims", dims in _KINDS, "1, 2 or 3", dims)
        kind: Any = _KINDS[dims]
        layers = [
            kind(
                before, after, kernel_size, stride=stride, padding=padding, dilation=dilation, bias=bias,
                device=device, dtype=dtype,
            )
            for before, after in pairwise(channels)
        ]  # fmt: skip
        super().__init__(layers, p, F.relu if activation is None else activation)

    @classmethod
    def from_layers(cls, layers: Iterable[nn.Module], activation: Activation, p: float) -> BatchwiseConv:
        """The chain of existing convolutions, which it shares; see the class for the arguments.

        Convolutions with groups, or padded otherwise than by zeros, run as they are.
        """
        model = cls.__new__(cls)
        BatchwiseChain.__init__(model, layers, p, activation)
        return model


def _example(dtype: torch.dtype) -> tuple[Tensor, ...]:
    # Constant over space, so that values in the middle are products of the sums of kernels.
    return (torch.randn(2, 4, 1, 1, dtype=dtype).expand(2, 4, 5, 5).clone(),)


def _example_1d(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (torch.randn(2, 4, 1, dtype=dtype).expand(2, 4, 11).clone(),)


def _dropped(output: Tensor, module: BatchwiseConv) -> Tensor:
    middle = output.movedim(1, -1)
    for _ in range(output.dim() - 2):
        middle = middle[:, middle.shape[1] // 2]
    return dropped_columns(middle, module.layers[-1])


_ARGUMENTS = {"channels": (4, 16, 48), "kernel_size": 3, "padding": 1, "activation": nn.Sigmoid()}
_CONV1D = ComposedLayer(
    module=BatchwiseConv, inputs=_example_1d, dropped=_dropped, batch_dim=None,
    arguments={**_ARGUMENTS, "dims": 1, "padding": 2, "dilation": 2},
)  # fmt: skip
LAYER = replace(
    _CONV1D,
    where="in place of convolutions with dropout of channels, 0.2 to 0.5",
    inputs=_example,
    arguments=_ARGUMENTS,
    variants=(_CONV1D,),
)
