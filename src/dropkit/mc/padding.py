"""Padding: places of outputs that do not count, from labels to ignore, attention masks and the user."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.batches import Batch
from dropkit.mc.heads import Head
from dropkit.mc.options import Valid
from dropkit.mc.results import PartialResult

# Arguments of models that tell padding, and whether they are true where outputs count.
_ARGUMENTS = {"attention_mask": True, "src_key_padding_mask": False, "key_padding_mask": False}


@dataclass(slots=True)
class Padding:
    """Finds the padding in the outputs of each batch.

    Attributes:
        valid, ignore_index: as for `predict`.
        notes: for the user.
    """

    valid: Valid | None
    ignore_index: int
    notes: list[str] = field(default_factory=list[str], init=False)

    def valid_places(self, batch: Batch, head: Head, shape: torch.Size) -> Tensor | None:
        """Return where the outputs of a head count; None for everywhere.

        Args:
            shape: of its values, (N, ...), or of its probabilities, (N, ..., classes).

        Raises:
            ValueError: what the user gave does not fit this shape.
        """
        shape = shape[:-1] if head.task == "classification" else shape
        valid = self._given(batch, shape)
        if valid is None and self.valid is None:
            valid = self._of_arguments(batch, shape)
        if head.task != "regression":
            not_ignored = self._not_ignored(head.of(batch.labels), shape)
            if not_ignored is not None:
                valid = not_ignored if valid is None else valid & not_ignored
        return valid

    def _given(self, batch: Batch, shape: torch.Size) -> Tensor | None:
        """Where the user says that outputs count."""
        if self.valid is None or self.valid is False:
            return None
        if isinstance(self.valid, str):
            check("valid", self.valid in batch.kwargs, f"an argument, of {', '.join(batch.kwargs)}", self.valid)
            given: Any = batch.kwargs[self.valid]
        elif callable(self.valid) and not isinstance(self.valid, Tensor):
            args, kwargs = batch.arguments()
            given = self.valid(*args, **kwargs)
        else:
            given = batch.valid
        given = torch.as_tensor(given).cpu() != 0
        is_prefix = given.shape == shape[: given.dim()] and given.dim() > 0
        check("valid", is_prefix, f"of shape {tuple(shape)}, or its first dimensions", tuple(given.shape))
        return _expanded(given, shape)

    def _of_arguments(self, batch: Batch, shape: torch.Size) -> Tensor | None:
        """Where the masks of padding say that outputs count, if outputs have their shape."""
        for name, is_valid in _ARGUMENTS.items():
            mask = batch.kwargs.get(name)
            if isinstance(mask, Tensor) and mask.dim() > 1 and mask.shape == shape[: mask.dim()]:
                note = f"results are nan where {name} tells padding; valid=False keeps them"
                if note not in self.notes:
                    self.notes.append(note)
                return _expanded((mask.cpu() != 0) == is_valid, shape)
        return None

    def _not_ignored(self, labels: Any, shape: torch.Size) -> Tensor | None:
        """Where the labels are not to be ignored, if there are several for each input."""
        if not isinstance(labels, Tensor) or labels.dim() < 2 or labels.shape != shape:
            return None
        valid = labels.cpu() != self.ignore_index
        return None if bool(valid.all()) else valid


def without_padding(result: PartialResult, valid: Tensor | None) -> PartialResult:
    """Return a result with nan at padding."""
    if valid is None:
        return result
    return replace(
        result,
        measures={name: _masked(value, valid) for name, value in result.measures.items()},
        standard_error={name: _masked(value, valid) for name, value in result.standard_error.items()},
        samples=None if result.samples is None else torch.stack([_masked(sample, valid) for sample in result.samples]),
        plain=None if result.plain is None else _masked(result.plain, valid),
        valid=valid,
    )


def _expanded(valid: Tensor, shape: torch.Size) -> Tensor:
    return valid.view(*valid.shape, *(1,) * (len(shape) - valid.dim())).expand(shape)


def _masked(value: Tensor, valid: Tensor) -> Tensor:
    """Values, (N, ...), or those of classes, (N, ..., classes), with nan where they do not count."""
    return value.masked_fill(~(valid if value.dim() == valid.dim() else valid.unsqueeze(-1)), math.nan)
