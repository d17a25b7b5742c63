"""The dropout rates inside a model, and the choice among them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from dropkit.catalog import DROPOUT_CLASS_NAME, RATE_ATTRIBUTES
from dropkit.dropout_functions import RATE_HOLDERS
from dropkit.nn import COMPOSED
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.gaussian_noise import GaussianNoise
from dropkit.torch_private import TorchDropout

# Names or patterns of sites, or whether to take a site, by its name and module; None for every layer that drops.
Choice = str | Sequence[str] | Callable[[str, nn.Module], bool] | None


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """An attribute of a module that holds a dropout rate.

    Attributes:
        name: of the module in the model; with the attribute's name after it if the module is no layer that drops.
        module: the module.
        attribute: name of its attribute.
        is_layer: whether the module is one that drops: a dropout layer, attention or a recurrent network.
    """

    name: str
    module: nn.Module
    attribute: str
    is_layer: bool

    @property
    def rate(self) -> float:
        """The rate now."""
        return float(getattr(self.module, self.attribute))

    def set_rate(self, rate: float) -> None:
        """Assign a rate that differs: an assignment may cost a new graph."""
        if getattr(self.module, self.attribute) != rate:
            setattr(self.module, self.attribute, rate)

    def __str__(self) -> str:
        kind = type(self.module)
        return f"{self.name or '(the model itself)'}: {kind.__module__.partition('.')[0]} {kind.__name__}"


def find_sites(model: nn.Module) -> list[Site]:
    """The sites of a model, in the order of `named_modules()`; a shared module has its first name.

    Warns about dropout layers whose rate is in no attribute that other libraries use, too.
    """
    sites: list[Site] = []
    unreadable: list[str] = []
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        # What torch.compile wraps keeps its name.
        name = name.replace("_orig_mod.", "").removesuffix("_orig_mod").removesuffix(".")
        if drops(module):
            attribute = rate_attribute(module)
            if attribute is None:
                unreadable.append(name)
            else:
                sites.append(Site(name, module, attribute, True))
        else:
            prefix = f"{name}." if name else ""
            sites += [Site(prefix + attribute, module, attribute, False) for attribute in rates_of_other(module)]
    if unreadable:
        warnings.warn(
            f"no schedule can move the rates of {', '.join(unreadable)}: none of the attributes "
            f"{', '.join(RATE_ATTRIBUTES)} of these modules is a number",
            stacklevel=3,
        )
    return sites


def choose(sites: Sequence[Site], choice: Choice) -> list[Site]:
    """The chosen sites.

    Raises:
        ValueError: a name or pattern matches no site, or nothing is chosen.
    """
    if choice is None:
        chosen = [site for site in sites if site.is_layer]
    elif callable(choice):
        chosen = [site for site in sites if site.is_layer and choice(site.name, site.module)]
    else:
        patterns = [choice] if isinstance(choice, str) else list(choice)
        for pattern in patterns:
            if not any(fnmatchcase(site.name, pattern) for site in sites):
                raise ValueError(f"sites must match rates of the model, got {pattern!r}; it has {_listed(sites)}")
        chosen = [site for site in sites if any(fnmatchcase(site.name, pattern) for pattern in patterns)]
    if not chosen:
        raise ValueError(f"sites must choose rates of the model, got none; it has {_listed(sites)}")
    return chosen


def drops(module: nn.Module) -> bool:
    """Whether a module drops at a rate of its own: a dropout layer, attention or a recurrent network."""
    if isinstance(module, GaussianNoise):  # which has a standard deviation instead of a rate
        return False
    if isinstance(module, nn.RNNBase):
        # Between layers, of which there must be two.
        return module.num_layers > 1
    # Layers whose rate has another name hold modules that drop, which are sites themselves.
    composed = (record.module for record in COMPOSED if record.rate == "p" and not record.learns_rate)
    if isinstance(module, (*RATE_HOLDERS, DynamicRate, TorchDropout, *composed)):
        return True
    return DROPOUT_CLASS_NAME.search(type(module).__name__) is not None and next(module.children(), None) is None


def rate_attribute(module: nn.Module) -> str | None:
    """The attribute of a module that drops which holds its rate; None if there is none that is known."""
    names = ("dropout",) if isinstance(module, RATE_HOLDERS) else RATE_ATTRIBUTES
    return next((name for name in names if _is_rate(vars(module).get(name))), None)


def rates_of_other(module: nn.Module) -> list[str]:
    """Attributes from which a module that is no layer may pass a rate to a function."""
    if isinstance(module, nn.RNNBase):
        return []
    return [name for name, value in vars(module).items() if "drop" in name and type(value) is float and _is_rate(value)]


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _listed(sites: Sequence[Site]) -> str:
    return ", ".join(site.name or "(the model itself)" for site in sites) or "none"
