"""Outputs: from what a model returns to the numbers that are summed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.measures import entropy
from dropkit.mc.output_calls import Ending

# How far the sum of float16 probabilities of some thousand classes may be from 1.
_SLACK = 1e-2
# How far that of float32 is, where it is not known that they are probabilities.
_CLOSE = 1e-3
# Rows of logits that hardly all sum to 1 by chance.
_TELLING = 8
# Rows among which so many that differ are looked for.
_LOOKED_AT = 256
# The part of [0, 1] that sigmoids fill, by the number of classes. Of 3000 networks that were not trained, of each of 12
# shapes, logits lay in [0, 1] for up to 6 %, and filled as much for at most one in a thousand.
_FILLED = {1: 0.9, 2: 0.7}
_FILLED_BY_MANY = 0.5
# Names for the number of classes.
_LABELS = ("num_labels", "num_classes", "n_classes", "id2label")
# Names for heads that are no output embeddings and do not give one number for each label.
_HEADS = ("lm_head", "class_labels_classifier")
_ONE_OF_THEM = "logits or probabilities of classes of which one is true"
_MULTILABEL = (
    "as of a sigmoid for a multilabel task, which is not served yet: return logits (output=...) if one class of "
    'several is true, or give task="regression" for the mean and variance of each number'
)
_DIMENSIONS = (
    "class_dim=-1 where the classes come last, as in (N, T, C) of tokens, class_dim=1 where they come second, as in "
    "(N, C, H, W) of pixels or in (N, C), output=lambda y: y.unsqueeze(-1) with class_dim=-1 where there is one logit "
    "for each label, as in (N, T) of tokens, (N, H, W) of pixels or (N, L) of a multilabel task"
)
_LOGITS = "; if they are logits all the same, give output=lambda y: y + 1, which changes no softmax"
_LOGIT = "; if it is a logit all the same, give output=lambda y: torch.stack([y * 0, y], -1) + 1 and class_dim=-1"
# Numbers of float32 in a vector register.
_VECTOR = 16


def tensor_of(returned: Any) -> Tensor:
    """The outputs, by the customs of most models."""
    if isinstance(returned, Tensor):
        return returned
    if isinstance(getattr(returned, "logits", None), Tensor):
        return returned.logits
    if isinstance(returned, Mapping) and isinstance(cast("Any", returned).get("logits"), Tensor):
        return cast("Any", returned)["logits"]
    if isinstance(returned, (tuple, list)) and returned and isinstance(returned[0], Tensor):
        return returned[0]
    kind = type(cast("Any", returned)).__name__
    raise TypeError(f"the model must return a tensor, logits, or a tuple that begins with one, got {kind}; see output=")


@dataclass(frozen=True)
class Labels:
    """True classes, of which only the shape and where they are one-hot are looked at.

    Attributes:
        values: (N, ...).
    """

    values: Tensor

    @staticmethod
    def of(values: Any) -> Labels | None:
        """None for what is no label: nothing, or numbers that are neither integers nor in [0, 1]."""
        if not isinstance(values, Tensor) or values.dim() == 0 or values.is_complex():
            return None
        if values.is_floating_point() and not bool(((values >= 0) & (values <= 1)).all()):
            return None
        return Labels(values)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the labels of a single input."""
        return tuple(self.values.shape[1:])

    @cached_property
    def one_hot(self) -> frozenset[int]:
        """The dimensions over which the labels are one-hot, or probabilities."""
        if bool((self.values < 0).any()):
            return frozenset()
        dims = range(1, self.values.dim())
        return frozenset(dim for dim in dims if sum_to_one(self.values.movedim(dim, -1)))


