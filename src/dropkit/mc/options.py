"""The options of `predict`: their types, defaults and validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, Signature
from typing import Any, Literal, TypedDict, cast

import torch
from torch import Tensor

from dropkit import random
from dropkit.arguments import check, positive_int
from dropkit.containers import map_leaves
from dropkit.mc import batch_stream
from dropkit.mc.batch_stream import PrepareBatch
from dropkit.mc.batches import BatchDims
from dropkit.mc.outputs import Labels
from dropkit.mc.returned import VARIANCES
from dropkit.mc.selection import MeasureNames, checked_measures

# How many inputs share a mask with `masks="chunk"`, which is the default for more inputs than this.
CHUNK = 2048
_BATCH = 256

# (N, ...), the name of an argument that holds it, or a function of the model's arguments that returns it.
Valid = Tensor | str | Callable[..., Tensor] | Literal[False]
Masks = Literal["input", "chunk", "shared"]
Plan = Literal["iid", "stratified"]
Task = Literal["classification", "multilabel", "regression"]
OutputForm = Literal["logits", "probabilities", "values", "mean_log_variance", "mean_variance", "mean_std"]
# By task; the first is the default.
FORMS: dict[str, tuple[str, ...]] = {
    "classification": ("logits", "probabilities"),
    "multilabel": ("logits", "probabilities"),
    "regression": ("values", *VARIANCES),
}
# A name of a head: an entry or attribute of what the model returns, or the index of an item.
HeadName = str | int


class PassOptions(TypedDict, total=False):
    """The keyword arguments of `propagate`, for type checkers."""

    seed: int | None
    keep_samples: bool
    measures: MeasureNames | None
    errors: bool | None
    outputs: OutputForm | Mapping[Any, OutputForm] | None
    class_dim: int | Mapping[Any, int] | None
    labels: Tensor | Mapping[Any, Tensor] | None
    ignore_index: int
    valid: Valid | None
    p: float | None
    sites: str | Sequence[str] | None
    output: Callable[[Any], Any] | None
    prepare_batch: PrepareBatch | None
    batch_dim: BatchDims
    batch_size: int
    plain: bool
    progress: bool | None


class Options(PassOptions, total=False):
    """The keyword arguments of `predict`, for type checkers: the fields of `Settings`, as a test ensures."""

    masks: Masks | None
    plan: Plan
    target_standard_error: float | None
    example_ids: Tensor | None
    chunk: int
    replay: bool
    thin: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Settings:
    """The validated arguments of `predict`, which explains them, without the model and the inputs."""

    samples: int
    task: str | Mapping[Any, str]
    masks: Masks | None = None
    plan: Plan = "iid"
    seed: int | None = None
    target_standard_error: float | None = None
    keep_samples: bool = False
    measures: MeasureNames | None = None
    errors: bool | None = None
    outputs: OutputForm | Mapping[Any, OutputForm] | None = None
    class_dim: int | Mapping[Any, int] | None = None
    labels: Tensor | Mapping[Any, Tensor] | None = None
    ignore_index: int = -100
    valid: Valid | None = None
    p: float | None = None
    sites: str | Sequence[str] | None = None
    output: Callable[[Any], Any] | None = None
    prepare_batch: PrepareBatch | None = None
    batch_dim: BatchDims = 0
    example_ids: Tensor | None = None
    batch_size: int = _BATCH
    chunk: int = CHUNK
    replay: bool = True
    thin: bool = True
    plain: bool = True
    progress: bool | None = None

    @staticmethod
    def of(
        samples: int,
        task: str | Mapping[Any, str],
        options: PassOptions,
        function: str = "predict",
        known: type[Any] = Options,
    ) -> Settings:
        """Validate the options.

        Args:
            function: which is called.
            known: the type of its options.

        Raises:
            TypeError: an option does not exist.
            ValueError: an option is out of range.
        """
        unknown = sorted(options.keys() - known.__annotations__.keys())
        if unknown:
            raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")
        return Settings(samples=samples, task=task, **options)

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "chunk"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        check("plan", self.plan in ("iid", "stratified"), '"iid" or "stratified"', self.plan)
        is_valid = self.masks in (None, "input", "chunk", "shared")
        check("masks", is_valid, '"input", "chunk" or "shared"', self.masks)
        check("task", bool(self.tasks), "of at least one head", "none")
        for name, task in self.tasks.items():
            self._check_head(name, task)
        for option in ("outputs", "class_dim", "labels"):
            value = getattr(self, option)
            unknown = (
                [name for name in cast("Any", value) if name not in self.tasks] if isinstance(value, Mapping) else []
            )
            check(option, not unknown, "by the names in task", unknown and repr(unknown[0]))
        object.__setattr__(self, "measures", checked_measures(self.measures, self.tasks.values()))
        target = self.target_standard_error
        check("target_standard_error", target is None or target > 0, "larger than 0", target)
        wanted = '"iid" where target_standard_error is given: stratified samples end together'
        check("plan", target is None or self.plan == "iid", wanted, self.plan)
        object.__setattr__(self, "example_ids", _checked_ids(self.example_ids))
        valid: Any = torch.as_tensor(self.valid) if isinstance(self.valid, (list, tuple)) else self.valid
        is_known = (
            valid is None or valid is False or isinstance(valid, str) or callable(valid) or hasattr(valid, "shape")
        )
        check("valid", is_known, "a tensor, the name of an argument, a function of the arguments or False", valid)
        object.__setattr__(self, "valid", valid)
        if self.seed is not None:
            object.__setattr__(self, "seed", random.signed(self.seed, "seed"))

    @property
    def tasks(self) -> Mapping[Any, str]:
        """The task of each head; that of the only one under None."""
        return cast("Any", self.task if isinstance(self.task, Mapping) else {None: self.task})

    def of_head(self, option: str, name: HeadName | None) -> Any:
        """Return an option of a head; with several heads it may be a mapping."""
        value = getattr(self, option)
        return cast("Mapping[Any, Any]", value).get(name) if isinstance(value, Mapping) else value

    def _check_head(self, name: HeadName | None, task: str) -> None:
        tasks = '"classification", "multilabel" or "regression"'
        is_task = isinstance(task, str) and task in FORMS
        check("task", is_task, tasks if name is None else f"{tasks} for each name", task)
        forms, form = FORMS[task], self.of_head("outputs", name)
        *others, last = (f'"{known}"' for known in forms)
        wanted = f"{', '.join(others)} or {last}"
        check("outputs", form in (None, *forms), f'{wanted} with task="{task}"', form)
        dim = self.of_head("class_dim", name)
        is_integer = hasattr(dim, "__index__") and not isinstance(dim, bool)
        check("class_dim", dim is None or is_integer, "an integer or None", repr(dim))
        if task == "regression" and name is None:
            check("class_dim", dim is None or form in VARIANCES, 'None with task="regression"', dim)
            check("labels", self.labels is None, 'None with task="regression"', "labels")

    @property
    def is_stratified(self) -> bool:
        return self.plan == "stratified"

    def group_size(self, count: int | None) -> int | None:
        """Return how many inputs share masks: None for none, 0 for all.

        Args:
            count: how many inputs there are; None if that is not known.
        """
        is_large = "regression" not in self.tasks.values() and count is not None and count > self.chunk
        return {"input": None, "chunk": self.chunk, "shared": 0}[self.masks or ("chunk" if is_large else "input")]

    def labels_and_valid(self) -> tuple[Any, Tensor | None]:
        """Return labels and places that were given as tensors, for all inputs."""
        is_tensor = hasattr(self.valid, "shape")
        labels = None if self.labels is None else map_leaves(torch.as_tensor, self.labels)
        return labels, torch.as_tensor(self.valid) if is_tensor else None

    def checked_labels(self, inputs: Any, name: HeadName | None = None) -> Labels | None:
        """Return the labels that were given, if any.

        Args:
            name: of the head.

        Raises:
            ValueError: they are not one for each input.
        """
        given = self.of_head("labels", name)
        if given is None:
            return None
        labels: Tensor = torch.as_tensor(given)
        is_known = self.prepare_batch is None and batch_stream.is_whole(inputs)
        count = batch_stream.count(inputs, self.batch_dim) if is_known else None
        fits = labels.dim() > 0 and count in (None, len(labels))
        wanted = "one for each input" if count is None else f"one for each of {count} inputs"
        check("labels", fits, wanted, f"shape {tuple(labels.shape)}")
        return Labels.of(labels)


def signature(function: Callable[..., Any], known: type[Any] = Options) -> Signature:
    """Return the signature of a function with every option of a type, for `help`."""
    shown = Signature.from_callable(function)
    parameters = [shown.parameters[name] for name in shown.parameters if name != "options"]
    options = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Settings)
        if field.name in known.__annotations__
    ]
    return shown.replace(parameters=[*parameters, *options])


def _checked_ids(ids: Any) -> Tensor | None:
    if ids is None:
        return None
    ids = torch.as_tensor(ids)
    is_integer = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    check("example_ids", ids.dim() == 1 and is_integer, "(N,) of integers", f"{tuple(ids.shape)} of {ids.dtype}")
    if len(ids):
        least, most = (int(bound) for bound in ids.aminmax())
        check("example_ids", 0 <= least <= most < 2**32, "in [0, 2**32)", f"{least} to {most}")
    return ids.long()
