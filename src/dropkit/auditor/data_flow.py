"""Follow the data flow of a run: what computed the input of each dropout, and what uses its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dropkit.auditor import masks
from dropkit.auditor.operators import OperatorCall, memory_id
from dropkit.auditor.provenance import Provenance, ProvenanceTable, product
from dropkit.trace import Origin, Phase, Site, Visit


class DataFlow:
    """The data flow of one run. `owns` tells the model's parameters and buffers from activations.

    Attributes:
        factors_in_eval: numbers that tensors are multiplied by in evaluation mode.
    """

    def __init__(self, table: ProvenanceTable, owns: Callable[[Tensor], bool]) -> None:
        self._table = table
        self._owns = owns
        self.factors_in_eval: set[float] = set()
        self._phase = Phase.TRAIN
        self._outputs: list[tuple[Visit, StorageWeakRef]] = []
        # The last visit and its input: its variance is compared with that of a batch normalization's input.
        self._last: tuple[Visit, Tensor] | None = None

    def begin(self, phase: Phase, inputs: Iterable[Tensor]) -> None:
        """Note the inputs of the model."""
        self._phase = phase
        for tensor in inputs:
            self._table.set(tensor, Provenance(Origin()))

    def end(self, outputs: Iterable[Tensor]) -> None:
        """Note the outputs of the model, and the memory of masks that are still saved for backward."""
        for tensor in outputs:
            self.record_use(tensor, "output")
        for visit, nbytes in self._table.masks_in_memory():
            visit.kept_bytes += nbytes
        for visit, memory in self._outputs:
            # What is alive is used by something, even if no operator read it.
            visit.is_used = visit.is_used or not memory.expired()
        self._outputs.clear()

    def release(self) -> None:
        """Drop references to tensors."""
        self._last = None

    def record_use(self, tensor: Tensor, consumer: str) -> None:
        """Note that `consumer` reads a tensor, in case it is the output of a dropout."""
        provenance = self._table.get(tensor)
        if provenance is not None and provenance.dropped_by is not None:
            visit = provenance.dropped_by[0]
            visit.is_used = True
            if consumer not in visit.consumers:
                visit.consumers.append(consumer)

    def record_inactive(self, visit: Visit, site: Site, input: Tensor, output: Tensor) -> None:
        """Note a visit that was not active: its output equals its input."""
        provenance = self._table.get(input)
        if provenance is not None:
            visit.origin = provenance.origin
            self.record_use(input, site.kind)
            self._table.set(output, Provenance(provenance.origin, provenance.feature_stride, (visit, site)))

    def record_dropout(self, visit: Visit, site: Site, input: Tensor, output: Tensor) -> None:
        """Note that `visit` computed `output` by applying a mask to `input`."""
        visit.dtype = str(input.dtype).removeprefix("torch.")
        name = "parameter" if self._owns(input) else ""
        provenance = self._table.get(input) or Provenance(Origin(name, name))
        visit.origin = provenance.origin
        previous = provenance.dropped_by or provenance.dropped_before
        if previous is not None and previous[0].is_active:
            visit.previous = previous[1]
            visit.between = "" if provenance.dropped_by is not None else provenance.origin.last
        visit.mask_kind = visit.mask_kind or masks.kind(input)
        dim = self._table.feature_dim(input)
        if dim is not None:
            dim -= input.dim() - len(visit.mask_shape)
            visit.feature_dim = dim if dim >= 0 else None
        self.record_use(input, site.kind)
        copied = self._table.copied(input, output)
        stride = copied.feature_stride if copied is not None else None
        self._table.set(output, Provenance(Origin(site.kind, provenance.origin.layer), stride, (visit, site)))
        if memory_id(output) is not None:
            self._outputs.append((visit, StorageWeakRef(output.untyped_storage())))
        self._last = visit, input

    def record_operator(self, call: OperatorCall) -> None:
        """Note an operator that uses no random numbers: its inputs are used, and it computed its outputs."""
        inputs, outputs, operator = call.inputs, call.outputs, call.operator
        if not inputs or not outputs:
            for tensor in inputs:
                self.record_use(tensor, operator.layer)
            for tensor in outputs:
                self._table.set(tensor, None)
            return
        new = [output for output in outputs if not any(_shares_memory(output, input) for input in inputs)]
        if operator.written:
            new = outputs
        elif not new:
            return  # a view
        if operator.is_copy or (operator.name in ("mul", "div", "neg") and _has_at_most_one_array(inputs)):
            self._record_copy(call, new)
        else:
            self._record_layer(call, new)

    def _record_copy(self, call: OperatorCall, new: Sequence[Tensor]) -> None:
        """Note a copy or a multiplication by a number."""
        inputs, operator = call.inputs, call.operator
        source = next((tensor for tensor in inputs if tensor.dim() > 0), inputs[0])
        if operator.name == "copy" and len(inputs) > 1:
            source = inputs[1]
        for tensor in inputs:
            if tensor is not source and operator.name != "copy":
                self.record_use(tensor, operator.layer)
        factor = 1.0 if operator.is_copy else call.factor
        if factor is not None and self._phase is Phase.EVAL:
            self.factors_in_eval.add(factor)
        for tensor in new:
            provenance = self._table.copied(source, tensor)
            self._table.set(tensor, provenance and _multiplied(provenance, factor))

    def _record_layer(self, call: OperatorCall, new: Sequence[Tensor]) -> None:
        inputs, operator, output = call.inputs, call.operator, call.outputs[0]
        activations = [tensor for tensor in inputs if not self._owns(tensor)] or list(inputs)
        label = operator.label(call.args, output)
        if label == "add" and len(activations) == 1 and len(inputs) == 2:
            # A bias.
            self._table.set(output, self._table.copied(activations[0], output))
            return
        for tensor in () if operator.reads_shape_only else activations:
            self._measure_variance(label, tensor)
            self.record_use(tensor, label)
        if label == "add" and len(activations) == 2 and _shares_memory(*activations):
            self._record_sum_with_itself(activations[0])
        provenance = self._table.after(operator, call.args, activations, output)
        for tensor in new:
            self._table.set(tensor, provenance)

    def _measure_variance(self, label: str, input: Tensor) -> None:
        """Compare the variance of batch normalization's input with that before the dropout."""
        provenance = self._table.get(input)
        if self._last is None or provenance is None or provenance.dropped_by is None:
            return
        visit, before = self._last
        is_last = visit is provenance.dropped_by[0] and before.numel() == input.numel() and before.dim() >= 2
        if is_last and label.startswith("BatchNorm"):
            visit.variance_ratio = _variance_ratio(before.reshape(input.shape), input)

    def _record_sum_with_itself(self, input: Tensor) -> None:
        """Note the sum of a tensor and an in-place dropout of it, which are the same tensor."""
        provenance = self._table.get(input)
        if provenance is not None and provenance.dropped_by is not None:
            visit = provenance.dropped_by[0]
            visit.is_added_to_itself = visit.is_added_to_itself or (visit.inplace and visit.is_active)


def _multiplied(provenance: Provenance, factor: float | None) -> Provenance:
    """The provenance of a multiple; a dropout that is multiplied scales what it keeps."""
    if provenance.dropped_by is not None:
        visit = provenance.dropped_by[0]
        visit.factor = product(visit.factor, factor)
    return replace(provenance, factor=product(provenance.factor, factor))


def _shares_memory(left: Tensor, right: Tensor) -> bool:
    key = memory_id(left)
    return key is not None and key == memory_id(right)


def _has_at_most_one_array(inputs: Sequence[Tensor]) -> bool:
    """Whether at most one input has dimensions: the others are numbers."""
    return sum(tensor.dim() > 0 for tensor in inputs) <= 1


def _variance_ratio(before: Tensor, after: Tensor) -> float | None:
    """Return the ratio of variances, median over channels; None if no channel varies."""
    dims = [dim for dim in range(before.dim()) if dim != 1]
    first, second = before.detach().float().var(dims), after.detach().float().var(dims)
    varies = first > 0
    return float((second[varies] / first[varies]).median()) if bool(varies.any()) else None