@dataclass(frozen=True, slots=True)
class Classes:
    """What is known of the classes in a model's outputs.

    Attributes:
        form: "logits" or "probabilities".
        dim: the dimension they lie in; None where the user did not say.
        counts: how many there are, by the model's configuration; more than one number where that cannot be told.
        labels: the labels of the inputs; None where they are not known.
        tokens: the shapes of arguments that hold one integer at each position of an input.
    """

    form: str
    dim: int | None = None
    counts: frozenset[int] = frozenset()
    labels: Labels | None = None
    tokens: frozenset[tuple[int, ...]] = frozenset()

    def dimension(self, shape: tuple[int, ...]) -> int:
        """The dimension of the classes in outputs of this shape, (N, ...).

        Raises:
            ValueError: it is none of the output, or it was not given and cannot be known.
        """
        dims = len(shape)
        if self.dim is not None:
            fits = -dims < self.dim < dims and self.dim != 0
            check("class_dim", fits, f"a dimension of the output after the first, of {dims}", self.dim)
            return self.dim % dims
        of_one, wanted = shape[1:], f"given for outputs of shape {shape}"
        labels = None if self.labels is None else self.labels.shape
        by_count = {dim for dim in range(1, dims) if shape[dim] in self.counts}
        if self.labels is not None and labels == of_one:
            # One logit for each label, unless the labels are one-hot.
            by_labels = set(self.labels.one_hot) | {dim for dim in range(1, dims) if shape[dim] == 1}
            said = f'None: {_DIMENSIONS}; for the latter also task="regression" of sigmoids'
            check("class_dim", bool(by_labels), f"{wanted}, as the labels have the same shape", said)
        elif dims == 2:
            # Numbers of each token, as long as the tokens and not as many as the classes.
            one_each = bool(self.counts) and not by_count and of_one in self.tokens
            check("class_dim", not one_each, f"{wanted}, as the tokens have the same shape", f"None: {_DIMENSIONS}")
            return 1
        else:
            by_labels = {dim for dim in range(1, dims) if shape[1:dim] + shape[dim + 1 :] == labels}
        known = by_count & by_labels if by_count and by_labels else by_count | by_labels
        check("class_dim", len(known) == 1, wanted, f"None: {_DIMENSIONS}")
        return known.pop()

    def probabilities(self, outputs: Tensor, ending: Ending | None = None) -> tuple[Tensor, Tensor]:
        """(samples, N, ..., classes) in float32, and their entropies in nats.

        Args:
            outputs: (samples, N, ...).
            ending: the call that made them, where that tells what they are.
        """
        if outputs.dim() == 2:
            outputs = outputs.unsqueeze(2)
        dim = self.dimension(tuple(outputs.shape[1:]))
        outputs = outputs.float().movedim(dim + 1, -1)
        if self.form == "logits":
            _check_logits(outputs, ending, dim)
        if outputs.shape[-1] == 1:
            # Of the second of two classes.
            rest = 1 - outputs if self.form == "probabilities" else torch.zeros_like(outputs)
            outputs = torch.cat([rest, outputs], -1)
        if self.form == "probabilities":
            _check_dimension(outputs, dim)
            check_probabilities(outputs, "outputs", '"logits" where they are no probabilities', f", {_MULTILABEL}")
            return outputs, entropy(outputs)
        logs = _log_softmax(outputs)
        p = logs.exp()
        # 0 log 0 is 0, as 0 times any finite logarithm is.
        return p.contiguous(), logs.clamp_(min=torch.finfo(logs.dtype).min).mul_(p).sum(-1).neg_()


def class_counts(model: nn.Module) -> frozenset[int]:
    """How many classes a model tells apart, by its own attributes or its configuration; empty if they do not say.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> model.num_classes = 3
        >>> class_counts(nn.Sequential(model))
        frozenset({3})
    """
    sources = [model, getattr(model, "config", None), getattr(model, "hparams", None)]
    vocabulary = {count for one in sources[1:] for count in _counts(one, "vocab_size")}
    labels = {count for one in sources for name in _LABELS for count in _counts(one, name)}
    if hasattr(model, "get_output_embeddings"):  # of transformers: the layer that gives logits of the vocabulary
        try:
            head = cast("Any", model).get_output_embeddings()
        except NotImplementedError:
            head = None
        # Every configuration of transformers has two labels and a vocabulary, whatever the model is for.
        if head is not None:
            return frozenset(vocabulary | set(head.weight.shape[:1]))
        last = {one.out_features for one in model.children() if isinstance(one, nn.Linear)}
        return frozenset(_of_head(model) or vocabulary & last or labels)
    children = list(model.children())
    if labels or vocabulary or len(children) != 1 or any(True for _ in model.parameters(recurse=False)):
        return frozenset(labels | vocabulary)
    # A wrapper that has nothing of its own, such as that of a compiled model.
    return class_counts(children[0])


def _of_head(model: nn.Module) -> set[int]:
    """How many numbers the head gives, by transformers' names: of a speech recogniser, or a detector's with "none"."""
    heads = (getattr(model, name, None) for name in _HEADS)
    layers = ([one for one in head.modules() if isinstance(one, nn.Linear)] for head in heads if head is not None)
    return {found[-1].out_features for found in layers if found}


