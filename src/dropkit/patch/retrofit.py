"""retrofit: put dropout into a model that was built without, or change kind and rate of what it has."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import dropkit.nn as layers
from dropkit.arguments import check, did_you_mean
from dropkit.dropout_functions import RATE_HOLDERS
from dropkit.nn.checks import check_probability
from dropkit.nn.module import DropoutModule
from dropkit.nn.submatrix import is_product
from dropkit.patch.attached_dropout import AFTER, BEFORE, attach
from dropkit.patch.batchwise_block import BatchwiseBlock, Block, make_batchwise
from dropkit.patch.batchwise_sequential import BatchwiseSequential, blocks
from dropkit.patch.changes import Changes, Left, checked_model, described, shown
from dropkit.patch.counterparts import become, full_name, is_drop_path, of_another_library, of_torch
from dropkit.patch.find_blocks import find_blocks
from dropkit.patch.places import Model, Place, find_places
from dropkit.patch.rate_sites import Site, drops, rate_attribute

# Convolutions and norms, of torch and of libraries, that say for how many dimensions they are.
_MAKES_MAPS = re.compile(r"(?:Conv\w*|Norm)([123]d)")

# From a module and whether dropout comes before it to the class of that dropout.
_Choose = Callable[[nn.Module, bool], type[nn.Module]]


@dataclass(frozen=True, slots=True)
class Retrofitted:
    """One change by `retrofit`.

    Attributes:
        name: of the module, or of the attribute that holds the rate.
        action: "after" or "before" for new dropout after or before the module, "changed" for dropout that was there.
        old: what was there; empty for new dropout.
        new: what is there now.
    """

    name: str
    action: str
    old: str
    new: str

    def __str__(self) -> str:
        if self.action == "changed":
            return f"{shown(self.name)}: {self.old} -> {self.new}"
        return f"{self.action} {shown(self.name)}: {self.new}"


def retrofit(
    model: nn.Module,
    kind: str | type[nn.Module] | None = None,
    p: float | Sequence[float] = 0.5,
    place: str | Sequence[str] = "after-activations",
    *,
    example: Any = None,
    before_batch_norm: bool = False,
    dry_run: bool = False,
) -> Changes[Retrofitted]:
    """Put dropout into `model`, in place, or change the dropout that it has.

    New dropout is registered in the module next to it, and called by a hook of that module. So it follows `train()`
    and `eval()`, is copied, pickled, compiled and traced with the model, and no key of its `state_dict` changes. Where
    dropout of the same family is at the place already, its kind and rate are changed instead.

    Args:
        model: any module; not compiled or scripted.
        kind: name of a layer of `dropkit.nn` that takes `p`, or a class; "auto" for channel dropout on feature maps and
            `Dropout` elsewhere. "FeedForward" runs each feed-forward block (linear layer, activation, linear layer)
            without the hidden units that are dropped for the whole batch, wherever `place` is. Blocks outside of a
            Sequential are found by what their module computes from random numbers. None for `Dropout`, and for no
            change of the kind of existing layers.
        p: expected fraction dropped, in [0, 1]; or one rate for each change, in order.
        place:
            "after-activations": after each activation module but gates and the last layer;
            "before-classifier": before the last linear layer;
            "residual-branches": on the branches of residual blocks, found by `example`;
            "existing": only what drops already, and the rates inside attention and recurrent networks;
            a name or pattern of modules, or several, with "before " in front to drop before these, not after.
        example: an input of the model, for one run in evaluation mode that shows its data flow: a tensor, a tuple of
            arguments or a dict of keyword arguments. Without, modules are taken to run in the order of registration.
        before_batch_norm: also where a batch norm comes later, which then normalises by a variance that evaluation
            does not have. `DropPath` is put there in any case.
        dry_run: return the plan and change nothing.

    Returns:
        The changes; print it for a line each, and for what was left and why.

    Raises:
        TypeError: `model` is not a module.
        ValueError: `kind` is no such layer, `p` is not in [0, 1] or has another length than the changes, `place` fits
            nothing in the model, or "residual-branches" comes without `example`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> print(dropkit.retrofit(model, p=0.2))
        after 1: Dropout(p=0.2, inplace=False)
        >>> print(dropkit.retrofit(model, "AlphaDropout", 0.1, "existing"))
        1.dropout_after: Dropout(p=0.2, inplace=False) -> AlphaDropout(p=0.1, inplace=False)
    """
    found = Model(checked_model(model), example)
    rates: Sequence[float] = list(p) if isinstance(p, Sequence) else [p]
    for rate in rates:
        check_probability(rate)
    choose = None if kind is None or kind == "FeedForward" else _chooser(found, kind)
    if kind == "FeedForward":
        steps = _batchwise(found)
    elif place == "existing":
        steps = _existing(found, choose)
    else:
        places = find_places(found, place)
        steps = list(filter(None, (_step(found, spot, choose, before_batch_norm) for spot in places)))
        # Of places that come to the same, as before and after a dropout layer, the first counts.
        steps = list({(step.module, step.action, step.attribute): step for step in reversed(steps)}.values())[::-1]
    if isinstance(p, Sequence):
        check("p", len(p) == len(steps), f"one rate, or one for each of the {len(steps)} changes", f"{len(p)} rates")
    else:
        rates = [p] * len(steps)
    changes = [step.take(rate, dry_run) for step, rate in zip(steps, rates, strict=True)]
    return Changes(changes, found.left)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One change before its rate is known: `attribute` holds the rate of what is there, `kind` is the new class.

    `block` is the feed-forward block of a module that is no Sequential.
    """

    name: str
    module: nn.Module
    action: str
    attribute: str = ""
    kind: type[nn.Module] | None = None
    block: Block | None = None

    def take(self, rate: float, dry_run: bool) -> Retrofitted:
        if self.action == "batchwise":
            name = type(self.module).__name__
            if not dry_run and self.block is None:
                self.module.__class__ = BatchwiseSequential
                setattr(self.module, "p", rate)  # noqa: B010 (the class is known only from here on)
            elif not dry_run and self.block is not None:
                make_batchwise(self.module, self.block, rate)
            return Retrofitted(self.name, "changed", name, f"{'' if self.block else 'Batchwise'}{name}(p={rate})")
        if self.action != "changed":
            assert self.kind is not None  # for pyright
            dropout = _make(self.kind, rate)
            if not dry_run:
                attach(self.module, self.action, dropout)
            return Retrofitted(self.name, self.action, "", described(dropout))
        old = self._text(self.module)
        # A dry run changes a shallow copy.
        module = copy.copy(self.module) if dry_run else self.module
        if self.kind is None:
            setattr(module, self.attribute, rate)
        else:
            example: Any = _make(self.kind, rate)
            if hasattr(example, "inplace"):
                example.inplace = getattr(module, "inplace", False)
            become(module, example)
        return Retrofitted(self.name, self.action, old, self._text(module))

    def _text(self, module: nn.Module) -> str:
        if not _only_drops(module):
            return f"{self.attribute}={getattr(module, self.attribute)}"
        return described(module)


