"""ConcreteDropout: a rate that is learned with the weights.

Source: Gal, Hron, Kendall, "Concrete Dropout", NeurIPS 2017, arXiv:1705.07832.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from dropkit.arguments import check
from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.draw_key import draw_key
from dropkit.nn.random_numbers import uniform


class ConcreteDropout(nn.Module):
    r"""Drop the inputs of a layer at a rate that is a parameter, by a mask that is differentiable in it.

    .. math:: y = x \odot (1 - z) / (1 - p), \qquad
        z = \sigma((\log p - \log(1 - p) + \log u - \log(1 - u)) / t)

    with a uniform number :math:`u` for each element: :math:`z` is close to 1, dropped, with probability :math:`p`, and
    the closer the lower the temperature :math:`t`. The rate is learned only with `regularization`, which must be part
    of the loss. As in the paper the layer that follows is what is regularised.

    Args:
        layer: the layer that follows, a linear or convolutional one; in `state_dict` with the prefix `layer.`.
        p: rate to begin with, in (0, 1); 0 switches the dropout off for good.
        temperature: of the relaxation; 0.1 in the paper.
        weight_regularizer: the paper's :math:`l^2 / (\tau N)`, for prior length scale l, model precision tau and N
            training samples.
        dropout_regularizer: the paper's :math:`2 / (\tau N)` for a Euclidean loss, :math:`1 / (\tau N)` for
            cross-entropy.

    Shape:
        Inputs and outputs are those of `layer`. One uniform number for each element of the input.

    Raises:
        ValueError: `p` is not in [0, 1), or `temperature` is not positive.

    Example:
        >>> layer = ConcreteDropout(torch.nn.Linear(8, 4), p=0.1, weight_regularizer=1e-4, dropout_regularizer=1e-3)
        >>> loss = layer(torch.randn(2, 8)).square().mean() + layer.regularization()
        >>> loss.backward()
        >>> layer.p_logit.grad.shape
        torch.Size([])
    """

    p_logit: nn.Parameter

    def __init__(
        self,
        layer: nn.Module,
        p: float = 0.1,
        temperature: float = 0.1,
        weight_regularizer: float = 1e-6,
        dropout_regularizer: float = 1e-5,
    ) -> None:
        super().__init__()
        check_probability(p)
        check("p", p < 1, "below 1, since a rate of 1 has no gradient", p)
        check("temperature", temperature > 0, "positive", temperature)
        self.layer, self.temperature = layer, temperature
        self.weight_regularizer, self.dropout_regularizer = weight_regularizer, dropout_regularizer
        self.p_logit = nn.Parameter(torch.tensor(0.0))
        self.p = p

    @property
    def p(self) -> float:
        """The rate as it is now."""
        return float(self.p_logit.detach().double().sigmoid())

    @p.setter
    def p(self, rate: float) -> None:
        check_probability(rate)
        with torch.no_grad():
            self.p_logit.fill_(
                math.log(rate) - math.log1p(-rate) if 0 < rate < 1 else math.copysign(math.inf, rate - 0.5)
            )

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Call the layer, on dropped inputs in training mode.

        Args:
            input: of `layer`.
            generator, key: as for `dropout`.
        """
        key = draw_key(input, self.p, self.training, generator, key)
        if not self.training or key is None or self.p == 0:
            return self.layer(input)
        # In float32 at least: in 16 bits the logarithms would be too coarse.
        logit = self.p_logit if self.p_logit.dtype == torch.float64 else self.p_logit.float()
        u = uniform(torch.empty(input.shape, dtype=logit.dtype, device=input.device), key=key)
        z = ((logit + u.log() - torch.log1p(-u)) / self.temperature).sigmoid()
        return self.layer(input * ((1 - z) / torch.sigmoid(-logit)).to(input.dtype))

    def regularization(self) -> Tensor:
        r"""What the paper adds to the loss for this layer, a number.

        .. math:: \lambda_w \|W\|^2 / (1 - p) + \lambda_d K (p \log p + (1 - p) \log(1 - p))

        with all parameters of the layer as W and its number of inputs as K (equations 3 and 4).
        """
        p = self.p_logit.sigmoid()
        squares = torch.stack([weight.square().sum() for weight in self.layer.parameters()]).sum()
        entropy = -p.xlogy(p) - (1 - p).xlogy(1 - p)
        inputs = next(self.layer.parameters()).shape[1]
        return self.weight_regularizer * squares / (1 - p) - self.dropout_regularizer * inputs * entropy

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}, temperature={self.temperature}"


def concrete_regularization(model: nn.Module) -> Tensor:
    """The sum of `regularization` over all `ConcreteDropout` layers of a model.

    Raises:
        ValueError: there are none.
    """
    parts = [module.regularization() for module in model.modules() if isinstance(module, ConcreteDropout)]
    check("model", len(parts) > 0, "one with ConcreteDropout layers", type(model).__name__)
    return torch.stack(parts).sum()


def _unit() -> nn.Module:
    layer = nn.Linear(16, 16, bias=False)
    nn.init.eye_(layer.weight)
    return layer


LAYER = ComposedLayer(
    module=ConcreteDropout,
    inputs=lambda dtype: (torch.ones(8, 16, dtype=dtype),),
    # Of a kept input 1 more than half is left before the scale.
    dropped=lambda output, module: output * (1 - module.p) < 0.5,
    wraps=lambda: {"layer": _unit()},
    takes_compiler=False,
    where="before the layers of a network whose uncertainty is wanted; the rate is learned",
)
