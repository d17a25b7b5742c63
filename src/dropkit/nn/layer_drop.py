"""LayerDrop: skip whole layers of a stack, for all samples of a batch.

Source: Fan, Grave, Joulin, "Reducing Transformer Depth on Demand with Structured Dropout", ICLR 2020, arXiv:1909.11556.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from dropkit.arguments import check
from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dropout import dropout
from dropkit.ops import slices


class LayerDrop(nn.ModuleList):
    """A list of modules, over which a loop in training mode passes with each module left out at probability `p`.

    What remains is not scaled: each layer must add to a residual, so that the network without it makes sense. In eval
    mode a loop passes over all modules. Indexing, `len` and `state_dict` are those of `nn.ModuleList`, so the list
    takes its place. Parameters of a layer that was left out get no gradient: `DistributedDataParallel` needs
    `find_unused_parameters=True`, and processes need equal generators or a key.

    Args:
        modules: the layers, in order.
        p: expected fraction of layers left out, in [0, 1].

    Raises:
        ValueError: `p` is not in [0, 1].

    Example:
        >>> layers = LayerDrop([torch.nn.Linear(8, 8) for _ in range(4)], p=0.5)
        >>> x = torch.ones(2, 8)
        >>> for layer in layers:  # a new choice each time
        ...     x = x + layer(x)
        >>> len(list(layers.kept(key=7))), len(list(layers.eval()))
        (2, 4)
        >>> layers
        LayerDrop(
          p=0.5
          (0-3): 4 x Linear(in_features=8, out_features=8, bias=True)
        )
    """

    def __init__(self, modules: Iterable[nn.Module] | None = None, p: float = 0.2) -> None:
        super().__init__(modules)
        check_probability(p)
        self.p = p

    def __iter__(self) -> Iterator[nn.Module]:
        return self.kept()

    def kept(self, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Iterator[nn.Module]:
        """Iterate over the modules that one pass keeps: all of them in eval mode.

        Args:
            generator, key: as for `dropout`. Module i has mask element i.
        """
        modules = list(self._modules.values())
        ones = torch.ones(len(modules))
        with slices.Holding(slices.unsplit_parts()):  # each process has all of the layers
            mask = dropout(ones, self.p, self.training, generator=generator, key=key)
        if mask is ones:  # without a look at its values, which a program that is exported could not hold
            return iter(modules)
        return (module for module, factor in zip(modules, cast("list[float]", mask.tolist()), strict=True) if factor)

    def forward(self, input: Any, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Any:
        """Pass `input` through the kept modules, one after the other."""
        for module in self.kept(generator=generator, key=key):
            input = module(input)
        return input

    def keep(self, indices: Iterable[int]) -> LayerDrop:
        """A list of some of the modules, for a network of less depth; they are shared, not copied.

        The paper prunes a trained network in this way, by leaving out every other layer.

        Raises:
            ValueError: an index is out of range.
        """
        chosen = list(indices)
        for index in chosen:
            check("indices", -len(self) <= index < len(self), f"of the {len(self)} layers", index)
        shorter = LayerDrop([self[index] for index in chosen], self.p)
        shorter.training = self.training
        return shorter

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def __repr__(self) -> str:
        # nn.ModuleList folds equal layers into one line, and leaves `extra_repr` out.
        name, _, layers = super().__repr__().partition("(")
        return f"{name}({self.extra_repr()})" if layers == ")" else f"{name}(\n  {self.extra_repr()}{layers}"


class _Mark(nn.Module):
    """Sets one element of its input, for the example."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, input: Tensor) -> Tensor:
        return input + nn.functional.one_hot(torch.tensor(self.index), input.shape[-1]).to(input)


LAYER = ComposedLayer(
    module=LayerDrop,
    inputs=lambda dtype: (torch.zeros(16, dtype=dtype),),
    dropped=lambda output, module: output == 0,
    wraps=lambda: {"modules": [_Mark(index) for index in range(16)]},
    batch_dim=None,
    takes_compiler=False,
    where="over the layers of a deep transformer, 0.1 to 0.2, or 0.5 to prune half of them afterwards",
)
