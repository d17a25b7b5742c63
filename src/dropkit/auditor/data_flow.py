"""Where data comes from and goes to: what stands before each dropout, what uses its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dropkit.auditor.operators import Ran, storage
from dropkit.auditor.provenance import Ledger, Made
from dropkit.trace import Origin, Site, Visit


class Flow:
    """The ways of one run's data. `is_own` tells the model's parameters and buffers from what flows."""

    def __init__(self, ledger: Ledger, is_own: Callable[[Tensor], bool]) -> None:
        self._ledger = ledger
        self._is_own = is_own
        self._results: list[tuple[Visit, StorageWeakRef]] = []
        # The last input that was dropped from, for batch normalization to compare with.
        self._last: tuple[Visit, Tensor] | None = None

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """These tensors are the caller's."""
        for tensor in inputs:
            self._ledger.note(tensor, Made(Origin()))

    def end(self, outputs: Iterable[Tensor]) -> None:
        """These tensors are what the model returned; what is still held of the masks is held for backward."""
        for tensor in outputs:
            self.use(tensor, "output")
        for visit, held in self._ledger.kept():
            visit.kept_bytes += held
        for visit, memory in self._results:
            # Somebody has it, though no operator saw it.
            visit.used = visit.used or not memory.expired()
        self._results.clear()

    def forget(self) -> None:
        """Let go of tensors."""
        self._last = None

    def use(self, tensor: Tensor, label: str) -> None:
        """`label` reads a tensor, which may be what a dropout left."""
        made = self._ledger.made(tensor)
        if made is not None and made.dropped is not None:
            visit = made.dropped[0]
            visit.used = True
            if label not in visit.before:
                visit.before.append(label)

    def passed(self, visit: Visit, site: Site, input: Tensor, output: Tensor) -> None:
        """A visit that dropped nothing: what went in came out."""
        made = self._ledger.made(input)
        if made is not None:
            visit.origin = made.origin
            self.use(input, site.kind)
            self._ledger.note(output, Made(made.origin, made.feature_stride, (visit, site)))

    def dropped(self, visit: Visit, site: Site, input: Tensor, output: Tensor) -> None:
        """`output` is what `visit` left of `input`."""
        visit.dtype, visit.device = str(input.dtype).removeprefix("torch."), input.device.type
        held = "parameter" if self._is_own(input) else ""
        made = self._ledger.made(input) or Made(Origin(held, held))
        visit.origin = made.origin
        visit.follows = made.dropped[1] if made.dropped is not None and made.dropped[0].drew else None
        dim = self._ledger.feature_dim(input)
        if dim is not None:
            dim -= input.dim() - len(visit.unit)
            visit.feature_dim = dim if dim >= 0 else None
        self.use(input, site.kind)
        copied = self._ledger.copied(input, output)
        stride = copied.feature_stride if copied is not None else None
        self._ledger.note(output, Made(Origin(site.kind, made.origin.layer), stride, (visit, site)))
        if storage(output) is not None:
            self._results.append((visit, StorageWeakRef(output.untyped_storage())))
        self._last = visit, input

    def through(self, ran: Ran) -> None:
        """An operator without chance: what it reads is used, what it makes is known by its name."""
        inputs, outputs, operator = ran.inputs, ran.outputs, ran.operator
        if not inputs or not outputs:
            for one in inputs:
                self.use(one, operator.layer)
            for one in outputs:
                self._ledger.note(one, None)
            return
        new = [one for one in outputs if not any(_same(one, other) for other in inputs)]
        if operator.written:
            new = outputs
        elif not new:
            return  # a view
        if operator.copies or (operator.name in ("mul", "div", "neg") and _alone(inputs)):
            source = next((one for one in inputs if one.dim() > 0), inputs[0])
            if operator.name == "copy" and len(inputs) > 1:
                source = inputs[1]
            for one in inputs:
                if one is not source and operator.name != "copy":
                    self.use(one, operator.layer)
            for one in new:
                self._ledger.note(one, self._ledger.copied(source, one))
            return
        self._through_layer(ran, new)

    def _through_layer(self, ran: Ran, new: Sequence[Tensor]) -> None:
        inputs, operator = ran.inputs, ran.operator
        flowing = [one for one in inputs if not self._is_own(one)] or list(inputs)
        label = operator.label(ran.args, ran.outputs[0])
        if label == "add" and len(flowing) == 1 and len(inputs) == 2:
            # A bias.
            self._ledger.note(ran.outputs[0], self._ledger.copied(flowing[0], ran.outputs[0]))
            return
        for one in () if operator.fresh else flowing:
            self._normalized(label, one)
            self.use(one, label)
        if label == "add" and len(flowing) == 2 and _same(*flowing):
            self._added_to_itself(flowing[0])
        made = self._ledger.follow(operator, ran.args, flowing, ran.outputs[0])
        for one in new:
            self._ledger.note(one, made)

    def _normalized(self, label: str, input: Tensor) -> None:
        made = self._ledger.made(input)
        if self._last is None or made is None or made.dropped is None or not label.startswith("BatchNorm"):
            return
        visit, before = self._last
        if visit is made.dropped[0] and before.numel() == input.numel() and before.dim() >= 2:
            visit.variance = _ratio(before.reshape(input.shape), input)

    def _added_to_itself(self, input: Tensor) -> None:
        """The sum of a tensor and what was dropped from it in place: both are the same."""
        made = self._ledger.made(input)
        if made is not None and made.dropped is not None and made.dropped[0].inplace and made.dropped[0].drew:
            made.dropped[0].aliased = True


def _same(one: Tensor, other: Tensor) -> bool:
    key = storage(one)
    return key is not None and key == storage(other)


def _alone(inputs: Sequence[Tensor]) -> bool:
    """Whether a tensor meets numbers only."""
    return sum(one.dim() > 0 for one in inputs) <= 1


def _ratio(before: Tensor, after: Tensor) -> float | None:
    """The median over channels of how the variance changed."""
    dims = [dim for dim in range(before.dim()) if dim != 1]
    first, second = before.detach().float().var(dims), after.detach().float().var(dims)
    known = first > 0
    return float((second[known] / first[known]).median()) if bool(known.any()) else None
