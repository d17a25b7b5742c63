"""ConcreteDropout: dropout whose rate is learned with the weights, by a relaxed mask.

Source: Gal, Hron, Kendall, "Concrete Dropout", NeurIPS 2017, arXiv:1705.07832.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.overrides import has_torch_function  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.arguments import check
from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dispatch import ask_subclass
from dropkit.nn.draw_key import draw_key
from dropkit.nn.fx_module import FxModule
from dropkit.nn.random_numbers import uniform
from dropkit.ops import autograd
from dropkit.torch_private import Convolution

# Logits beyond are rates of 0 and 1 in every floating type, where a derivative would be infinity times 0.
_LARGEST_LOGIT = 80.0


def concrete_dropout(
    input: Tensor,
    p: float | Tensor,
    training: bool = True,
    *,
    temperature: float = 0.1,
    channels: bool = False,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Drop by a mask that is nearly 0 or 1, so that the output has a derivative by the rate `p`.

    .. math:: y = x \odot k / (1 - p), \qquad k = \mathrm{sigmoid}((\mathrm{logit}(u) - \mathrm{logit}(p)) / t)

    The numbers u are uniform in (0, 1), one for each element. A mask element k is below 1/2 with probability `p`, and
    then its element counts as dropped: where `dropout` drops under the same key, up to the rounding of u.

    Args:
        input: values, floating.
        p: expected fraction of elements dropped, in [0, 1]; to be learned, a 0-d tensor that requires a gradient.
        training: if false, return `input` itself.
        temperature: t above; the mask is that of `dropout` in the limit of 0, where the gradient is lost in noise.
        channels: share a mask element among all elements of a channel, dimension 1.
        generator, key: as for `dropout`.

    Shape:
        input: any, or (N, C, *) with `channels`; output: the same.

    Raises:
        ValueError: `p` is a number out of [0, 1], `temperature` is not above 0, `input` has no channels, or both
            `generator` and `key` are given.

    Example:
        >>> p = torch.tensor(0.5, requires_grad=True)
        >>> y = concrete_dropout(torch.ones(6), p, key=7)
        >>> y.detach()
        tensor([2.0000e+00, 2.0000e+00, 2.5314e-09, 1.0414e-10, 4.5266e-02, 2.0000e+00])
        >>> (gradient,) = torch.autograd.grad(y.sum(), p)
    """
    tensors = (input, p) if isinstance(p, Tensor) else (input,)
    if has_torch_function(tensors):
        arguments = {"p": p, "training": training, "temperature": temperature, "channels": channels}
        return ask_subclass(concrete_dropout, tensors, **arguments, generator=generator, key=key)
    if not isinstance(p, Tensor):
        check_probability(p)
    check("temperature", temperature > 0, "above 0", temperature)
    check("input", not channels or input.dim() >= 2, "(N, C, *) where channels is true", f"shape {tuple(input.shape)}")
    drops = training and not _is_known_to_be_0(p)
    key = draw_key(input, 0.5 if drops else 0.0, training, generator, key)
    if not drops:
        return input
    shape, dtype = numbers_shape(input, channels), _precision(input)
    return relax(input, p, temperature, uniform(torch.empty(shape, dtype=dtype, device=input.device), key=key))


def numbers_shape(input: Tensor, channels: bool) -> torch.Size:
    """The shape of the random numbers of a call."""
    return torch.Size((*input.shape[:2], *(1,) * (input.dim() - 2))) if channels else input.shape


def relax(input: Tensor, p: float | Tensor, temperature: float, numbers: Tensor) -> Tensor:
    """Drop by the relaxed mask of these uniform numbers, which are overwritten."""
    dtype, device = _precision(input), input.device
    # A number is filled in, because a copy of it would wait for a GPU.
    rate = p.to(device, dtype) if isinstance(p, Tensor) else torch.full((), p, dtype=dtype, device=device)
    logit = torch.logit(rate.clamp(math.exp(-_LARGEST_LOGIT), 1 - torch.finfo(rate.dtype).eps / 2))
    noise = numbers.to(rate.dtype).logit_().div_(temperature)
    kept = torch.sigmoid(noise - logit / temperature)
    scale = torch.where(rate < 1, 1 / (1 - rate).clamp(min=torch.finfo(rate.dtype).eps / 2), 0)
    return input * (kept * scale).to(input.dtype)


