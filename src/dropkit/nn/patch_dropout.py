"""PatchDropout: leave random tokens of each sample out of the sequence, so that what follows computes less.

Source: Liu, Matsoukas, Strand, Azizpour, Smith, "PatchDropout: Economizing Vision Transformers Using Patch Dropout",
WACV 2023, arXiv:2208.07220.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal, overload

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function_unary  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.arguments import check
from dropkit.nn.checks import check_probability, checked_rate, read_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dispatch import ask_subclass
from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import rate_named
from dropkit.nn.fx_module import FxModule
from dropkit.ops import slices

Kept = tuple[Tensor, "Tensor | None"]


@overload
def patch_dropout(
    input: Tensor,
    p: float = ...,
    training: bool = ...,
    *,
    num_prefix_tokens: int = ...,
    ordered: bool = ...,
    return_indices: Literal[False] = ...,
    generator: Generator | None = ...,
    key: Tensor | int | None = ...,
) -> Tensor: ...
@overload
def patch_dropout(
    input: Tensor,
    p: float = ...,
    training: bool = ...,
    *,
    num_prefix_tokens: int = ...,
    ordered: bool = ...,
    return_indices: Literal[True],
    generator: Generator | None = ...,
    key: Tensor | int | None = ...,
) -> Kept: ...
def patch_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    num_prefix_tokens: int = 1,
    ordered: bool = True,
    return_indices: bool = False,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor | Kept:
    """Keep a random part of each sample's tokens, as many in each, and leave the others out of the sequence.

    Of L' tokens behind the prefix `round((1 - p) * L')` are kept, at least one if `p` < 1; each subset of so many is as
    likely as any other. The fraction dropped is thus `p` up to half a token. Kept tokens are not scaled, as in the
    paper: attention averages over whatever tokens there are.

    Args:
        input: tokens, behind their position embedding; any dtype.
        p: fraction of tokens dropped, in [0, 1]. A tensor on a GPU is read by the host, which waits for it, since the
            size of the output depends on the value.
        training: if false, return `input` itself.
        num_prefix_tokens: how many tokens at the beginning are always kept, as class tokens are.
        ordered: keep the order of the sequence; if false, tokens are in random order. (timm's default is false.)
        return_indices: return indices, too.
        generator, key: as for `dropout`.

    Shape:
        input: (N, L, D), output: (N, num_prefix_tokens + kept, D).

    Returns:
        The tokens; with `return_indices` the tokens and the places of the kept ones behind the prefix, int64 of
        (N, kept), or None where nothing is dropped: if `training` is false or `p` is 0.

    Raises:
        ValueError: `p` is not in [0, 1], `input` is not 3-d, `num_prefix_tokens` is not in [0, L], or both `generator`
            and `key` are given.
        TypeError: `p` is a tensor whose value a compiler hides; the size of the output depends on it.
        NotImplementedError: `dropkit.shard` says that sequences or features are split.

    Example:
        >>> tokens = torch.arange(7.0).view(1, 7, 1)
        >>> patch_dropout(tokens, 0.5, key=7).flatten()
        tensor([0., 2., 3., 5.])
        >>> _, indices = patch_dropout(tokens, 0.5, return_indices=True, key=7)
        >>> indices
        tensor([[1, 2, 4]])
    """
    if has_torch_function_unary(input):
        arguments = {"p": p, "training": training, "num_prefix_tokens": num_prefix_tokens, "ordered": ordered}
        arguments["return_indices"] = return_indices
        return ask_subclass(patch_dropout, (input,), **arguments, generator=generator, key=key)
    p = read_rate(p)
    _check(input, p, num_prefix_tokens)
    if not training or p == 0:
        same = dropout(input, 0.0, generator=generator, key=key)
        return (same, None) if return_indices else same

    def draw(ones: Tensor) -> Tensor:
        return dropout(ones, 0.5, generator=generator, key=key)

    output, indices = keep_tokens(input, float(p), num_prefix_tokens, ordered, draw)
    return (output, indices) if return_indices else output


def keep_tokens(
    input: Tensor, p: float, num_prefix_tokens: int, ordered: bool, draw: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The prefix and the tokens of the smallest random numbers, and the places of these behind the prefix.

    Args:
        draw: drops ones at rate 0.5. A token has 32 of them, the bits of its random number.
    """
    samples, length, _ = input.shape
    tokens = length - num_prefix_tokens
    kept = 0 if p == 1 else max(min(tokens, 1), round((1 - p) * tokens))
    bits = draw(input.new_ones((samples, tokens, 32), dtype=torch.float32, requires_grad=False)) != 0
    places, powers = (torch.arange(count, device=input.device) for count in (tokens, 32))
    # The place breaks ties between equal numbers, on every device alike.
    ranks = ((bits.long() << powers).sum(-1) << 31) | places
    indices = ranks.topk(kept, 1, largest=False, sorted=not ordered).values & 0x7FFFFFFF
    if ordered:
        indices = indices.sort(1).values
    prefix = torch.arange(num_prefix_tokens, device=input.device).expand(samples, num_prefix_tokens)
    rows = torch.cat((prefix, indices + num_prefix_tokens), 1)
    rows = rows + torch.arange(samples, device=input.device).unsqueeze(1) * length
    # Whole rows of one matrix: `gather` would look every element up.
    output = input.flatten(0, 1).index_select(0, rows.flatten())
    return output.view(samples, num_prefix_tokens + kept, input.shape[2]), indices


def _check(input: Tensor, p: float, num_prefix_tokens: int) -> None:
    if isinstance(checked_rate(p), Tensor):
        raise TypeError("p must be a number in patch_dropout, on which the size of the output depends, got a tensor")
    check("input", input.dim() == 3, "(N, L, D)", f"shape {tuple(input.shape)}")
    wanted = f"in [0, L], with L = {input.shape[1]}"
    check("num_prefix_tokens", 0 <= num_prefix_tokens <= input.shape[1], wanted, num_prefix_tokens)
    slices.refuse_split(input, slice(1, None), "input of patch_dropout must be split along samples")


class PatchDropout(FxModule):
    """`dropkit.functional.patch_dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: fraction of tokens dropped, in [0, 1].
        num_prefix_tokens: how many tokens at the beginning are always kept.
        ordered: keep the order of the sequence.
        return_indices: return the tokens, and the places of the kept ones or None.

    Example:
        >>> PatchDropout(0.25)
        PatchDropout(p=0.25, num_prefix_tokens=1, ordered=True)
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["prob"]

    _function = staticmethod(patch_dropout)
    prob: float = rate_named("prob")

    def __init__(
        self, p: float = 0.5, num_prefix_tokens: int = 1, ordered: bool = True, return_indices: bool = False
    ) -> None:
        super().__init__()
        check_probability(p)
        self.p: float = p
        self.num_prefix_tokens: int = num_prefix_tokens
        self.ordered: bool = ordered
        self.return_indices: bool = return_indices

    def forward(
        self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None
    ) -> Tensor | Kept:
        """Drop tokens in training mode, return `input` itself otherwise; see the functional form."""
        output, indices = patch_dropout(
            input,
            self.p,
            self.training,
            num_prefix_tokens=self.num_prefix_tokens,
            ordered=self.ordered,
            return_indices=True,
            generator=generator,
            key=key,
        )
        return (output, indices) if self.return_indices else output

    def extra_repr(self) -> str:
        options = ", return_indices=True" * self.return_indices
        return f"p={self.p}, num_prefix_tokens={self.num_prefix_tokens}, ordered={self.ordered}{options}"


def _numbered_tokens(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (torch.arange(21.0).to(dtype).view(1, 21, 1).repeat(4, 1, 2),)


def _is_missing(output: Tensor, module: PatchDropout) -> Tensor:
    """Which tokens of the example, whose values are their places, are not in the output."""
    places = torch.arange(module.num_prefix_tokens, 21, device=output.device).to(output.dtype)
    return (output[:, :, :1] != places).all(1)


_ORDERED = ComposedLayer(
    module=PatchDropout,
    inputs=_numbered_tokens,
    dropped=_is_missing,
    function=patch_dropout,
    where="behind the position embedding of a vision transformer, in training alone; 0.25 to 0.5",
)
# A class token and 20 tokens, of which each rate of the laws is a whole number.
LAYER = replace(_ORDERED, variants=(replace(_ORDERED, arguments={"ordered": False, "return_indices": True}),))
