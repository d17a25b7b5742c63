"""The data of a study: inputs and targets, and how they are split into training, validation and test examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from dropkit.arguments import check

Task = Literal["classification", "regression"]

# The parts of the data, in the order of their numbers in `Data.parts`.
PARTS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Inputs and targets, on the CPU.

    Attributes:
        inputs: (N, ...), any dtype that the model takes.
        targets: classes, (N,) or (N, T), int64, from 0; or values, (N,) or (N, K), floating point.
        classes: names of the classes; empty for regression.
        name: what reports call the data.
        parts: (N,), int64, the part of each example as an index of `PARTS`, where the data says it; None where all
            parts are drawn by the seed.
        is_standardised: whether inputs are centred and scaled by the training examples, for floating-point inputs and
            bytes of images.
        note: what a reader decided that the user may want otherwise, as a sentence; "" if nothing.

    Raises:
        ValueError: lengths differ, there are no examples, numbers are not finite, or a target is no class.
    """

    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...] = ()
    name: str = "data"
    parts: Tensor | None = None
    is_standardised: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        count = len(self.inputs)
        check("targets", len(self.targets) == count, f"one for each of {count} inputs", f"{len(self.targets)} targets")
        check("inputs", count >= 10, "at least 10 examples", f"{count}")
        for name, values in (("inputs", self.inputs), ("targets", self.targets)):
            if values.is_floating_point():
                bad = int((~values.isfinite()).sum())
                check(name, bad == 0, "finite numbers", f"{bad} that are NaN or infinite")
        if self.task == "classification":
            check(
                "targets", not self.targets.is_floating_point(), "integers where there are classes", self.targets.dtype
            )
            low, high = int(self.targets.min()), int(self.targets.max())
            wanted = f"classes from 0 to {len(self.classes) - 1}"
            check("targets", 0 <= low <= high < len(self.classes), wanted, f"{low} to {high}")
            check("targets", len(self.classes) >= 2, "of at least 2 classes", f"{len(self.classes)}")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def task(self) -> Task:
        """Classification where there are classes, else regression."""
        return "classification" if self.classes else "regression"

    @property
    def example(self) -> Tensor:
        """Two inputs with the shape and dtype that models are trained with."""
        return self.inputs[:2].float() if _can_standardise(self) else self.inputs[:2]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and targets of one part."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: Tensor | slice) -> Examples:
        return Examples(self.inputs[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Examples:
        """The examples on a device."""
        return Examples(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The three parts of the data for one seed.

    Attributes:
        center, scale: of the targets of a regression: `target * scale + center` is in the unit of the data. Numbers, or
            (K,) where there are K targets.
    """

    training: Examples
    validation: Examples
    test: Examples
    center: Tensor = field(default_factory=lambda: torch.zeros(()))
    scale: Tensor = field(default_factory=lambda: torch.ones(()))

    def map(self, change: Callable[[Examples], Examples]) -> Split:
        """The split with each part changed."""
        parts = {part: change(getattr(self, part)) for part in PARTS}
        return replace(self, **parts)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many examples each part has: numbers, or fractions of all if below 1.

    Attributes:
        training: None for those that are left.
        validation: used to choose the setting, and to stop early.
        test: used only to report; None for those that are left.
    """

    training: float | None = None
    validation: float = 0.2
    test: float | None = 0.2

    def counts(self, total: int) -> tuple[int, int, int]:
        """Return the numbers of training, validation and test examples of `total`.

        Raises:
            ValueError: they are more than there are, or a part has none.
        """
        training, validation, test = (
            None if size is None else round(size * total) if 0 < size < 1 else int(size)
            for size in (self.training, self.validation, self.test)
        )
        assert validation is not None  # for pyright
        if test is None:
            test = total - validation - (round(0.6 * total) if training is None else training)
        if training is None:
            training = total - validation - test
        for name, count in (("training", training), ("validation", validation), ("test", test)):
            check(f"{name} size", count >= 1, "at least 1 example", count)
        sizes = f"{training} + {validation} + {test}"
        check("sizes", training + validation + test <= total, f"at most the {total} examples there are", sizes)
        return training, validation, test


def split(data: Data, sizes: Sizes, generator: Generator) -> Split:
    """Split the data by the generator, with classes as equal as possible in each part, and standardise it.

    Parts that the data states are kept; validation examples that it does not state are drawn from the training ones.

    Raises:
        ValueError: there are not so many examples, or the data states parts and `sizes` others.
    """
    order = _order(data, generator)
    if data.parts is None:
        training, validation, test = sizes.counts(len(data))
        indices = (order[:training], order[training : training + validation], order[training + validation :][:test])
    else:
        parts = data.parts[order]
        indices = tuple(order[parts == part] for part in range(len(PARTS)))
        own = sizes.training is None and sizes.test == Sizes().test
        check("sizes", own, "left out, but for validation, where the data has parts of its own", sizes)
        if not len(indices[1]):
            count = sizes.validation
            count = round(count * len(indices[0])) if count < 1 else int(count)
            check(
                "validation size", 0 < count < len(indices[0]), f"less than the {len(indices[0])} training ones", count
            )
            indices = (indices[0][count:], indices[0][:count], indices[2])
    parts = [Examples(data.inputs[index], data.targets[index]) for index in indices]
    return _standardised(data, *parts)


def _order(data: Data, generator: Generator) -> Tensor:
    """A random order; for classes the first example of every class, then the second of every class, and so on.

    So each part has every class as often as possible, which reduces the variation between seeds.
    """
    shuffled = torch.randperm(len(data), generator=generator)
    if data.task == "regression" or data.targets.dim() > 1:
        return shuffled
    targets = data.targets[shuffled]
    counts = targets.bincount(minlength=len(data.classes))
    rank = one_hot(targets, len(data.classes)).cumsum(0).gather(1, targets[:, None]).squeeze(1)
    # The place of an example in the order is that of its rank among those of its class.
    return shuffled[((rank - 0.5) / counts[targets]).argsort(stable=True)]


def _standardised(data: Data, training: Examples, validation: Examples, test: Examples) -> Split:
    """Centre and scale inputs and values by the training examples: tables and values by column, images as a whole."""
    parts = Split(training, validation, test)
    if _can_standardise(data):
        # A table's columns have units of their own; the pixels of an image share one.
        dims = [0] if data.inputs.dim() == 2 else list(range(data.inputs.dim()))
        center, scale = _moments(training.inputs, dims)
        parts = parts.map(lambda part: replace(part, inputs=(part.inputs.float() - center) / scale))
    if data.is_standardised and data.task == "regression":
        mean, std = _moments(training.targets, [0])
        parts = parts.map(lambda part: replace(part, targets=(part.targets.float() - mean) / std))
        parts = replace(parts, center=mean, scale=std)
    return parts


def _can_standardise(data: Data) -> bool:
    return data.is_standardised and (data.inputs.is_floating_point() or data.inputs.dtype == torch.uint8)


def _moments(values: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation; 1 for what is constant, which has nothing to scale."""
    values = values.float()
    std = values.std(dims, correction=0)
    return values.mean(dims), torch.where(std > 0, std, 1.0)