def _precision(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _is_known_to_be_0(p: float | Tensor) -> bool:
    # On another device the question would wait for all work before it, in each layer.
    is_readable = not isinstance(p, Tensor) or (p.device.type == "cpu" and autograd.can_use_fast_path(p))
    return is_readable and bool(p == 0)


class ConcreteDropout(FxModule):
    """A layer with dropout of its input, at a rate that is learned together with its weights.

    See `dropkit.functional.concrete_dropout`. The loss needs `concrete_regularization` besides: without it the rate
    falls to 0 in most models. The rate is the parameter `p_logit`, its logit; weight decay, which would draw the rate
    to 0.5, should leave it out. `p` is the rate as a number, and may be assigned; rates of 0 and 1 stay as they are.

    Args:
        layer: a linear layer, whose inputs are dropped one by one, or a convolution, whose input channels are; with
            the prefix `layer.` in `state_dict`. Other modules are dropped like linear layers, without regularisation.
        p: rate at the beginning, an expected fraction, in [0, 1).
        temperature: of the relaxed mask; 0.1 in the paper.
        weight_regularizer, dropout_regularizer: factors of `regularization`.

    Raises:
        ValueError: `p` is not in [0, 1), or `temperature` is not above 0.

    Example:
        >>> samples, length_scale = 1000, 0.01
        >>> factors = {"weight_regularizer": length_scale**2 / (2 * samples), "dropout_regularizer": 1 / samples}
        >>> layer = ConcreteDropout(torch.nn.Linear(8, 4), **factors)
        >>> loss = torch.nn.functional.cross_entropy(layer(torch.randn(2, 8)), torch.tensor([0, 3]))
        >>> (loss + layer.regularization()).backward()
        >>> layer
        ConcreteDropout(
          p=0.1, temperature=0.1
          (layer): Linear(in_features=8, out_features=4, bias=True)
        )
    """

    _function = staticmethod(concrete_dropout)

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
        check("temperature", temperature > 0, "above 0", temperature)
        self.layer: nn.Module = layer
        self.temperature: float = temperature
        self.weight_regularizer: float = weight_regularizer
        self.dropout_regularizer: float = dropout_regularizer
        self.p_logit: nn.Parameter = nn.Parameter(torch.empty(()))
        self.p = p

    @property
    def p(self) -> float:
        """The rate now."""
        return torch.sigmoid(self.p_logit.detach().double()).item()

    @p.setter
    def p(self, p: float) -> None:
        check_probability(p)
        with torch.no_grad():
            self.p_logit.fill_(torch.logit(torch.tensor(p, dtype=torch.float64, device="cpu")).item())

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Apply the layer to `input`, in training mode with dropout."""
        dropped = concrete_dropout(
            input,
            torch.sigmoid(self.p_logit.to(_precision(self.p_logit))),
            self.training,
            temperature=self.temperature,
            channels=isinstance(self.layer, Convolution),
            generator=generator,
            key=key,
        )
        return self.layer(dropped)

    def regularization(self) -> Tensor:
        r"""What the paper adds to the loss for this layer: its divergence from the prior, a number.

        .. math:: \lambda_w\, \frac{\|W\|^2}{1 - p} - \lambda_d\, K\, H(p), \qquad
            H(p) = -p \log p - (1 - p) \log(1 - p)

        It rewards rates near 0.5 by the entropy H, in nats, of each of the layer's K inputs or input channels, and
        large rates only with small weights W. Equations 3 and 4 of the paper, in which :math:`M = W / (1 - p)`, by
        the number of training samples N. The bias has no prior. With the inverse standard deviation l of the prior of
        the weights, the factors are

        - for the mean negative log-likelihood, which cross-entropy is: :math:`\lambda_w = l^2 / (2 N)` and
          :math:`\lambda_d = 1 / N`;
        - for the mean squared error under a Gaussian of precision :math:`\tau`, which is that times
          :math:`2 / \tau`: :math:`\lambda_w = l^2 / (\tau N)` and :math:`\lambda_d = 2 / (\tau N)`.

        Raises:
            TypeError: the layer is neither linear nor a convolution.
        """
        if not isinstance(self.layer, (nn.Linear, Convolution)):
            raise TypeError(f"layer must be linear or a convolution to be regularised, got {type(self.layer).__name__}")
        units = self.layer.in_features if isinstance(self.layer, nn.Linear) else self.layer.in_channels
        logit = self.p_logit.to(_precision(self.p_logit)).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        entropy = -nn.functional.logsigmoid(-logit) - torch.sigmoid(logit) * logit
        weights = self.layer.weight.square().sum() * (1 + logit.exp())  # 1 / (1 - p) = 1 + exp(logit)
        return self.weight_regularizer * weights - self.dropout_regularizer * units * entropy

    def extra_repr(self) -> str:
        return f"p={self.p:.4g}, temperature={self.temperature}"


def concrete_regularization(model: nn.Module) -> Tensor:
    """The sum of `regularization` over all `ConcreteDropout` layers of a model, to be added to its loss.

    Raises:
        ValueError: there are none.
        TypeError: one of them is neither linear nor a convolution.

    Example:
        >>> layer = ConcreteDropout(torch.nn.Linear(100, 10), 0.5, weight_regularizer=0.0, dropout_regularizer=1.0)
        >>> concrete_regularization(torch.nn.Sequential(layer, torch.nn.ReLU()))  # -100 * log(2)
        tensor(-69.3147, grad_fn=<SumBackward0>)
    """
    layers = [module for module in model.modules() if isinstance(module, ConcreteDropout)]
    check("model", bool(layers), "one with ConcreteDropout layers", type(model).__name__)
    device = layers[0].p_logit.device
    return torch.stack([layer.regularization().to(device) for layer in layers]).sum()


def _copying() -> nn.Module:
    layer = nn.Conv2d(32, 32, 1, groups=32, bias=False)
    nn.init.ones_(layer.weight)
    return layer


_CHANNELS = ComposedLayer(
    module=ConcreteDropout,
    inputs=lambda dtype: (torch.ones(8, 32, 2, 2, dtype=dtype),),
    dropped=lambda output, module: (output * (1 - module.p) < 0.5).all((2, 3)),
    wraps=lambda: {"layer": _copying()},
)
LAYER = ComposedLayer(
    module=ConcreteDropout,
    function=concrete_dropout,
    inputs=lambda dtype: (torch.ones(8, 32, dtype=dtype),),
    dropped=lambda output, module: output * (1 - module.p) < 0.5,
    wraps=lambda: {"layer": nn.Identity()},
    variants=(_CHANNELS,),
    learns_rate=True,
    where="around linear layers and convolutions of models that state their uncertainty, which learns each rate",
)
