"""Are the other layers faster than what they replace?

2**20 elements, 2 threads, a forward pass, and a forward and a backward pass. The layers that torch has are compared
with torch's; the others with torchvision's (DropBlock3d), or with the formulas of the papers' code and of fairseq
(LayerDrop). Attention has 2**20 weights: 4 samples, 4 heads and 256 tokens, of 64 features; LayerDrop has 12 layers of
256 features, with 4,096 rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

import torch
import torch.nn.functional as F
from helpers.torchvision_import import import_torchvision
from side_by_side import Row, faster, threads
from torch import Tensor, nn

from dropkit import functional as ours
from dropkit.nn import LayerDrop

Call = Callable[[Tensor], Tensor]

SHAPES = {1: (64, 64, 256), 2: (16, 64, 32, 32), 3: (4, 64, 16, 16, 16)}
P = 0.1
# Of a sample: memory of this size is mapped anew in some calls and not in others.
SECONDS = 0.02


def rows() -> list[Row]:
    import_torchvision()
    with threads(2):
        return [*of_torch(), *of_blocks(), *of_formulas(), *of_stacks(), *of_attention(), *of_losses()]


def of_torch() -> Iterator[Row]:
    """The layers that torch has, too."""
    shapes = {
        "dropout": (2**20,),
        "dropout1d": SHAPES[1],
        "dropout2d": SHAPES[2],
        "dropout3d": SHAPES[3],
        "alpha_dropout": (2**20,),
        "feature_alpha_dropout": SHAPES[2],
    }
    for name, shape in shapes.items():
        call, theirs = (partial(getattr(library, name), p=P, training=True) for library in (ours, F))
        yield from both_ways(f"{name}, torch", shape, call, theirs)


def of_blocks() -> Iterator[Row]:
    torchvision = partial(import_module("torchvision.ops").drop_block3d, p=P, block_size=3)

    def formula(x: Tensor) -> Tensor:
        """As torchvision's, in one dimension."""
        length = x.shape[-1]
        gamma = P * length / (7 * (length - 6))
        centres = F.pad(torch.empty(*x.shape[:-1], length - 6).bernoulli_(gamma), (3, 3))
        mask = 1 - F.max_pool1d(centres, 7, 1, 3)
        return x * mask * (mask.numel() / mask.sum())

    yield from both_ways("drop_block1d, formula", SHAPES[1], partial(ours.drop_block1d, p=P, block_size=7), formula)
    call = partial(ours.drop_block3d, p=P, block_size=3)
    yield from both_ways("drop_block3d, torchvision", SHAPES[3], call, torchvision)


def of_formulas() -> Iterator[Row]:
    def heads(x: Tensor) -> Tensor:
        return x * x.new_empty(*x.shape[:2], 1, 1).bernoulli_(1 - P).div_(1 - P)

    def concrete(x: Tensor, p: Tensor, eps: float = 1e-7, temperature: float = 0.1) -> Tensor:
        u = torch.rand_like(x)
        dropped = torch.log(p + eps) - torch.log(1 - p + eps) + torch.log(u + eps) - torch.log(1 - u + eps)
        return x * (1 - torch.sigmoid(dropped / temperature)) / (1 - p)

    yield from both_ways("drop_head, formula", (8, 16, 128, 64), partial(ours.drop_head, p=P), heads)
    p = torch.tensor(P, requires_grad=True)
    yield from both_ways(
        "concrete_dropout, formula", (2**20,), lambda x: ours.concrete_dropout(x, p), lambda x: concrete(x, p), p
    )


def of_stacks() -> Iterator[Row]:
    layers = [nn.Linear(256, 256) for _ in range(12)]
    ours_list, plain = LayerDrop(layers, 0.2), nn.ModuleList(layers)
    x = torch.randn(4096, 256)

    def with_ours(x: Tensor) -> Tensor:
        for layer in ours_list:
            x = x + layer(x)
        return x

    def formula(x: Tensor) -> Tensor:
        for layer in plain:
            if random.random() > 0.2:
                x = x + layer(x)
        return x

    # Long samples, since the number of layers that a pass keeps varies.
    sides = partial(with_ours, x), partial(formula, x)
    yield faster("LayerDrop, 12 layers, fairseq's formula", *sides, ">= 1", runs=15, seconds=0.3)


def of_attention() -> Iterator[Row]:
    q, k, v = (torch.randn(4, 4, 256, 64, requires_grad=True) for _ in range(3))
    for name, options in (("", {}), (", causal", {"is_causal": True})):
        for mode, training in (("training", True), ("eval mode", False)):
            call = partial(ours.scaled_dot_product_attention, dropout_p=P, training=training, **options)
            theirs = partial(F.scaled_dot_product_attention, dropout_p=P if training else 0.0, **options)
            case = f"attention{name}, {mode}"
            with torch.no_grad():
                yield faster(case, partial(call, q, k, v), partial(theirs, q, k, v), ">= 1")
            steps = (partial(step, lambda call=side: call(q, k, v), (q, k, v)) for side in (call, theirs))
            yield faster(f"{case}, forward + backward", *steps, ">= 1")


def of_losses() -> Iterator[Row]:
    first, second = (torch.randn(1024, 1024, requires_grad=True) for _ in range(2))
    target = torch.randint(1024, (1024,))

    def formula() -> Tensor:
        p, q = F.log_softmax(first, -1), F.log_softmax(second, -1)
        one = F.kl_div(p, F.softmax(second, -1), reduction="none").sum()
        other = F.kl_div(q, F.softmax(first, -1), reduction="none").sum()
        likelihoods = F.cross_entropy(first, target) + F.cross_entropy(second, target)
        return likelihoods + (one + other) / (2 * len(target))

    loss = partial(ours.r_drop_loss, first, second, target)
    leaves = first, second
    yield faster(
        "R-Drop, forward + backward, formula", partial(step, loss, leaves), partial(step, formula, leaves), ">= 1"
    )


def both_ways(case: str, shape: tuple[int, ...], call: Call, theirs: Call, *leaves: Tensor) -> Iterator[Row]:
    x = torch.randn(shape)
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        yield faster(f"{case}, forward", partial(call, x), partial(theirs, x), ">= 1", runs=25, seconds=SECONDS)
    steps = (partial(step, partial(side, leaf), (leaf, *leaves)) for side in (call, theirs))
    yield faster(f"{case}, forward + backward", *steps, ">= 1", runs=25, seconds=SECONDS)


def step(call: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> None:
    output = call()
    torch.autograd.grad(output, leaves, torch.ones_like(output))
