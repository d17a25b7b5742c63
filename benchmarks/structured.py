"""How fast are the layers that drop blocks and tokens, beside those of timm and torchvision?

About 2**20 elements, float32, 2 threads, p = 0.1 and blocks of 7 x 7 for DropBlock, p = 0.5 for PatchDropout; a forward
pass, and a forward and a backward pass. timm's DropBlock has one mask for each channel here (`couple_channels=False`),
as dropkit's and torchvision's. The ratio says how many times faster dropkit is.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

import torch
from helpers.torchvision_import import import_torchvision
from side_by_side import Row, faster, threads
from torch import Tensor

from dropkit.functional import drop_block2d, patch_dropout

MAPS = ((8, 32, 64, 64), (32, 128, 16, 16))
TOKENS = (8, 197, 768)

Drop = Callable[[Tensor], Tensor]


def rows() -> list[Row]:
    import_torchvision()
    with threads(2):
        return [*of_blocks(), *of_tokens()]


def of_blocks() -> Iterator[Row]:
    ours: Drop = partial(drop_block2d, p=0.1, block_size=7)
    timm = partial(import_module("timm.layers").drop_block_2d, drop_prob=0.1, block_size=7, couple_channels=False)
    torchvision = partial(import_module("torchvision.ops").drop_block2d, p=0.1, block_size=7)
    for shape in MAPS:
        for name, theirs in (("timm", timm), ("torchvision", torchvision)):
            yield from of_pair(f"drop_block2d, {'x'.join(map(str, shape))}, {name}", shape, ours, theirs)


def of_tokens() -> Iterator[Row]:
    module = import_module("timm.layers").PatchDropout(0.5, ordered=True)
    yield from of_pair(f"patch_dropout, {'x'.join(map(str, TOKENS))}, timm", TOKENS, patch_dropout, module)


def of_pair(case: str, shape: tuple[int, ...], ours: Drop, theirs: Drop) -> Iterator[Row]:
    x = torch.randn(shape)
    leaf = x.clone().requires_grad_()

    def step(drop: Drop) -> None:
        output = drop(leaf)
        torch.autograd.grad(output, leaf, torch.ones_like(output))

    yield faster(f"{case}, forward", partial(ours, x), partial(theirs, x), ">= 1.0")
    yield faster(f"{case}, forward + backward", partial(step, ours), partial(step, theirs), ">= 1.0")
