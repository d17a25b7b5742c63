"""Follow random numbers of a run from the operator that draws them to the mask that they become, if they do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dropkit.auditor import masks
from dropkit.auditor.data_flow import DataFlow
from dropkit.auditor.operators import MASK_SOURCES, OperatorCall, memory_id
from dropkit.auditor.provenance import ProvenanceTable, RandomDraw, RandomTensor, product
from dropkit.auditor.sites import Scope, SiteTable
from dropkit.auditor.source_location import calling_line
from dropkit.catalog import LAYER_DROP
from dropkit.trace import Form, Phase, Place, RandomOperation, Site, Visit

# dropkit's operators: elementwise, and of one shard.
_DROPKIT = frozenset({"drop_v1", "drop_at_v1"})

# Operators that give Python a value.
_READERS = frozenset({"_local_scalar_dense", "is_nonzero"})


class RandomDraws:
    """The random numbers of a run and their use.

    Attributes:
        choices: by name of a module the line that drew a random number which Python read in training.
        indirect: visits that drop from something else than their input, and so may compute their mask from it.
    """

    def __init__(self, sites: SiteTable, table: ProvenanceTable, flow: DataFlow) -> None:
        self._sites, self._table, self._flow = sites, table, flow
        self.choices: dict[str, Place | None] = {}
        self.indirect: list[Visit] = []
        self._draws: list[RandomDraw] = []
        # A draw may become a mask, and get a visit, after it has taken time.
        self._timed: list[tuple[RandomDraw | Visit, int]] = []

    def other(self, sites: Collection[Site]) -> list[RandomOperation]:
        """Draws that did not become a mask, nor skipped layers, which some sites are."""
        skips = {site.place for site in sites if site.kind == LAYER_DROP and site.place is not None}
        # A key may be folded into others, which alone are used.
        draws = (draw for draw in self._draws if draw.visit is None and draw.operator != "draw_v1")
        others = (draw for draw in draws if draw.place not in skips)
        return [RandomOperation(draw.operator, draw.place) for draw in others]

    def read(self, tensor: Tensor) -> None:
        """Note that Python reads values of a tensor."""
        random = self._table.get_random(tensor)
        if random is not None and self._sites.phase is Phase.TRAIN:
            self.choices[random.draw.owner] = random.draw.place

    @property
    def timed(self) -> Iterator[tuple[Visit, int]]:
        """Visits, and numbers of the operators whose time is theirs."""
        for owner, number in self._timed:
            visit = owner if isinstance(owner, Visit) else owner.visit
            if visit is not None:
                yield visit, number

    def record_backward(self, call: OperatorCall) -> None:
        """Add the time of an operator that reads a mask to its dropout."""
        random = self._random_inputs(call)
        if random:
            self._add_time(random[0].draw, call)

    def record_forward(self, call: OperatorCall) -> None:
        """Note an operator, random or not."""
        random = self._random_inputs(call)
        if call.operator.name in _DROPKIT:
            self._record_dropkit_operator(call)
        elif call.operator.name == "noise_v1":
            self._record_noise(call)
        elif call.is_random:
            self._record_draw(call)
        elif random:
            if call.operator.name in _READERS:
                self.read(call.inputs[0])
            self._add_time(random[0].draw, call)
            self._record_use(call, random)
        else:
            self._flow.record_operator(call)

    def _random_inputs(self, call: OperatorCall) -> list[RandomTensor]:
        return [random for tensor in call.inputs if (random := self._table.get_random(tensor)) is not None]

    def _add_time(self, owner: RandomDraw | Visit, call: OperatorCall) -> None:
        if call.number is not None:
            self._timed.append((owner, call.number))

    def _record_draw(self, call: OperatorCall) -> None:
        """Note an operator that drew random numbers."""
        name = call.operator.name
        if not call.outputs:
            self._flow.record_operator(call)
            return
        if call.rate > 0:
            self._record_fused_kernel(call)
            return
        if not call.operator.reads_shape_only and name not in ("bernoulli", "uniform"):
            self._flow.record_operator(call)
        draw = RandomDraw(name, calling_line(), owner=self._sites.owner)
        self._draws.append(draw)
        if name in MASK_SOURCES:
            self._start_mask(call.outputs[0], RandomTensor(draw, is_discrete="bernoulli" in name), self._sites.dropping)
            self._add_time(draw, call)

    def _start_mask(self, drawn: Tensor, random: RandomTensor, scope: Scope | None) -> None:
        """Note random numbers that may become a mask."""
        self._table.set(drawn, None)
        self._table.set_random(drawn, random)
        if scope is None or scope.visit is None:
            return
        visit, draw = scope.visit, random.draw
        draw.visit, draw.site = visit, scope.site
        # A mask or a key decides what is dropped; continuous numbers may never become a mask.
        visit.is_active = visit.is_active or random.is_discrete or draw.operator == "draw_v1"
        if random.is_discrete and self._sites.phase is Phase.BACKWARD and visit.mask_start is None:
            # Recomputation may stop before the mask is applied.
            masks.note_start(visit, drawn, 0.0)

    def _record_fused_kernel(self, call: OperatorCall) -> None:
        """Note a kernel that draws and applies a mask in one operator; some return the mask."""
        name, input = call.operator.name, call.inputs[0]
        form = Form.FUNCTION if name == "native_dropout" else Form.ATTENTION
        visit, site = self._sites.visit_of_draw(name, form, call.rate)
        visit.is_active = True
        visit.shape = visit.shape or masks.shape_of(input)
        if name == "native_dropout":
            output, mask = call.outputs[:2]
            masks.count(visit, mask, input)
            self._table.set_random(mask, RandomTensor(RandomDraw(name, None, visit, site, is_counted=True)))
            self._flow.record_dropout(visit, site, input, output)
        self._add_time(visit, call)

    def _record_dropkit_operator(self, call: OperatorCall) -> None:
        """Note dropkit's operator, which takes a key and no mask: the mask is what the kernel does to ones."""
        input, key, *rest = call.args
        random = self._table.get_random(key)
        visit, site = (random.draw.visit, random.draw.site) if random is not None else (None, None)
        if visit is None or site is None:
            visit, site = self._sites.visit_of_draw("dropout")
        if not visit.is_active:
            visit.is_active = visit.has_given_key = True
        visit.shape = visit.shape or masks.shape_of(input)
        scope = self._sites.dropping
        if scope is not None and scope.input is not None and memory_id(input) != memory_id(scope.input):
            self.indirect.append(visit)
        ones = torch.ones_like(input.detach())
        keep = call.overload(ones, key, *rest) != call.overload(torch.zeros_like(ones), key, *rest)
        masks.count(visit, masks.without_shared(keep, rest[-2]), input)
        self._table.set_random(key, RandomTensor(RandomDraw("drop_v1", None, visit, site, is_counted=True)))
        self._flow.record_dropout(visit, site, input, call.outputs[0])
        self._add_time(visit, call)

    def _record_noise(self, call: OperatorCall) -> None:
        """Note dropkit's operator that computes with a key's random numbers: noise, or numbers for a relaxed mask."""
        input, key, *_ = call.args
        scope, random = self._sites.dropping, self._table.get_random(key)
        if scope is None or scope.visit is None or scope.site is None or scope.input is None:
            self._flow.record_operator(call)
            return
        visit, site = scope.visit, scope.site
        if random is None:
            visit.is_active = visit.has_given_key = True
            random = RandomTensor(RandomDraw("noise_v1", None, visit, site), is_discrete=False)
        if memory_id(input) == memory_id(scope.input):
            self._flow.record_dropout(visit, site, input, call.outputs[0])
        else:
            self._continue_mask(call, random)
        self._add_time(visit, call)

    def _record_use(self, call: OperatorCall, random: Sequence[RandomTensor]) -> None:
        """Note an operator that reads random numbers: it computes a mask, applies one, or adds noise."""
        operator, scope, mask = call.operator, self._sites.dropping, random[0]
        if scope is not None:
            # The input of this dropout may be random, too: prefer its own draw.
            mask = next((item for item in random if item.draw.visit is scope.visit), mask)
        own_draw = mask.draw if scope is not None else None
        data = [x for x in call.inputs if not self._is_from(x, own_draw) and self._is_data(x, call, scope)]
        if not data or operator.is_threshold:
            self._continue_mask(call, mask)
            return
        for output in call.outputs:
            self._table.discard_random(output)
        provenance = self._table.get(max(data, key=Tensor.numel))
        dropped_by = provenance.dropped_by if provenance is not None else None
        if call.outputs and dropped_by is not None and dropped_by[0] is mask.draw.visit:
            # A further step of the same dropout, such as scaling by what its mask keeps.
            dropped_by[0].factor = None
            self._table.set(call.outputs[0], provenance)
        elif not (operator.can_apply_mask and self._record_application(call, mask, data)):
            self._flow.record_operator(call)

    def _continue_mask(self, call: OperatorCall, mask: RandomTensor) -> None:
        """Note that the outputs are computed from random numbers alone."""
        operator = call.operator
        is_discrete = mask.is_discrete or operator.is_threshold
        is_independent = mask.is_independent and not operator.is_pooling
        for output in call.outputs:
            self._table.set_random(output, replace(mask, is_discrete=is_discrete, is_independent=is_independent))
            self._table.set(output, None)

    def _is_data(self, tensor: Tensor, call: OperatorCall, scope: Scope | None) -> bool:
        """Whether a tensor is what a mask is applied to, and not a number that the mask is scaled by.

        A single element is data only in a dropout whose mask has one element too: its input, or computed from that.
        """
        if tensor.numel() > 1:
            return True
        if scope is None or any(input.numel() > 1 for input in call.inputs):
            return False
        is_input = scope.input is not None and memory_id(tensor) == memory_id(scope.input)
        return is_input or self._table.get(tensor) is not None

    def _is_from(self, tensor: Tensor, draw: RandomDraw | None) -> bool:
        """Whether a tensor is computed from random numbers: those of `draw`, or any if that is None."""
        random = self._table.get_random(tensor)
        return random is not None and (draw is None or random.draw is draw)

    def _record_application(self, call: OperatorCall, mask: RandomTensor, data: Sequence[Tensor]) -> bool:
        """Note that a mask is applied; return False if the operator selects between two values and drops neither."""
        draw = mask.draw
        if not mask.is_discrete:
            return self._record_factors(call, draw, data)
        keep = next(tensor for tensor in call.inputs if self._is_from(tensor, draw))
        factor = {"mul": masks.factor(keep), "div": None}.get(call.operator.name, 1.0)
        input: Any = max(data, key=Tensor.numel)
        if call.operator.name in ("masked_fill", "index_put"):
            if not _is_zero(call.args[2]):
                return False
            keep = keep == 0
        elif call.operator.name == "where":
            zero = [_is_zero(choice) for choice in call.args[1:3]]
            if sum(zero) != 1:
                return False
            input, keep = (call.args[2], keep == 0) if zero[0] else (call.args[1], keep)
        if not isinstance(input, Tensor) or not input.is_floating_point() or not call.outputs:
            return False
        visit, site = self._visit_of(draw)
        visit.is_active = True
        before = self._table.get(input)
        visit.factor = product(factor, before.factor if before is not None else None)
        if not draw.is_counted:
            draw.is_counted = True
            visit.is_independent = mask.is_independent
            masks.count(visit, keep, input)
        self._flow.record_dropout(visit, site, input, call.outputs[0])
        return True

    def _record_factors(self, call: OperatorCall, draw: RandomDraw, data: Sequence[Tensor]) -> bool:
        """Note that the relaxed mask of a dropout function is applied; return False if it is other noise."""
        scope = self._sites.dropping
        is_own = scope is not None and scope.visit is draw.visit and draw.operator in ("draw_v1", "noise_v1")
        if not is_own or draw.visit is None or draw.site is None:
            return False
        self._flow.record_dropout(draw.visit, draw.site, max(data, key=Tensor.numel), call.outputs[0])
        return True

    def _visit_of(self, draw: RandomDraw) -> tuple[Visit, Site]:
        """Return the visit that a mask belongs to; a mask computed by hand gets a visit when it is applied."""
        if draw.visit is None or draw.site is None:
            draw.visit, draw.site = self._sites.visit_of_draw(place=draw.place)
        return draw.visit, draw.site


def _is_zero(value: Any) -> bool:
    return not bool(value.any()) if isinstance(value, Tensor) else value == 0
