"""Heads: the outputs of a model for which `predict` makes a prediction each, with the task of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.accumulators import Accumulator
from dropkit.mc.batches import Batch
from dropkit.mc.measures import measures_of
from dropkit.mc.options import Settings
from dropkit.mc.output_calls import OutputCall
from dropkit.mc.outputs import Classes, Labels, check_rows, class_counts, values_and_noise
from dropkit.mc.prediction import KINDS
from dropkit.mc.returned import VARIANCES, Reader

# The only head of a model, which has no name.
Name = str | int | None


@dataclass(slots=True)
class Head:
    """One output of the model.

    Attributes:
        name: the entry, attribute or index of what the model returns.
        task: "classification", "multilabel" or "regression".
        reader: finds the output in what the model returns.
        classes: what is known about the dimension of classes.
        labels: the labels of all inputs, if they were given.
        call: the call that made the last output, if it is known.
        class_count, dimensions: how many classes and dimensions the outputs had so far.
    """

    name: Name
    task: str
    reader: Reader
    classes: Classes
    labels: Labels | None
    call: OutputCall | None = None
    class_count: int | None = field(default=None, init=False)
    dimensions: int | None = field(default=None, init=False)

    def accumulator(self, batch: Batch, settings: Settings) -> Accumulator:
        """Return the sums over the samples of a batch."""
        known = measures_of(KINDS[self.task])
        if self.task == "regression":
            variance = VARIANCES.get(self.classes.form)
            known = {name: measure for name, measure in known.items() if variance is not None or not measure.needs}
            return Accumulator(settings, known, partial(values_and_noise, variance=variance))
        if self.task == "multilabel":
            return Accumulator(settings, known, lambda outputs: self.classes.label_probabilities(outputs, self.call))
        classes = self.classes_in(batch, settings)
        return Accumulator(
            settings,
            known,
            lambda outputs: self._with_positions(classes).probabilities(outputs),
            lambda outputs: self._check_count(self._with_positions(classes).check(outputs, self.call)),
        )

    def values(self, batch: Batch, settings: Settings, output: Tensor) -> Tensor:
        """Return the probabilities or values of one pass, from its output."""
        return self.accumulator(batch, settings).of_pass(output).cpu()

    def classes_in(self, batch: Batch, settings: Settings) -> Classes:
        """What is known about the classes in the outputs of a batch."""
        tokens = batch.token_shapes() if settings.output is None else frozenset[tuple[int, ...]]()
        labels = self.labels or Labels.of(self.of(batch.labels))
        return self._with_positions(replace(self.classes, labels=labels, tokens=tokens))

    def _with_positions(self, classes: Classes) -> Classes:
        """Of classes that are positions of an answer, which is not known before the first pass."""
        return replace(classes, dim=-1) if self.reader.is_span and classes.dim is None else classes

    def of(self, value: Any) -> Any:
        """What belongs to this head, of a value that may have an entry for each."""
        if self.name is None:
            return value
        if isinstance(value, Mapping):
            return cast("Mapping[Any, Any]", value).get(self.name)
        if (
            isinstance(value, (tuple, list))
            and isinstance(self.name, int)
            and self.name < len(cast("list[Any]", value))
        ):
            return cast("list[Any]", value)[self.name]
        return None

    def check_shape(self, output: Tensor, count: int) -> None:
        """Raise an error unless there is a row for each input, and as many dimensions in every batch."""
        check_rows(output, count)
        if self.dimensions not in (None, output.dim()):
            raise ValueError(
                f"the model must return as many dimensions for every batch, got {self.dimensions} and {output.dim()}"
            )
        self.dimensions = output.dim()

    def _check_count(self, count: int) -> None:
        """Raise an error where batches differ in their number of classes, before more work is done."""
        # Answers are spans of positions, and batches may differ in length.
        if self.class_count not in (None, count) and not self.reader.is_span:
            wanted = "a dimension of the same size in every batch"
            check("class_dim", False, wanted, f"{self.class_count} classes in one batch and {count} in another")
        self.class_count = count


def heads_of(settings: Settings, model: nn.Module, inputs: Any) -> list[Head]:
    """Return the heads of a model, for what `task` names."""
    counts = class_counts(model)
    tasks: Mapping[Any, str] = settings.task if isinstance(settings.task, Mapping) else {None: settings.task}
    heads: list[Head] = []
    for name, task in tasks.items():
        dim, form = settings.of_head("class_dim", name), settings.of_head("outputs", name)
        form = form or ("values" if task == "regression" else "logits")
        classes = Classes(form, None if dim is None else int(dim), counts)
        heads.append(Head(name, task, Reader(name, form, dim), classes, settings.checked_labels(inputs, name)))
    return heads


def notes_of(heads: list[Head]) -> list[str]:
    """Notes for the user, on outputs that were left out."""
    if not any(head.reader.ignored for head in heads):
        return []
    return ["the model returns several tensors, and the first is used: task={0: ..., 1: ...} predicts several"]
