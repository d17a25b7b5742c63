"""Moments: a tensor of random numbers of which the mean and the variance of each element are known.

Source: Brach, Sick, Duerr, "Single Shot MC Dropout Approximation", 2020, arXiv:2007.03293.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from torch import Tensor

from dropkit.mc.moments.gaussian import Gaussian
from dropkit.mc.virtual_tensors import VirtualTensor, is_inplace, reads_no_values
from dropkit.torch_private import no_torch_function

# From (function, arguments, keyword arguments) to the result. The first argument, or an item of it, is random.
Rule = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]

# By function of torch: what it does to moments. `rules.py` fills it.
RULES: dict[Any, Rule] = {}

# Statements such as `x += 1`, whose functions do not end in an underscore alone.
_AUGMENTED = frozenset({"__iadd__", "__isub__", "__imul__", "__itruediv__"})


class NoMomentRule(NotImplementedError):
    """A model computes something from the output of a dropout for which there is no rule."""


class Moments(VirtualTensor):
    """Random numbers, of which functions of torch without a rule raise an error.

    Attributes:
        expectation, variance: of each element.
        sites: the numbers of the dropouts that they depend on. Tensors without a common one are independent.
    """

    expectation: Tensor
    variance: Tensor
    sites: frozenset[int]

    @staticmethod
    def of(gaussian: tuple[Tensor, Tensor], sites: frozenset[int]) -> Moments:
        mean, variance = gaussian
        moments: Moments = VirtualTensor.create(Moments, mean.shape, mean)
        moments.expectation, moments.variance, moments.sites = mean, variance, sites
        return moments

    @property
    def gaussian(self) -> Gaussian:
        return Gaussian(self.expectation, self.variance)

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (torch's takes tensor_contents)
        return f"Moments({tuple(self.expectation.shape)})"

    def write(self, gaussian: tuple[Tensor, Tensor]) -> Moments:
        """Write over the numbers, also those of views."""
        for own, new in zip(self.gaussian, gaussian, strict=True):
            own.copy_(new)
        return self

    def compute(self) -> NoReturn:
        refuse("a call that reads the numbers")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def refuse(what: str) -> NoReturn:
    """Raise the error that there is no rule for this."""
    raise NoMomentRule(what)


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run a function by its rule."""
    name = getattr(func, "__name__", str(func))
    rule = RULES.get(func)
    if rule is None:
        if reads_no_values(func):
            with no_torch_function():
                return func(*args, **kwargs)
        refuse(name)
    if not (is_inplace(func, kwargs) or name in _AUGMENTED):
        return rule(func, args, kwargs)
    target = args[0]
    if not isinstance(target, Moments):
        refuse(f"{name}, which writes random numbers into a tensor,")
    result = rule(func, args, {**kwargs, "inplace": False} if "inplace" in kwargs else kwargs)
    target.sites |= result.sites
    return target.write(result.gaussian)
