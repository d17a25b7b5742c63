"""Contiguous blocks of an input: draw seeds, grow each to a block, and drop the blocks; the three DropBlock layers.

Source: Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks", NeurIPS 2018,
arXiv:1810.12890. There seeds lie inside the map alone, at a rate that is an approximation and depends on its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function_unary  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.arguments import check
from dropkit.nn.checks import checked_rate, read_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dispatch import ask_subclass
from dropkit.nn.dropout import dropout
from dropkit.nn.module import DropoutModule
from dropkit.ops import slices
from dropkit.torch_private import TorchDropout

BlockSize = int | Sequence[int]
NoiseShape = tuple["int | None", ...]
# From ones, a rate and a noise shape to ones and, at that rate, zeros. The default is `dropout`.
DrawSeeds = Callable[[Tensor, "float | Tensor", "NoiseShape | None"], Tensor]


def drop_blocks(
    function: Callable[..., Tensor],
    input: Tensor,
    p: float | Tensor,
    block_size: BlockSize,
    training: bool,
    inplace: bool,
    batchwise: bool,
    per_channel: bool,
    generator: Generator | None,
    key: Tensor | int | None,
) -> Tensor:
    """Run `function`, one of those in `SPATIAL_DIMS`, from its arguments to its result."""
    if has_torch_function_unary(input):
        arguments = {"p": p, "block_size": block_size, "training": training, "inplace": inplace}
        options = {"batchwise": batchwise, "per_channel": per_channel}
        return ask_subclass(function, (input,), **arguments, **options, generator=generator, key=key)
    # Read, because the rate of the seeds has other bits where a device computes it.
    rate, spatial = checked_rate(read_rate(p)), SPATIAL_DIMS[function.__name__]
    sizes = checked_block_size(block_size, spatial)
    _check_dims(input, spatial)
    if not training or (not isinstance(rate, Tensor) and rate in (0, 1)):
        # Where nothing is random, all is kept or dropped, as by any layer.
        return dropout(input, rate, training, inplace, generator=generator, key=key)

    def draw(ones: Tensor, seed_rate: float | Tensor, noise_shape: NoiseShape | None) -> Tensor:
        return dropout(ones, seed_rate, noise_shape=noise_shape, generator=generator, key=key)

    return drop_under_seeds(input, rate, sizes, inplace, batchwise, per_channel, draw)


def drop_under_seeds(
    input: Tensor,
    p: float | Tensor,
    sizes: tuple[int, ...],
    inplace: bool,
    batchwise: bool,
    per_channel: bool,
    draw: DrawSeeds,
) -> Tensor:
    """Drop the blocks whose seeds `draw` zeroes, and scale what is kept.

    The grid of seeds is larger than the map by a block less one, so that each element, at the edge too, has
    `prod(sizes)` seeds that drop it, and is dropped with probability `p` exactly.

    Args:
        p: in (0, 1).
        sizes: of a block, one for each spatial dimension.
    """
    spatial = len(sizes)
    noise_shape = _noise_shape(input.dim(), spatial, batchwise, per_channel)
    # What is stated about shards is about tensors of the input's sizes.
    is_shared = [size == 1 and not (slices.is_used and slices.state.parts) for size in noise_shape]
    grid = [1 if shared else size for size, shared in zip(input.shape, is_shared, strict=True)]
    for dim, size in enumerate(sizes, -spatial):
        grid[dim] += size - 1
    ones = input.new_ones(grid, dtype=torch.float32, requires_grad=False)
    seeds = draw(ones, seed_rate(p, sizes), noise_shape if 1 in noise_shape else None) == 0
    is_dropped = _grow(seeds, sizes)[(..., *(slice(size) for size in input.shape[-spatial:]))]
    scale = torch.where(p < 1, 1 / (1 - p), 0.0) if isinstance(p, Tensor) else 1 / (1 - p)
    if inplace:
        return input.masked_fill_(is_dropped, 0).mul_(scale)
    # A choice, not a product, so that nothing of a dropped NaN is left, in the gradient neither.
    return torch.where(is_dropped, 0.0, input * scale)


def seed_rate(p: float | Tensor, sizes: Sequence[int]) -> float | Tensor:
    """The rate of seeds at which each element is dropped at rate `p`: that at which none of its seeds is, to 1 - p."""
    count = math.prod(sizes)
    if isinstance(p, Tensor):
        return -torch.expm1(torch.log1p(-p) / count)
    return -math.expm1(math.log1p(-p) / count)


def _grow(seeds: Tensor, sizes: Sequence[int]) -> Tensor:
    """Whether any seed lies in the block that begins at each element, but for those less than a block before the end.

    One dimension after the other, and doubling what is covered, so that a block of 7 x 7 takes 6 operations. They are
    on flat memory, where the shift along a dimension is its stride: what crosses the end of a row is cut off later.
    """
    flat, stride = seeds.flatten(), 1
    for dim in range(-1, -len(sizes) - 1, -1):
        covered = 1
        while covered < sizes[dim]:
            shift = min(covered, sizes[dim] - covered)
            flat = flat[: -shift * stride] | flat[shift * stride :]
            covered += shift
        stride *= seeds.shape[dim]
    return torch.nn.functional.pad(flat, (0, seeds.numel() - flat.numel())).view(seeds.shape)


def checked_block_size(block_size: Any, spatial: int) -> tuple[int, ...]:
    """The size of a block along each spatial dimension.

    Raises:
        ValueError: it is neither a positive int nor as many as there are spatial dimensions.
    """
    is_sequence = isinstance(block_size, (tuple, list))
    sizes = tuple(cast("Sequence[Any]", block_size)) if is_sequence else (block_size,) * spatial
    fit = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
    check("block_size", fit and len(sizes) == spatial, f"a positive int or a tuple of {spatial}", block_size)
    return sizes


def _noise_shape(dims: int, spatial: int, batchwise: bool, per_channel: bool) -> NoiseShape:
    batch: NoiseShape = (1 if batchwise else None,) * (dims - spatial - 1)
    return (*batch, None if per_channel else 1, *(None,) * spatial)


def _check_dims(input: Tensor, spatial: int) -> None:
    if not isinstance(input, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (`dropout` has torch's error)
        dropout(input)
    names = "(N, C, L)" if spatial == 1 else "(N, C, H, W)" if spatial == 2 else "(N, C, D, H, W)"
    check(
        "input",
        input.dim() in (spatial + 1, spatial + 2),
        f"{names}, or the same without N",
        f"shape {tuple(input.shape)}",
    )
    wanted = "input of DropBlock must be split along samples or channels"
    slices.refuse_split(input, slice(-spatial, None), wanted, "; blocks reach over the borders of other parts")


class DropBlockModule(DropoutModule, TorchDropout):
    """The modules' common part: the arguments of the functions, and how they show."""

    _function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        p: float = 0.1,
        block_size: BlockSize = 7,
        inplace: bool = False,
        *,
        batchwise: bool = False,
        per_channel: bool = True,
    ) -> None:
        super().__init__(p, inplace)
        checked_block_size(block_size, SPATIAL_DIMS[type(self)._function.__name__])
        self.block_size: BlockSize = block_size
        self.batchwise: bool = batchwise
        self.per_channel: bool = per_channel

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form."""
        return type(self)._function(
            input,
            self.rate,
            self.block_size,
            self.training,
            self.inplace,
            batchwise=self.batchwise,
            per_channel=self.per_channel,
            generator=generator,
            key=key,
        )

    def extra_repr(self) -> str:
        options = ", batchwise=True" * self.batchwise + ", per_channel=False" * (not self.per_channel)
        return f"p={self.p}, block_size={self.block_size}, inplace={self.inplace}{options}"


def drop_block_record(
    module: type[DropBlockModule],
    shape: tuple[int, ...],
    block_size: BlockSize,
    other_block_size: BlockSize,
    where: str,
) -> ComposedLayer:
    """The record of a DropBlock layer, with a variant whose mask all samples and channels share.

    Args:
        shape: of the example input.
        block_size, other_block_size: in the example, and in that of the variant.
        where: see `ComposedLayer`.
    """
    layer = ComposedLayer(
        module=module,
        inputs=lambda dtype: (torch.ones(shape, dtype=dtype),),
        dropped=lambda output, module: output == 0,
        function=module._function,
        arguments={"block_size": block_size},
        where=where,
    )
    shared = {"block_size": other_block_size, "batchwise": True, "per_channel": False}
    return replace(layer, variants=(replace(layer, arguments=shared, batch_dim=None),))


# By the name of the function: how many dimensions of its input are those of the map.
SPATIAL_DIMS = {"drop_block1d": 1, "drop_block2d": 2, "drop_block3d": 3}
