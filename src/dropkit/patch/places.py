"""Where `retrofit` puts dropout: the places of a model that a word or a name chooses, and what speaks against one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] (the base class of all)

from dropkit.arguments import check, did_you_mean
from dropkit.catalog import ACTIVATIONS
from dropkit.patch import data_flow
from dropkit.patch.attached_dropout import AFTER, BEFORE
from dropkit.patch.changes import Left
from dropkit.patch.counterparts import full_name
from dropkit.patch.rate_sites import Site, drops, find_sites

# Modules of other libraries that hold activations and nothing else.
_ACTIVATION_MODULES = ("transformers.activations", "timm.layers.activations", "timm.layers.activations_me")
# Activations that elsewhere than in a Sequential mostly scale channels, as in squeeze and excitation.
_GATES = (nn.Sigmoid, nn.Hardsigmoid)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Before or after a module; `site` is a rate in the module that a name chooses."""

    module: nn.Module
    is_before: bool = False
    site: Site | None = None


@dataclass(slots=True)
class Model:
    """A model with the names of its modules, each once, in order, and its data flow if there was an example."""

    model: nn.Module
    example: Any = None
    names: dict[nn.Module, str] = field(init=False)
    sites: list[Site] = field(init=False)
    flow: data_flow.DataFlow | None = field(init=False, default=None)
    before_norms: set[nn.Module] = field(init=False, default_factory=set[nn.Module])
    left: list[Left] = field(init=False, default_factory=list[Left])

    def __post_init__(self) -> None:
        named = cast("Iterator[tuple[str, nn.Module]]", self.model.named_modules())
        self.names = {module: name for name, module in named}
        if self.example is not None:
            self.flow = data_flow.trace(self.model, self.example)
            self.before_norms = self.flow.before_batch_norm()
        with warnings.catch_warnings():
            # About rates that cannot be read, which `retrofit` reports itself.
            warnings.simplefilter("ignore")
            self.sites = find_sites(self.model)

    @property
    def order(self) -> list[nn.Module]:
        """The modules without modules in them, in the order of registration."""
        return [module for module in self.names if all(name in (AFTER, BEFORE) for name, _ in module.named_children())]

    def neighbour(self, place: Place) -> nn.Module | None:
        """The module registered next to a place, with the same parent."""
        parent, own = self._parent(place.module), list[nn.Module]()
        if parent is not None:
            own = list(parent.children())
        at = own.index(place.module) if place.module in own else -1
        beside = at - 1 if place.is_before else at + 1
        return own[beside] if at >= 0 and 0 <= beside < len(own) else None

    def is_in_sequential(self, module: nn.Module) -> bool:
        return isinstance(self._parent(module), nn.Sequential)

    def is_before_batch_norm(self, module: nn.Module) -> bool:
        """Whether a batch norm is computed from a module's output: seen with an example, else by registration."""
        if self.flow is not None and module in self.flow.outputs:
            return module in self.before_norms
        modules = list(self.names)
        norms = [at for at, norm in enumerate(modules) if isinstance(norm, _BatchNorm)]
        return bool(norms) and modules.index(module) < norms[-1]

    def _parent(self, module: nn.Module) -> nn.Module | None:
        return next((parent for parent in self.names if module in list(parent.children())), None)


def find_places(model: Model, place: str | Sequence[str]) -> list[Place]:
    """The places that a word, a name, a pattern or a list of those chooses. Notes what it left in `model.left`.

    Raises:
        ValueError: nothing fits, or what is needed to find out is missing.
    """
    if isinstance(place, str) and place in _WORDS:
        return _WORDS[place](model)
    patterns = [place] if isinstance(place, str) else list(place)
    return [named for pattern in patterns for named in _named(model, pattern)]


def _after_activations(model: Model) -> list[Place]:
    places: list[Place] = []
    last = next((module for module in reversed(model.order) if not drops(module)), None)
    for module in model.names:
        if not _is_activation(module):
            continue
        name = model.names[module]
        if module is last:
            model.left.append(Left(name, "it is the last layer, so dropout would zero the model's output"))
        elif isinstance(module, _GATES) and not model.is_in_sequential(module):
            model.left.append(Left(name, "it may be a gate rather than an activation; name it to drop after it"))
        else:
            places.append(Place(module))
    if not places and not model.left:
        model.left.append(Left("", "it has no activation modules; calls of functions cannot be followed by a module"))
    return places


def _before_classifier(model: Model) -> list[Place]:
    called = model.order if model.flow is None else [module for module in model.flow.outputs if module in model.order]
    linear = [module for module in called if isinstance(module, nn.Linear)]
    check("place", bool(linear), "one that the model has", "'before-classifier', and it has no linear layer")
    return [Place(linear[-1], is_before=True)]


def _on_residual_branches(model: Model) -> list[Place]:
    check("example", model.flow is not None, "an input of the model for place='residual-branches'", None)
    assert model.flow is not None  # for pyright
    always, sometimes = model.flow.residual_branches()
    model.left += [Left(model.names[m], "it ends a residual branch in some of its calls only") for m in sometimes]
    if not always:
        model.left.append(Left("", "no module of it ends a residual branch"))
    return [Place(module) for module in model.names if module in always]


_WORDS = {
    "after-activations": _after_activations,
    "before-classifier": _before_classifier,
    "residual-branches": _on_residual_branches,
}
WORDS = (*_WORDS, "existing")


def _named(model: Model, pattern: str) -> list[Place]:
    side, _, name_pattern = pattern.rpartition(" ")
    check("place", side in ("", "before", "after"), '"NAME", "after NAME" or "before NAME"', repr(pattern))
    sites = [] if side else [site for site in model.sites if fnmatchcase(site.name, name_pattern)]
    changed = {site.module for site in sites}
    places = [Place(site.module, site=site) for site in sites]
    for module, name in model.names.items():
        if name and module not in changed and fnmatchcase(name, name_pattern):
            places.append(Place(module, side == "before"))
    hint = did_you_mean(name_pattern, [*WORDS, *filter(None, model.names.values())])
    check("place", bool(places), f"one of {', '.join(map(repr, WORDS))}, or names of modules", f"{pattern!r}{hint}")
    return places


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    return full_name(kind) in ACTIVATIONS - {"torch.nn.Identity"} or (
        kind.__module__ in _ACTIVATION_MODULES and not drops(module) and "Sigmoid" not in kind.__name__
    )