def _batchwise(found: Model) -> list[_Step]:
    """Feed-forward blocks that are to drop hidden units for the whole batch, or do so at another rate."""
    sequential = blocks(found.model)
    others = find_blocks(found.model, sequential)
    new: dict[nn.Module, Block | None] = dict.fromkeys(sequential)
    new.update({other.module: other.block for other in others if isinstance(other.block, Block)})
    steps: list[_Step] = []
    for module, name in found.names.items():
        if isinstance(module, (BatchwiseSequential, BatchwiseBlock)):
            steps.append(_Step(name, module, "changed", "p"))
        elif module in new:
            steps.append(_Step(name, module, "batchwise", block=new[module]))
    inside = {inner for step in steps for inner in step.module.modules()}
    reasons = {other.module: other.block for other in others if isinstance(other.block, str)}
    for module, name in found.names.items():
        reason = reasons.get(module, "it is in no module that computes a feed-forward block and nothing else")
        if module in reasons or (is_product(module) and module not in inside):
            found.left.append(Left(name, reason))
            inside.update(module.modules())
    return steps


def _step(found: Model, place: Place, choose: _Choose | None, with_norms: bool) -> _Step | None:
    """What to do at one place, or None, with the reason in `found.left`."""
    if place.site is not None and (choose is None or not isinstance(place.module, RATE_HOLDERS)):
        return _change(found, place.site, choose, is_named=True)
    module = _host(place)
    name = found.names[module]
    new = layers.Dropout if choose is None else choose(module, place.is_before)
    there = _dropout_at(found, Place(module, place.is_before), is_drop_path_class(new))
    if there is not None:
        return _change(found, there, choose, is_named=False)
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        found.left.append(Left(name, "it runs the modules in it by itself; name one of these"))
        return None
    if not with_norms and not is_drop_path_class(new) and found.is_before_batch_norm(module):
        found.left.append(Left(name, "a batch norm comes later; before_batch_norm=True drops all the same"))
        return None
    return _Step(name, module, "before" if place.is_before else "after", kind=new)


def _existing(found: Model, choose: _Choose | None) -> list[_Step]:
    steps: list[_Step] = []
    for site in found.sites:
        if site.is_layer:
            step = _change(found, site, choose, is_named=False)
            steps += [] if step is None else [step]
        else:
            reason = "a rate that the model may pass to a function; change it by this name as `place`"
            found.left.append(Left(site.name, reason))
    for module, name in found.names.items():
        if isinstance(module, nn.RNNBase) and module.num_layers == 1:
            found.left.append(Left(name, f"{type(module).__name__} drops between layers, and has one"))
        elif drops(module) and rate_attribute(module) is None:
            found.left.append(Left(name, f"no attribute of {full_name(type(module))} is known as its rate"))
    return steps


