"""WeightDrop: zero single weights of any module, a new mask at each call (DropConnect).

Source: Wan, Zeiler, Zhang, LeCun, Fergus, "Regularization of Neural Networks using DropConnect", ICML 2013; for the
hidden-to-hidden weights of an LSTM Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017,
arXiv:1708.02182.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from dropkit import random
from dropkit.arguments import check
from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.draw_key import draw_key
from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import slices


class WeightDrop(DynamicRate):
    r"""Call a module with some of its parameters dropped: single weights are 0 with probability `p`, others scaled.

    .. math:: y = f_{W \odot K / (1 - p)}(x), \qquad K_{ij} \sim \mathrm{Bernoulli}(1 - p)

    One mask for all samples and time steps of a call. The parameters themselves stay what they are, under their names
    in `module`: in `state_dict` with the prefix `module.`, and for optimizers. fastai's layer of this name keeps a
    second copy of each weight instead; here the dropped weights exist during the call alone.

    Args:
        module: any module; `nn.LSTM` and its kind included.
        names: of the parameters that are dropped, as in `module.named_parameters()`.
        p: expected fraction of weights dropped, in [0, 1].

    Shape:
        Inputs and outputs are those of `module`.

    Raises:
        ValueError: `p` is not in [0, 1], or `module` has no parameter of one of these names.

    Example:
        >>> WeightDrop(torch.nn.LSTM(8, 16), ["weight_hh_l0"], 0.5)
        WeightDrop(
          names=('weight_hh_l0',), p=0.5
          (module): LSTM(8, 16)
        )
    """

    def __init__(self, module: nn.Module, names: Sequence[str] = ("weight",), p: float = 0.5) -> None:
        super().__init__()
        check_probability(p)
        names = (names,) if isinstance(names, str) else tuple(names)
        known = [name for name, _ in module.named_parameters()]
        for name in names:
            check("names", name in known, f"among the parameters of module, {', '.join(known)}", repr(name))
        self.module: nn.Module = module
        self.names: tuple[str, ...] = names
        self.p: float = p

    def forward(
        self, *inputs: Any, generator: Generator | None = None, key: Tensor | int | None = None, **named: Any
    ) -> Any:
        """Call the module with dropped weights in training mode, with its own in eval mode.

        Args:
            inputs, named: arguments of `module`.
            generator, key: as for `dropout`; the i-th of several parameters is dropped under `fold_in(key, i)`.
        """
        weights = {name: self.module.get_parameter(name) for name in self.names}
        key = draw_key(next(iter(weights.values())), self.rate, self.training, generator, key)
        dropped: dict[str, Tensor] = {}
        with slices.Holding(slices.unsplit_parts()):  # of the weights each process has all
            for index, (name, weight) in enumerate(weights.items()):
                own = key if key is None or len(weights) == 1 else random.fold_in(key, index)
                value = dropout(weight, self.rate, self.training, key=own)
                if value is not weight:
                    dropped[name] = value
        if not dropped:
            return self.module(*inputs, **named)
        return torch.func.functional_call(self.module, dropped, inputs, named)

    def extra_repr(self) -> str:
        return f"names={self.names}, p={self.p}"


class _Weights(nn.Module):
    """Returns its weight, for the example."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 16))

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight


LAYER = ComposedLayer(
    module=WeightDrop,
    inputs=lambda dtype: (torch.eye(16, dtype=dtype),),
    dropped=lambda output, module: output == 0,
    wraps=lambda: {"module": _Weights()},
    batch_dim=None,
    where="on the hidden-to-hidden weights of an LSTM, 0.5; on the weights of a linear layer, 0.5",
)
