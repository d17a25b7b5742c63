"""The options of `predict`: their types, defaults and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter, Signature
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from dropkit import random
from dropkit.arguments import check, positive_int
from dropkit.mc import batches
from dropkit.mc.batches import PrepareBatch
from dropkit.mc.outputs import Labels

# How many inputs share a mask with `masks="chunk"`, which is the default for more inputs than this.
CHUNK = 2048
_BATCH = 256

Masks = Literal["input", "chunk", "shared"]
Plan = Literal["iid", "stratified"]
OutputForm = Literal["logits", "probabilities"]


class Options(TypedDict, total=False):
    """The keyword arguments of `predict`, for type checkers: the fields of `Settings`, as a test ensures."""

    masks: Masks | None
    plan: Plan
    seed: int | None
    target_standard_error: float | None
    keep_samples: bool
    outputs: OutputForm
    class_dim: int | None
    labels: Tensor | None
    output: Callable[[Any], Tensor] | None
    prepare_batch: PrepareBatch | None
    example_ids: Tensor | None
    batch_size: int
    chunk: int
    replay: bool
    thin: bool
    plain: bool
    progress: bool | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Settings:
    """The validated arguments of `predict`, which explains them, without the model and the inputs."""

    samples: int
    task: str
    masks: Masks | None = None
    plan: Plan = "iid"
    seed: int | None = None
    target_standard_error: float | None = None
    keep_samples: bool = False
    outputs: OutputForm = "logits"
    class_dim: int | None = None
    labels: Tensor | None = None
    output: Callable[[Any], Tensor] | None = None
    prepare_batch: PrepareBatch | None = None
    example_ids: Tensor | None = None
    batch_size: int = _BATCH
    chunk: int = CHUNK
    replay: bool = True
    thin: bool = True
    plain: bool = True
    progress: bool | None = None

    @staticmethod
    def of(samples: int, task: str, options: Options) -> Settings:
        """Validate the options.

        Raises:
            TypeError: an option does not exist.
            ValueError: an option is out of range.
        """
        unknown = sorted(options.keys() - set(Settings.__slots__))
        if unknown:
            raise TypeError(f"predict() got an unexpected keyword argument {unknown[0]!r}")
        return Settings(samples=samples, task=task, **options)

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "chunk"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        check("task", self.task in ("classification", "regression"), '"classification" or "regression"', self.task)
        check("plan", self.plan in ("iid", "stratified"), '"iid" or "stratified"', self.plan)
        is_valid = self.masks in (None, "input", "chunk", "shared")
        check("masks", is_valid, '"input", "chunk" or "shared"', self.masks)
        check("outputs", self.outputs in ("logits", "probabilities"), '"logits" or "probabilities"', self.outputs)
        is_integer = hasattr(self.class_dim, "__index__") and not isinstance(self.class_dim, bool)
        check("class_dim", self.class_dim is None or is_integer, "an integer or None", repr(self.class_dim))
        if self.task == "regression":
            check("class_dim", self.class_dim is None, 'None with task="regression"', self.class_dim)
            check("labels", self.labels is None, 'None with task="regression"', "labels")
        target = self.target_standard_error
        check("target_standard_error", target is None or target > 0, "larger than 0", target)
        wanted = '"iid" where target_standard_error is given: stratified samples end together'
        check("plan", target is None or self.plan == "iid", wanted, self.plan)
        object.__setattr__(self, "example_ids", _checked_ids(self.example_ids))
        if self.seed is not None:
            object.__setattr__(self, "seed", random.signed(self.seed, "seed"))

    @property
    def is_stratified(self) -> bool:
        return self.plan == "stratified"

    def group_size(self, count: int | None) -> int | None:
        """Return how many inputs share masks: None for none, 0 for all.

        Args:
            count: how many inputs there are; None if that is not known.
        """
        is_large = self.task == "classification" and count is not None and count > self.chunk
        return {"input": None, "chunk": self.chunk, "shared": 0}[self.masks or ("chunk" if is_large else "input")]

    def checked_labels(self, inputs: Any) -> Labels | None:
        """Return the labels that were given, if any.

        Raises:
            ValueError: they are not one for each input.
        """
        if self.labels is None:
            return None
        labels: Tensor = torch.as_tensor(self.labels)
        is_known = self.prepare_batch is None and batches.is_whole(inputs)
        count = batches.count(inputs) if is_known else None
        fits = labels.dim() > 0 and count in (None, len(labels))
        wanted = "one for each input" if count is None else f"one for each of {count} inputs"
        check("labels", fits, wanted, f"shape {tuple(labels.shape)}")
        return Labels.of(labels)


def signature(function: Callable[..., Any]) -> Signature:
    """Return the signature of `predict` with every option, for `help`."""
    shown = Signature.from_callable(function)
    parameters = [shown.parameters[name] for name in shown.parameters if name != "options"]
    options = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Settings)
        if field.name not in shown.parameters
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