def _change(found: Model, site: Site, choose: _Choose | None, is_named: bool) -> _Step | None:
    """Change what drops already: its rate, and its kind if one is asked for and it does nothing but drop."""
    module, new = site.module, None
    if choose is not None and _only_drops(module):
        new = choose(module, False)
        if not is_named and is_drop_path(module) != is_drop_path_class(new):
            reason = f"{type(module).__name__} and {new.__name__} do not stand for each other; name it to replace it"
            found.left.append(Left(site.name, reason))
            return None
        # dropkit's class is equal to torch's. (ruff would have classes compared by identity.)
        new = None if new == type(module) else new  # noqa: E721
    if new is not None and not _is_replaceable(module):
        reason = f"its kind: dropkit does not know what else {full_name(type(module))} does"
        found.left.append(Left(site.name, reason))
        new = None
    return _Step(site.name, module, "changed", site.attribute, new)


def _dropout_at(found: Model, place: Place, drops_paths: bool) -> Site | None:
    """What drops at a place already: the module itself, one registered there, or one next to it in its parent."""
    module, beside = place.module, found.neighbour(place)
    sides = (BEFORE, AFTER) if place.is_before else (AFTER, BEFORE)
    for candidate in (getattr(module, sides[0], None), module, beside, getattr(beside, sides[1], None)):
        if isinstance(candidate, nn.Module) and _only_drops(candidate) and is_drop_path(candidate) == drops_paths:
            return next((site for site in found.sites if site.module is candidate), None)
    return None


def _host(place: Place) -> nn.Module:
    """The module that holds the dropout. A Sequential would run it as one of its layers, so its end holds it."""
    module = place.module
    while type(module).forward is nn.Sequential.forward and len(module) > 0:  # pyright: ignore[reportArgumentType]
        module = list(module.children())[0 if place.is_before else -1]
    return module


def _only_drops(module: nn.Module) -> bool:
    """Whether a module does nothing but drop its input: it holds no parameters or modules of its own."""
    holds = any(name not in (AFTER, BEFORE) for name, _ in module.named_children()) or bool(module.state_dict())
    return drops(module) and not holds and not isinstance(module, (*RATE_HOLDERS, *layers.FUSED))


def _is_replaceable(module: nn.Module) -> bool:
    is_known = isinstance(module, DropoutModule) or of_torch(module) is not None
    return is_known or isinstance(of_another_library(module), DropoutModule)


def _chooser(found: Model, kind: str | type[nn.Module]) -> _Choose:
    if kind == "auto":
        return lambda module, is_before: _automatic(found, module, is_before)
    cls = _class(kind)
    return lambda module, is_before: cls


def _automatic(found: Model, module: nn.Module, is_before: bool) -> type[nn.Module]:
    """Channel dropout where the last layer with weights makes feature maps, `Dropout` elsewhere."""
    modules = list(found.names)
    at = modules.index(module)
    earlier = [] if is_before and isinstance(module, nn.Linear) else modules[at::-1]
    for layer in earlier:
        match = _MAKES_MAPS.search(type(layer).__name__)
        if match is not None:
            return _class(f"Dropout{match[1]}")
        if isinstance(layer, nn.Linear):
            break
    return layers.Dropout


def _class(kind: str | type[nn.Module]) -> type[nn.Module]:
    """The class of a layer of `dropkit.nn`, or of the user's, that is made from `p` alone and has no parameters."""
    names = {record.name: record.module for record in (*layers.LAYERS, *layers.COMPOSED)}
    cls = names.get(kind) if isinstance(kind, str) else kind
    wanted = 'the name of a layer of dropkit.nn that takes p and has no parameters, a class of such layers, or "auto"'
    hint = did_you_mean(kind, names) if isinstance(kind, str) else ""
    check("kind", isinstance(cls, type) and issubclass(cls, nn.Module), wanted, f"{kind!r}{hint}")
    assert cls is not None  # for pyright
    try:
        example = cls(p=0.5)  # pyright: ignore[reportCallIssue] (the constructor of an unknown class)
    except TypeError:
        example = None
    check("kind", example is not None and not example.state_dict(), wanted, repr(kind))
    return cls


def _make(kind: type[nn.Module], p: float) -> nn.Module:
    return kind(p=p)  # pyright: ignore[reportCallIssue] (checked by `_class`)


def is_drop_path_class(kind: type[nn.Module]) -> bool:
    """Whether layers of this class drop whole branches."""
    return issubclass(kind, layers.DropPath)
