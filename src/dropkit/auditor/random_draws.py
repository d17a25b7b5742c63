"""Random numbers, from the operator that draws them to the mask that they become, or to something that is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dropkit.auditor import masks
from dropkit.auditor.data_flow import Flow
from dropkit.auditor.operators import MASKS, Ran, storage
from dropkit.auditor.provenance import Chance, Ledger, Mask
from dropkit.auditor.sites import Scope, Sites
from dropkit.auditor.source_location import here
from dropkit.trace import Draw, Form, Phase, Site, Visit

_OURS = frozenset({"drop_v1", "drop_at_v1"})


class Draws:
    """What is drawn in a run, and what becomes of it."""

    def __init__(self, sites: Sites, ledger: Ledger, flow: Flow) -> None:
        self._sites, self._ledger, self._flow = sites, ledger, flow
        self._chances: list[Chance] = []

    @property
    def idle(self) -> list[Draw]:
        """What was drawn and never became a mask."""
        return [Draw(one.operator, one.place) for one in self._chances if one.visit is None]

    def spend(self, ran: Ran) -> None:
        """The time of an operator that works with a mask is that of its dropout."""
        seen = self._masks(ran)
        if seen:
            self._spend(seen[0].chance, ran.seconds)

    def see(self, ran: Ran) -> None:
        """Take note of an operator, with chance in it or without."""
        seen = self._masks(ran)
        if ran.operator.name in _OURS:
            self._ours(ran)
        elif ran.draws:
            self._drew(ran)
        elif seen:
            self._spend(seen[0].chance, ran.seconds)
            self._with_mask(ran, seen)
        else:
            self._flow.through(ran)

    def _masks(self, ran: Ran) -> list[Mask]:
        return [mask for one in ran.inputs if (mask := self._ledger.mask(one)) is not None]

    def _spend(self, by: Chance | Visit, seconds: float) -> None:
        if self._sites.phase is Phase.EVAL:
            return
        if isinstance(by, Chance) and by.visit is not None:
            by = by.visit
        by.seconds += seconds

    def _drew(self, ran: Ran) -> None:
        name = ran.operator.name
        if not ran.outputs:
            self._flow.through(ran)
            return
        if ran.rate > 0:
            self._fused(ran)
            return
        if not ran.operator.fresh and name not in ("bernoulli", "uniform"):
            self._flow.through(ran)
        chance = Chance(name, here())
        self._chances.append(chance)
        if name in MASKS:
            self._began(ran.outputs[0], Mask(chance, discrete="bernoulli" in name), self._sites.dropping)
            self._spend(chance, ran.seconds)

    def _began(self, drawn: Tensor, mask: Mask, scope: Scope | None) -> None:
        self._ledger.note(drawn, None)
        self._ledger.note_mask(drawn, mask)
        if scope is None or scope.visit is None:
            return
        visit, chance = scope.visit, mask.chance
        chance.visit, chance.site = visit, scope.site
        # A mask, or a key of ours: both decide what is dropped. Noise may come to nothing.
        visit.drew = visit.drew or mask.discrete or chance.operator == "draw_v1"
        visit.operator = chance.operator
        if mask.discrete and self._sites.phase is Phase.BACKWARD and visit.keep is None:
            # A recomputation may stop before the mask is used.
            masks.recognize(visit, drawn, 0.0)

    def _fused(self, ran: Ran) -> None:
        """A kernel that draws and drops at once. Some return the mask."""
        name, input = ran.operator.name, ran.inputs[0]
        form = Form.FUNCTION if name == "native_dropout" else Form.ATTENTION
        visit, site = self._sites.of_draw(name, form, ran.rate)
        visit.drew, visit.operator = True, name
        visit.shape = visit.shape or masks.shape_of(input)
        if name == "native_dropout":
            masks.measure(visit, ran.outputs[1], input)
            self._ledger.note_mask(ran.outputs[1], Mask(Chance(name, None, visit, site, counted=True)))
            self._flow.dropped(visit, site, input, ran.outputs[0])
        self._spend(visit, ran.seconds)

    def _ours(self, ran: Ran) -> None:
        """dropkit's operator: one key instead of a mask. The coins are those that the kernel gives to ones."""
        input, key, *rest = ran.args
        drawn = self._ledger.mask(key)
        visit, site = (drawn.chance.visit, drawn.chance.site) if drawn is not None else (None, None)
        if visit is None or site is None:
            visit, site = self._sites.of_draw("dropout")
        if not visit.drew:
            visit.drew = visit.keyed = True
        visit.operator = "drop_v1"
        visit.shape = visit.shape or masks.shape_of(input)
        ones = torch.ones_like(input.detach())
        kept = ran.overload(ones, key, *rest) != ran.overload(torch.zeros_like(ones), key, *rest)
        masks.measure(visit, masks.shared(kept, rest[-2]), input)
        self._ledger.note_mask(key, Mask(Chance("drop_v1", None, visit, site, counted=True)))
        self._flow.dropped(visit, site, input, ran.outputs[0])
        self._spend(visit, ran.seconds)

    def _with_mask(self, ran: Ran, seen: Sequence[Mask]) -> None:
        """Something computed with random numbers: a mask in the making, a mask at work, or noise."""
        operator, scope, mask = ran.operator, self._sites.dropping, seen[0]
        if scope is not None:
            # What this dropout drew itself; its input may be random, too.
            mask = next((one for one in seen if one.chance.visit is scope.visit), mask)
        own = mask.chance if scope is not None else None
        others = [one for one in ran.inputs if not self._is_chance(one, own) and self._is_value(one, ran, scope)]
        if not others or operator.compares:
            discrete = mask.discrete or operator.compares
            changed = replace(mask, discrete=discrete, independent=mask.independent and not operator.pools)
            for one in ran.outputs:
                self._ledger.note_mask(one, changed)
                self._ledger.note(one, None)
            return
        for one in ran.outputs:
            self._ledger.forget_mask(one)
        made = self._ledger.made(max(others, key=Tensor.numel))
        if ran.outputs and made is not None and made.dropped is not None and made.dropped[0] is mask.chance.visit:
            self._ledger.note(ran.outputs[0], made)
        elif not (operator.applies and mask.discrete and self._applied(ran, mask, others)):
            self._flow.through(ran)

    def _is_value(self, tensor: Tensor, ran: Ran, scope: Scope | None) -> bool:
        """Whether a tensor is what is dropped from, and no number that a mask is scaled by.

        A single element is where the mask is one too, in a dropout: its input, or what was made of it.
        """
        if tensor.numel() > 1:
            return True
        if scope is None or any(one.numel() > 1 for one in ran.inputs):
            return False
        known = scope.input is not None and storage(tensor) == storage(scope.input)
        return known or self._ledger.made(tensor) is not None

    def _is_chance(self, tensor: Tensor, chance: Chance | None) -> bool:
        """Whether a tensor is random numbers: those of `chance`, or any if that is None."""
        mask = self._ledger.mask(tensor)
        return mask is not None and (chance is None or mask.chance is chance)

    def _applied(self, ran: Ran, mask: Mask, others: Sequence[Tensor]) -> bool:
        """Take a mask at its work; false if it chooses between two things and drops neither."""
        chance = mask.chance
        keep = next(one for one in ran.inputs if self._is_chance(one, chance))
        input: Any = max(others, key=Tensor.numel)
        if ran.operator.name in ("masked_fill", "index_put"):
            if not _is_zero(ran.args[2]):
                return False
            keep = keep == 0
        elif ran.operator.name == "where":
            zero = [_is_zero(one) for one in ran.args[1:3]]
            if sum(zero) != 1:
                return False
            input, keep = (ran.args[2], keep == 0) if zero[0] else (ran.args[1], keep)
        if not isinstance(input, Tensor) or not input.is_floating_point() or not ran.outputs:
            return False
        visit, site = self._visit_of(chance)
        visit.drew = True
        if not chance.counted:
            chance.counted = True
            visit.independent = mask.independent
            masks.measure(visit, keep, input)
        self._flow.dropped(visit, site, input, ran.outputs[0])
        return True

    def _visit_of(self, chance: Chance) -> tuple[Visit, Site]:
        """Whose mask it is; of one that was drawn by hand it is known only now."""
        if chance.visit is None or chance.site is None:
            chance.visit, chance.site = self._sites.of_draw(place=chance.place)
            chance.visit.operator, chance.visit.seconds = chance.operator, chance.seconds
        return chance.visit, chance.site


def _is_zero(value: Any) -> bool:
    return not bool(value.any()) if isinstance(value, Tensor) else value == 0
