"""ResidualDropPath: a residual block that computes its branch for the kept samples alone.

Source: Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382; on a
subset of the batch Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023, arXiv:2304.07193,
section 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from dropkit.kernels.gpu.capture import is_captured
from dropkit.kernels.gpu.send import send
from dropkit.nn.checks import check_probability, checked_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.draw_key import draw_key, is_on_host
from dropkit.nn.drop_path import drop_path
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import autograd


def residual_drop_path(
    input: Tensor,
    branch: Callable[[Tensor], Tensor],
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Return `input + drop_path(branch(input), p, training)`, and run `branch` on the kept samples only.

    .. math:: y_n = x_n + k_n\, f(x_n) / (1 - p), \qquad k_n \sim \mathrm{Bernoulli}(1 - p)

    The output and all gradients are those of the sum, up to the order of sums, if `branch` treats samples one by one.
    A batch normalisation in the branch sees the kept samples only. Compiled code, transforms and captured graphs, which
    need sizes that do not follow from random numbers, run the sum itself with the same mask. Nothing waits for a GPU,
    unless `key` or `p` lies in its memory. DINOv2 keeps a fixed number of samples instead; here each is kept by itself,
    so that the expectation holds exactly.

    Args:
        input: values, floating.
        branch: from values of shape (M, *), for any M of at least 1, to values of the same shape.
        p: expected fraction of samples that skip the branch, in [0, 1].
        training: if false, return `input + branch(input)`.
        generator, key: as for `dropout`. The mask is that of `drop_path`.

    Shape:
        input: (N, *), output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> residual_drop_path(torch.ones(4, 2), lambda x: 10 * x, 0.5, key=7)
        tensor([[21., 21.],
                [21., 21.],
                [ 1.,  1.],
                [ 1.,  1.]])
    """
    rate = checked_rate(p)
    key = draw_key(input, rate, training, generator, key)
    if not autograd.can_use_fast_path(input) or (input.is_cuda and is_captured(input.device)):
        return input + drop_path(branch(input), p, training, key=key)
    # One element a sample: as many as rows, so that what is stated about the rows of this process holds for them.
    # The host computes the mask of a key that it knows: to ask a GPU which rows are kept would wait for it.
    asks_host = input.is_cuda and is_on_host(key) and not isinstance(rate, Tensor)
    ones = input.new_ones((input.shape[0],) + (1,) * (input.dim() - 1), device="cpu" if asks_host else None)
    factors = drop_path(ones, p, training, key=key)
    if factors is ones:
        return input + branch(input)
    kept = factors.flatten().nonzero().flatten()
    if len(kept) == 0:
        return input.clone()
    if asks_host:
        kept = send(kept, input.device)
    output = branch(input.index_select(0, kept))
    return input.index_add(0, kept, output.to(input.dtype), alpha=1 / (1 - p))


class ResidualDropPath(DynamicRate):
    """Add a branch to its input; in training mode each sample skips the branch with probability `p`.

    See `dropkit.functional.residual_drop_path`.

    Args:
        branch: a module from (N, *) to (N, *), in `state_dict` with the prefix `branch.`.
        p: expected fraction of samples that skip the branch, in [0, 1].

    Example:
        >>> block = ResidualDropPath(torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)), 0.1)
        >>> block(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    _function = staticmethod(residual_drop_path)

    def __init__(self, branch: nn.Module, p: float = 0.5) -> None:
        super().__init__()
        check_probability(p)
        self.branch: nn.Module = branch
        self.p: float = p

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Add the branch to `input`, for the kept samples in training mode, for all in eval mode."""
        return residual_drop_path(input, self.branch, self.rate, self.training, generator=generator, key=key)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _doubling() -> nn.Module:
    branch = nn.Linear(3, 3, bias=False)
    nn.init.eye_(branch.weight)
    return branch


LAYER = ComposedLayer(
    module=ResidualDropPath,
    function=residual_drop_path,
    inputs=lambda dtype: (torch.ones(32, 3, dtype=dtype),),
    dropped=lambda output, module: (output == 1).all(-1),
    wraps=lambda: {"branch": _doubling()},
    where="in place of a residual block, with the rates of `DropPath`; less time the more is dropped",
)
