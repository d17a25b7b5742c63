"""DropPath: skip whole residual branches, one mask element per sample.

Source: Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382 (there
with one mask element for a whole batch, which is `mode="batch"`, and scaled in evaluation).
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Generator, Tensor

from dropkit.arguments import check, positive_int
from dropkit.kernels.params import inverted, unscaled
from dropkit.nn.checks import check_probability
from dropkit.nn.dispatch import call
from dropkit.nn.dynamic_rate import rate_named
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import per_batch, per_sample
from dropkit.nn.module import DropoutModule
from dropkit.torch_private import TorchDropout


def drop_path(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    mode: str = "row",
    scale_by_keep: bool = True,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero whole samples with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_n = k_n\, x_n / (1 - p), \qquad k_n \sim \mathrm{Bernoulli}(1 - p)

    On the branch of a residual block, `x + drop_path(branch(x), p)`, a dropped sample skips the branch.

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of samples dropped, in [0, 1].
        mode: "row" drops each sample by itself, "batch" all samples or none.
        scale_by_keep: if false, keep the others as they are; the mean then shrinks by :math:`1-p` in training.
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, *), output: the same. One mask element for each sample, or one for all.

    Raises:
        ValueError: `p` is not in [0, 1], `mode` is neither "row" nor "batch", or both `generator` and `key` are given.
        RuntimeError: `input` is 0-d, or cannot be written in place.

    Example:
        >>> drop_path(torch.ones(4, 2), 0.5, key=7)
        tensor([[2., 2.],
                [2., 2.],
                [0., 0.],
                [0., 0.]])
    """
    return call(_choose(scale_by_keep, mode), input, p, training, inplace, generator, key)


class DropPath(DropoutModule, TorchDropout):
    """`dropkit.functional.drop_path` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of samples dropped, in [0, 1].
        inplace: write the result over the input.
        mode: "row" drops each sample by itself, "batch" all samples or none.
        scale_by_keep: if false, keep the others as they are.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["rate", "drop_prob"]

    _function = staticmethod(drop_path)
    drop_prob: float = rate_named("drop_prob")
    # Of the class as well, because old pickles have none.
    mode: str = "row"

    def __init__(self, p: float = 0.5, inplace: bool = False, *, mode: str = "row", scale_by_keep: bool = True) -> None:
        super().__init__(p, inplace)
        _choose(scale_by_keep, mode)
        self.mode = mode
        self.scale_by_keep = scale_by_keep

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form."""
        p = self.p if self._rate_in_graphs is None else self.rate
        return drop_path(
            input,
            p,
            self.training,
            self.inplace,
            mode=self.mode,
            scale_by_keep=self.scale_by_keep,
            generator=generator,
            key=key,
        )

    def extra_repr(self) -> str:
        mode = "" if self.mode == "row" else f", mode={self.mode!r}"
        return super().extra_repr() + mode + ("" if self.scale_by_keep else ", scale_by_keep=False")


def rates_over_depth(p: float, depth: int, rule: str = "linear") -> list[float]:
    """The rate of each block of a network.

    Args:
        p: rate of the last block, in [0, 1].
        depth: number of blocks.
        rule: "linear" from 0 in the first block to `p` in the last, as in torchvision and timm; or "uniform", `p` in
            each. The paper's rule, linear from `p / depth` on, is `rates_over_depth(p, depth + 1)[1:]`.

    Raises:
        ValueError: `p` is not in [0, 1], `depth` is below 1, or `rule` is another word.

    Example:
        >>> [DropPath(p) for p in rates_over_depth(0.2, 3)]
        [DropPath(p=0.0, inplace=False), DropPath(p=0.1, inplace=False), DropPath(p=0.2, inplace=False)]
    """
    check_probability(p)
    positive_int("depth", depth)
    check("rule", rule in ("linear", "uniform"), '"linear" or "uniform"', repr(rule))
    return [p if rule == "uniform" or depth == 1 else p * block / (depth - 1) for block in range(depth)]


def _choose(scale_by_keep: bool = True, mode: str = "row") -> Layer:
    if mode == "row":
        return LAYER if scale_by_keep else _UNSCALED
    check("mode", mode == "batch", '"row" or "batch"', repr(mode))
    return _BATCH if scale_by_keep else _UNSCALED_BATCH


_UNSCALED = Layer(
    function=drop_path,
    module=DropPath,
    make_params=unscaled,
    mask_shape=per_sample,
    example_shape=(32, 3, 2),
    options={"scale_by_keep": False},
)
LAYER = replace(
    _UNSCALED,
    make_params=inverted,
    options={},
    variants=(_UNSCALED,),
    choose=_choose,
    where="on the branch of a residual block, rising with depth to 0.1 to 0.5",
)
# The laws, which want many mask elements, run on the others; all four share their code.
_UNSCALED_BATCH = replace(_UNSCALED, mask_shape=per_batch, options={"mode": "batch", "scale_by_keep": False})
_BATCH = replace(_UNSCALED_BATCH, make_params=inverted, options={"mode": "batch"})
