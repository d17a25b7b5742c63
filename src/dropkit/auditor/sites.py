"""The sites of a run: which module or function is running, which site that is, and its visits."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dropkit.auditor.masks import shape_of
from dropkit.auditor.module_tree import Held, drops, holds_rate, rate_of
from dropkit.auditor.source_location import here
from dropkit.dropout_functions import DropoutFunction
from dropkit.trace import Form, Phase, Place, Site, Visit


@dataclass(slots=True)
class Scope:
    """A module or a function that is running; with a visit if it is one that drops."""

    name: str
    kind: str
    visit: Visit | None = None
    site: Site | None = None
    input: Tensor | None = None


class Sites:
    """Every site, in order of execution, and the scopes that are open now."""

    def __init__(self, held: Mapping[int, Held]) -> None:
        self.all: list[Site] = []
        self.trained: set[int] = set()
        self.phase = Phase.TRAIN
        self._held = held
        self._scopes: list[Scope] = []
        self._by_key: dict[Any, Site] = {}
        self._born: list[tuple[Site, weakref.ref[nn.Module]]] = []

    def begin(self, phase: Phase) -> None:
        self.phase = phase
        self._scopes.clear()

    def end(self) -> None:
        """A module that did not outlive the run was made in it."""
        for site, module in self._born:
            if module() is None:
                site.form = Form.PER_CALL

    @property
    def inside(self) -> bool:
        """Whether any module or function is running."""
        return bool(self._scopes)

    @property
    def dropping(self) -> Scope | None:
        """The outermost running thing that drops; what runs inside of it is part of it."""
        return next((scope for scope in self._scopes if scope.visit is not None), None)

    def enter_module(self, module: nn.Module, input: Tensor | None) -> None:
        if self.phase is Phase.TRAIN:
            self.trained.add(id(module))
        held, kind = self._held.get(id(module)), type(module).__name__
        owner = self._owner
        name = held.name if held is not None else f"{owner}.{kind}" if owner else kind
        scope = Scope(name, kind, input=input)
        if self.dropping is None and (drops(module) or holds_rate(module)):
            scope.site = self._of_module(module, held, name)
            scope.visit = self._visit(scope.site, rate_of(module), module.training, input)
            scope.visit.inplace = bool(getattr(module, "inplace", False))
        self._scopes.append(scope)

    def enter_function(
        self,
        function: DropoutFunction,
        p: float | bool | None,
        training: bool | None,
        inplace: bool,
        input: Tensor | None,
    ) -> None:
        site = self._of_function(function)
        visit = self._visit(site, p, training, input)
        visit.function, visit.inplace = function.name, inplace
        if site.p is None or (not site.p and p):
            site.p = p
        self._scopes.append(Scope(self._owner, function.name, visit, site, input))

    def leave(self) -> Scope | None:
        return self._scopes.pop() if self._scopes else None

    def of_draw(
        self, kind: str = "mask", form: Form = Form.MASK, p: float | None = None, place: Place | None = None
    ) -> tuple[Visit, Site]:
        """The visit that is going on, or one of a site of its own: the line that drew."""
        scope = self.dropping
        if scope is not None and scope.visit is not None and scope.site is not None:
            return scope.visit, scope.site
        place = place or here()
        key = self._owner, kind, place
        site = self._by_key.get(key) or self._add(key, Site(self._owner, kind, form, place, self._owners))
        return self._visit(site, p, None, None, place), site

    def _of_module(self, module: nn.Module, held: Held | None, name: str) -> Site:
        place, kind = here(), type(module).__name__
        key = id(module) if held is not None else (self._owner, type(module), place)
        site = self._by_key.get(key)
        if site is None:
            form = Form.REGISTERED if held is not None and held.registered else Form.UNREGISTERED
            rate = held.rate if held is not None else rate_of(module)
            site = self._add(key, Site(name, kind, form, place, (*self._owners, kind), rate))
            if isinstance(module, nn.RNNBase):
                site.layers = module.num_layers
        if held is None:
            self._born.append((site, weakref.ref(module)))
        return site

    def _of_function(self, function: DropoutFunction) -> Site:
        place = here()
        key = self._owner, function.name, place
        form = Form.ATTENTION if function.attention else Form.FUNCTION
        return self._by_key.get(key) or self._add(key, Site(self._owner, function.name, form, place, self._owners))

    @property
    def _owner(self) -> str:
        return self._scopes[-1].name if self._scopes else ""

    @property
    def _owners(self) -> tuple[str, ...]:
        return tuple(scope.kind for scope in self._scopes)

    def _add(self, key: Any, site: Site) -> Site:
        if self.phase is Phase.BACKWARD:
            # What is recomputed may know no module around it: the line says what it is.
            same = (one for one in self.all if (one.kind, one.place) == (site.kind, site.place))
            known = next(same, None)
            if known is not None:
                self._by_key[key] = known
                return known
        self._by_key[key] = site
        self.all.append(site)
        return site

    def _visit(
        self,
        site: Site,
        p: float | bool | None,
        training: bool | None,
        input: Tensor | None,
        place: Place | None = None,
    ) -> Visit:
        visit = Visit(self.phase, place or here(), shape_of(input) if input is not None else (), p, training)
        site.visits.append(visit)
        return visit
