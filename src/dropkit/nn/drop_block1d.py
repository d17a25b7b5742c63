"""DropBlock1d: zero blocks of neighbours in sequences.

Source: Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks", NeurIPS 2018,
arXiv:1810.12890 (there for images).
"""

from __future__ import annotations

from torch import Generator, Tensor

from dropkit.nn.blocks import BlockSize, DropBlockModule, drop_block_record, drop_blocks


def drop_block1d(
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
    r"""Zero blocks of sequences with probability `p` for each element, and scale what is kept by :math:`1/(1-p)`.

    As `drop_block2d`, which says how `p` is kept to and how others differ, with one dimension of the map.

    Args:
        input: values; any floating dtype, or complex.
        p: expected fraction of elements dropped, in [0, 1].
        block_size: length of a block, at least 1.
        training, inplace, batchwise, per_channel, generator, key: as for `drop_block2d`.

    Shape:
        input: (N, C, L) or (C, L), output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], `block_size` is no size, `input` has other dimensions, or both `generator` and
            `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.
        NotImplementedError: `dropkit.shard` says that the sequence is split.

    Example:
        >>> drop_block1d(torch.ones(1, 12), 0.5, block_size=3, key=7)
        tensor([[0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 2., 2.]])
    """
    return drop_blocks(drop_block1d, input, p, block_size, training, inplace, batchwise, per_channel, generator, key)


class DropBlock1d(DropBlockModule):
    """`dropkit.functional.drop_block1d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        block_size: length of a block.
        inplace: write the result over the input.
        batchwise: one mask for all samples.
        per_channel: one mask for each channel; if false, one for all.

    Example:
        >>> DropBlock1d(0.2, block_size=3)
        DropBlock1d(p=0.2, block_size=3, inplace=False)
    """

    _function = staticmethod(drop_block1d)


LAYER = drop_block_record(
    DropBlock1d,
    shape=(4, 4, 12),
    block_size=3,
    other_block_size=2,
    where="between 1-d convolutions, 0.1 with blocks of about 7",
)