def _counts(source: Any, name: str) -> set[int]:
    named = isinstance(source, Mapping)
    value: Any = cast("Mapping[str, Any]", source).get(name) if named else getattr(source, name, None)
    count: Any = len(cast("Any", value)) if isinstance(value, (Mapping, list, tuple)) else value
    return {count} if isinstance(count, int) and not isinstance(count, bool) and count > 0 else set()


def check_rows(output: Tensor, count: int) -> None:
    if output.dim() == 0 or len(output) != count:
        raise ValueError(f"the model must return one row for each of {count} inputs, got shape {tuple(output.shape)}")


def _log_softmax(outputs: Tensor) -> Tensor:
    """Over the last dimension."""
    if outputs.shape[-1] >= _VECTOR:
        return outputs.log_softmax(-1)
    # torch takes several times as long over few neighbours as over numbers that lie apart.
    return outputs.transpose(-1, -2).contiguous().log_softmax(-2).transpose(-1, -2)


def _check_logits(outputs: Tensor, ending: Ending | None, dim: int) -> None:
    """Raise where outputs are plainly no logits; of few rows, or equal ones, it cannot be told.

    Args:
        outputs: (samples, N, ..., classes).
        dim: that of the classes in the model's output.
    """
    classes = outputs.shape[-1]
    if outputs.numel() == 0:
        return
    least, most = cast("list[float]", torch.stack(outputs.aminmax()).tolist())
    if most <= 0:
        _check_dimension(outputs, dim, logarithms=True)
    if not 0 <= least <= most <= 1:
        return
    rows: Tensor = outputs.flatten(0, -2)
    if classes > 1 and sum_to_one(rows, _SLACK if ending is Ending.SOFTMAX else _CLOSE):
        # One-hot rows may be logits.
        differ = len(rows) >= _TELLING and bool((rows != rows[0]).any() & ((rows > 0) & (rows < 1)).any())
        told = ending is Ending.SOFTMAX or differ
        text = '"probabilities" where the model returns them'
        check("outputs", not told, text, f'"logits" and numbers that sum to 1{_LOGITS}')
        return
    _check_dimension(outputs, dim)
    fill = ending is not Ending.OTHER and least > 0 and most - least >= _FILLED.get(classes, _FILLED_BY_MANY)
    # Of one sample: those of few inputs, however many samples, lie close together.
    differing = outputs[0].flatten(0, -2)[:_LOOKED_AT]
    if ending is Ending.SIGMOID or (fill and len(cast("Tensor", differing.unique(dim=0))) >= _TELLING):
        if classes == 1:
            text = '"probabilities" where the model returns that of the second of two classes'
            check("outputs", False, text, f'"logits" and numbers in [0, 1], as of a sigmoid{_LOGIT}')
        check("outputs", False, _ONE_OF_THEM, f"numbers in [0, 1] that do not sum to 1, {_MULTILABEL}{_LOGITS}")


def _check_dimension(p: Tensor, dim: int, logarithms: bool = False) -> None:
    """Raise where probabilities, (samples, N, ..., classes), sum to 1 over another dimension than that of the classes.

    Args:
        dim: that of the classes in the model's output, from which they were moved.
    """
    if p.dim() < 4 or p[..., 0].numel() < _TELLING or bool((p[0] == p[0, :1]).all()):
        return
    p = p[0].exp() if logarithms else p[0]
    if not bool((p >= 0).all()) or sum_to_one(p, _SLACK):
        return
    p = p.movedim(-1, dim)
    for other in range(1, p.dim()):
        if other != dim and p.shape[other] > 1 and sum_to_one(p.movedim(other, -1)):
            check("class_dim", False, f"{other}, over which the model's probabilities sum to 1", dim)


def sum_to_one(p: Tensor, slack: float = _CLOSE) -> bool:
    """Along the last dimension."""
    return bool(((p.sum(-1) - 1).abs() <= slack).all())


def check_probabilities(p: Tensor, argument: str, wanted: str, of_others: str = "") -> None:
    """Raise where numbers along the last dimension are no probabilities; not a number is let through.

    Args:
        of_others: what to say of numbers in [0, 1] that do not sum to 1.

    Raises:
        ValueError: "<argument> must be <wanted>, got sums of ...": some are negative, or do not sum to 1.
    """
    sums = p.sum(-1)
    if bool((p < 0).any() | ((sums - 1).abs() > _SLACK).any()):
        least, most = (float(one) for one in sums.aminmax())
        within = bool(((p >= 0) & (p <= 1)).all())
        check(argument, False, wanted, f"sums of {least:.3g} to {most:.3g}" + (of_others if within else ""))
