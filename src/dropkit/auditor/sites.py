"""Collect the sites of a run and their visits, and track the modules and functions that are running."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dropkit.auditor.masks import shape_of
from dropkit.auditor.module_tree import ModuleEntry, has_inner_dropout, is_dropout, rate_of
from dropkit.auditor.source_location import calling_line, layers_of_caller
from dropkit.catalog import LAYER_DROP
from dropkit.dropout_functions import DropoutFunction
from dropkit.trace import Form, Phase, Place, Site, Visit


@dataclass(slots=True)
class Scope:
    """A module or function that is running; `visit` and `site` are set if it is a dropout."""

    name: str
    kind: str
    visit: Visit | None = None
    site: Site | None = None
    input: Tensor | None = None


class SiteTable:
    """All sites, in order of execution, and the stack of scopes."""

    def __init__(self, entries: Mapping[int, ModuleEntry]) -> None:
        self.sites: list[Site] = []
        self.ran: dict[Phase, set[int]] = {phase: set() for phase in Phase}
        self.phase: Phase = Phase.TRAIN
        self._entries = entries
        self._scopes: list[Scope] = []
        self._by_key: dict[Any, Site] = {}
        self._unlisted: list[tuple[Site, weakref.ref[nn.Module]]] = []

    def begin(self, phase: Phase) -> None:
        self.phase = phase
        self._scopes.clear()

    def end(self) -> None:
        """Mark modules that did not outlive the run: they are created in each call."""
        for site, module in self._unlisted:
            if module() is None:
                site.form = Form.PER_CALL

    @property
    def is_inside(self) -> bool:
        """Whether any module or function is running."""
        return bool(self._scopes)

    @property
    def dropping(self) -> Scope | None:
        """The outermost running dropout; whatever runs inside it is part of it."""
        return next((scope for scope in self._scopes if scope.visit is not None), None)

    def enter_module(self, module: nn.Module, input: Tensor | None) -> None:
        self.ran[self.phase].add(id(module))
        entry, kind = self._entries.get(id(module)), type(module).__name__
        owner = self.owner
        name = entry.name if entry is not None else f"{owner}.{kind}" if owner else kind
        scope = Scope(name, kind, input=input)
        if self.dropping is None and (is_dropout(module) or has_inner_dropout(module)):
            scope.site = self._site_of_module(module, entry, name)
            scope.visit = self._new_visit(scope.site, rate_of(module), module.training, input)
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
        layers = layers_of_caller()
        if layers is None:
            site = self._site_of_function(function)
        else:
            entry = self._entries.get(id(layers))
            site = self._site_of_module(layers, entry, LAYER_DROP if entry is None else entry.name)
        visit = self._new_visit(site, p, training, input)
        visit.function, visit.inplace = function.name, inplace
        if site.p is None or (not site.p and p):
            site.p = p
        visit.covers = "layer" if layers is not None else ""
        self._scopes.append(Scope(self.owner, function.name, visit, site, input))

    def leave(self) -> Scope | None:
        return self._scopes.pop() if self._scopes else None

    def visit_of_draw(
        self, kind: str = "mask", form: Form = Form.MASK, p: float | None = None, place: Place | None = None
    ) -> tuple[Visit, Site]:
        """Return the running visit, or a new one of a site for the line that drew random numbers."""
        scope = self.dropping
        if scope is not None and scope.visit is not None and scope.site is not None:
            return scope.visit, scope.site
        place = place or calling_line()
        key = self.owner, kind, place
        site = self._by_key.get(key) or self._add(key, Site(self.owner, kind, form, place, self._owners))
        return self._new_visit(site, p, None, None, place), site

    def _site_of_module(self, module: nn.Module, entry: ModuleEntry | None, name: str) -> Site:
        place, kind = calling_line(), type(module).__name__
        key = id(module) if entry is not None else (self.owner, type(module), place)
        site = self._by_key.get(key)
        if site is None:
            form = Form.REGISTERED if entry is not None and entry.is_registered else Form.UNREGISTERED
            rate = entry.rate if entry is not None else rate_of(module)
            site = self._add(key, Site(name, kind, form, place, (*self._owners, kind), rate))
            if isinstance(module, nn.RNNBase):
                site.layers = module.num_layers
        if entry is None:
            self._unlisted.append((site, weakref.ref(module)))
        return site

    def _site_of_function(self, function: DropoutFunction) -> Site:
        place = calling_line()
        key = self.owner, function.name, place
        form = Form.ATTENTION if function.attention else Form.FUNCTION
        return self._by_key.get(key) or self._add(key, Site(self.owner, function.name, form, place, self._owners))

    @property
    def owner(self) -> str:
        """Name of the module that is running; "" for the model."""
        return self._scopes[-1].name if self._scopes else ""

    @property
    def _owners(self) -> tuple[str, ...]:
        return tuple(scope.kind for scope in self._scopes)

    def _add(self, key: Any, site: Site) -> Site:
        if self.phase is Phase.BACKWARD:
            # Recomputation may run outside the modules: the site is recognised by its line.
            same_line = (known for known in self.sites if (known.kind, known.place) == (site.kind, site.place))
            known = next(same_line, None)
            if known is not None:
                self._by_key[key] = known
                return known
        self._by_key[key] = site
        self.sites.append(site)
        return site

    def _new_visit(
        self,
        site: Site,
        p: float | bool | None,
        training: bool | None,
        input: Tensor | None,
        place: Place | None = None,
    ) -> Visit:
        shape = shape_of(input) if input is not None else ()
        visit = Visit(self.phase, place or calling_line(), shape, p, training)
        site.visits.append(visit)
        return visit
