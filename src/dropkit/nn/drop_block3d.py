"""DropBlock3d: zero blocks of neighbours in volumes.

Source: Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks", NeurIPS 2018,
arXiv:1810.12890 (there for images).
"""

from __future__ import annotations

from torch import Generator, Tensor

from dropkit.nn.blocks import BlockSize, DropBlockModule, drop_block_record, drop_blocks


def drop_block3d(
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
    r"""Zero blocks of volumes with probability `p` for each element, and scale what is kept by :math:`1/(1-p)`.

    As `drop_block2d`, which says how `p` is kept to and how others differ, with three dimensions of the map.

    Args:
        input: values; any floating dtype, or complex.
        p: expected fraction of elements dropped, in [0, 1].
        block_size: length of a block along depth, height and width, or a tuple of the three, at least 1.
        training, inplace, batchwise, per_channel, generator, key: as for `drop_block2d`.

    Shape:
        input: (N, C, D, H, W) or (C, D, H, W), output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], `block_size` is no size, `input` has other dimensions, or both `generator` and
            `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.
        NotImplementedError: `dropkit.shard` says that depth, height or width are split.

    Example:
        >>> drop_block3d(torch.ones(1, 2, 3, 4), 0.5, block_size=(2, 2, 2), key=7)
        tensor([[[[2., 2., 0., 0.],
                  [2., 0., 0., 0.],
                  [2., 0., 0., 0.]],
        <BLANKLINE>
                 [[2., 0., 0., 2.],
                  [2., 0., 0., 2.],
                  [2., 0., 0., 0.]]]])
    """
    return drop_blocks(drop_block3d, input, p, block_size, training, inplace, batchwise, per_channel, generator, key)


class DropBlock3d(DropBlockModule):
    """`dropkit.functional.drop_block3d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        block_size: length of a block along depth, height and width, or a tuple of the three.
        inplace: write the result over the input.
        batchwise: one mask for all samples.
        per_channel: one mask for each channel; if false, one for all.

    Example:
        >>> DropBlock3d(0.2, block_size=3)
        DropBlock3d(p=0.2, block_size=3, inplace=False)
    """

    _function = staticmethod(drop_block3d)


LAYER = drop_block_record(
    DropBlock3d,
    shape=(4, 2, 3, 4, 5),
    block_size=(1, 2, 3),
    other_block_size=2,
    where="between convolutions over volumes, 0.1 with blocks that are small beside the map",
)
