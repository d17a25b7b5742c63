"""DropBlock2d: zero blocks of neighbours in images.

Source: Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks", NeurIPS 2018,
arXiv:1810.12890.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Generator, Tensor

from dropkit.nn.blocks import BlockSize, DropBlockModule, drop_block_record, drop_blocks
from dropkit.nn.dynamic_rate import rate_named


def drop_block2d(
    input: Tensor,
    p: float = 0.1,
    block_size: BlockSize = 7,
    training: bool = True,
    inplace: bool = False,
    *,
    batchwise: bool = False,
    per_channel: bool = True,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero blocks of images with probability `p` for each element, and scale what is kept by :math:`1/(1-p)`.

    .. math:: y_{nchw} = x_{nchw} / (1 - p) \prod_{i,j<b} k_{nc,h+i,w+j}, \quad k \sim \mathrm{Bernoulli}((1-p)^{1/b^2})

    Every element lies in as many possible blocks, also at the edge and where the map is smaller than a block, so that
    `p` is the expected fraction dropped on maps of all sizes. Others differ: in timm and in torchvision blocks begin
    inside the map alone, at a rate that the size of the map corrects to first order. They scale by the fraction that a
    call has kept, by which samples influence one another, and multiply, by which NaN stays NaN. There a block is
    clipped to the map, and in torchvision its size must be odd. timm's `gamma_scale` and `with_noise` are left out.

    Args:
        input: values; any floating dtype, or complex.
        p: expected fraction of elements dropped, in [0, 1]. In eager mode a tensor on a GPU is read by the host, which
            waits for it: the rate of the seeds, computed there, could have other bits.
        block_size: height and width of a block, at least 1, or a tuple of both. Blocks of one element are dropout.
        training: if false, return `input` itself.
        inplace: write the result over `input` and return that.
        batchwise: one mask for all samples.
        per_channel: one mask for each channel, as the paper recommends and torchvision has it; if false, one for all,
            as in timm.
        generator, key: as for `dropout`.

    Shape:
        input: (N, C, H, W) or (C, H, W), output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], `block_size` is no size, `input` has other dimensions, or both `generator` and
            `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.
        NotImplementedError: `dropkit.shard` says that height or width are split.

    Example:
        >>> drop_block2d(torch.ones(1, 4, 6), 0.5, block_size=2, key=7)
        tensor([[[0., 0., 0., 0., 2., 2.],
                 [0., 0., 0., 2., 2., 2.],
                 [0., 0., 2., 2., 0., 0.],
                 [2., 2., 2., 0., 0., 0.]]])
    """
    return drop_blocks(drop_block2d, input, p, block_size, training, inplace, batchwise, per_channel, generator, key)


class DropBlock2d(DropBlockModule):
    """`dropkit.functional.drop_block2d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        block_size: length of a block along height and width, or a tuple of both.
        inplace: write the result over the input.
        batchwise: one mask for all samples.
        per_channel: one mask for each channel; if false, one for all.

    Example:
        >>> DropBlock2d(0.2, block_size=3)
        DropBlock2d(p=0.2, block_size=3, inplace=False)
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["rate", "drop_prob"]

    _function = staticmethod(drop_block2d)
    drop_prob: float = rate_named("drop_prob")


LAYER = drop_block_record(
    DropBlock2d,
    shape=(4, 4, 6, 5),
    block_size=3,
    other_block_size=(2, 4),
    where="in the last stages of a convolutional network, also on skip connections, 0.1 with blocks of 7 x 7",
)
