"""Model outputs: the dimension of their classes, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.measures import binary_entropy, entropy
from dropkit.mc.output_calls import OutputCall

# Tolerance for the sum of float16 probabilities of some thousand classes.
_LOOSE_TOLERANCE = 1e-2
# Tolerance for the sum of float32 numbers that may not be probabilities at all.
_TOLERANCE = 1e-3
# So many rows of logits do not all sum to 1 by chance.
_MIN_ROWS = 8
# How many rows are searched for so many different ones.
_ROWS_SEARCHED = 256
# The least range within [0, 1] that is taken for one of sigmoids, by the number of classes. Among 3000 untrained
# networks of each of 12 shapes, logits lay in [0, 1] for up to 6 %, and spanned as much for at most one in a thousand.
_MIN_SPAN = {1: 0.9, 2: 0.7}
_MIN_SPAN_OF_MANY = 0.5
# Attributes that hold the number of classes.
_LABELS = ("num_labels", "num_classes", "n_classes", "id2label")
# Attributes that hold heads which are not output embeddings.
_HEADS = ("lm_head", "class_labels_classifier")
_ONE_TRUE_CLASS = "logits or probabilities of classes of which one is true"
_MULTILABEL = (
    'as of a sigmoid for a multilabel task: give task="multilabel" and outputs="probabilities" if several labels may '
    "be true, or return logits (output=...) if one class of several is"
)
_DIMENSIONS = (
    "class_dim=-1 where the classes come last, as in (N, T, C) of tokens, class_dim=1 where they come second, as in "
    '(N, C, H, W) of pixels or in (N, C), task="multilabel" where there is one logit for each label, as in (N, T) of '
    "tokens, (N, H, W) of pixels or (N, L) of several labels"
)
_IF_LOGITS = "; if they are logits all the same, give output=lambda y: y + 1, which changes no softmax"
_IF_LABEL_LOGITS = "; if they are logits all the same, give output=lambda y: y.sigmoid(), too"
# Of a larger logit the sigmoid is 1 in float32, and its entropy 0.
_LARGEST_LOGIT = 100.0
_IF_LOGIT = "; if it is a logit all the same, give output=lambda y: torch.stack([y * 0, y], -1) + 1 and class_dim=-1"
# float32 numbers in a vector register.
_VECTOR_WIDTH = 16


@dataclass(frozen=True)
class Labels:
    """True classes, used only for their shape and for the dimensions in which they are one-hot.

    Attributes:
        values: (N, ...).
    """

    values: Tensor

    @staticmethod
    def of(values: Any) -> Labels | None:
        """Return labels if the values can be some: integers, or numbers in [0, 1]; else None."""
        if not isinstance(values, Tensor) or values.dim() == 0 or values.is_complex():
            return None
        if values.is_floating_point() and not bool(((values >= 0) & (values <= 1)).all()):
            return None
        return Labels(values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input's labels."""
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
    """What is known about the classes in a model's outputs.

    Attributes:
        form: "logits" or "probabilities".
        dim: the dimension of the classes; None if the user did not give it.
        counts: candidates for the number of classes, from the model's configuration.
        labels: the labels of the inputs; None if they are not known.
        tokens: the shapes of arguments that hold one integer at each position of an input.
    """

    form: str
    dim: int | None = None
    counts: frozenset[int] = frozenset()
    labels: Labels | None = None
    tokens: frozenset[tuple[int, ...]] = frozenset()

    def dimension(self, shape: tuple[int, ...]) -> int:
        """Return the dimension of the classes in outputs of this shape, (N, ...).

        Raises:
            ValueError: the output has no such dimension, or it was not given and cannot be inferred.
        """
        dims = len(shape)
        if self.dim is not None:
            fits = -dims < self.dim < dims and self.dim != 0
            check("class_dim", fits, f"a dimension of the output after the first, of {dims}", self.dim)
            return self.dim % dims
        input_shape, wanted = shape[1:], f"given for outputs of shape {shape}"
        labels = None if self.labels is None else self.labels.shape
        by_count = {dim for dim in range(1, dims) if shape[dim] in self.counts}
        if self.labels is not None and labels == input_shape:
            # One logit for each label, unless the labels are one-hot.
            by_labels = set(self.labels.one_hot) | {dim for dim in range(1, dims) if shape[dim] == 1}
            got = f"None: {_DIMENSIONS}"
            check("class_dim", bool(by_labels), f"{wanted}, as the labels have the same shape", got)
        elif dims == 2:
            # One logit for each token: as many as tokens, and not as many as classes.
            is_for_tokens = bool(self.counts) and not by_count and input_shape in self.tokens
            got = f"None: {_DIMENSIONS}"
            check("class_dim", not is_for_tokens, f"{wanted}, as the tokens have the same shape", got)
            return 1
        else:
            by_labels = {dim for dim in range(1, dims) if shape[1:dim] + shape[dim + 1 :] == labels}
        known = by_count & by_labels if by_count and by_labels else by_count | by_labels
        check("class_dim", len(known) == 1, wanted, f"None: {_DIMENSIONS}")
        return known.pop()

    def check(self, outputs: Tensor, call: OutputCall | None = None) -> int:
        """Raise an error if outputs are clearly not what `form` says, or return the number of classes.

        Args:
            outputs: (samples, N, ...).
            call: the call that made the outputs, if it is known.
        """
        outputs, dim = self._with_classes(outputs)
        if self.form == "logits":
            _check_logits(outputs, call, dim)
            return max(outputs.shape[-1], 2)
        outputs = _with_both_classes(outputs.float(), self.form)
        _check_dimension(outputs, dim)
        check_probabilities(outputs, "outputs", '"logits" where they are no probabilities', f", {_MULTILABEL}")
        return outputs.shape[-1]

    def probabilities(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the probabilities, (samples, N, ..., classes) in float32, and their entropies in nats, by name.

        Args:
            outputs: (samples, N, ...).
        """
        outputs = _with_both_classes(self._with_classes(outputs)[0].float(), self.form)
        if self.form == "probabilities":
            return _named(outputs, entropy(outputs))
        logs = _log_softmax(outputs)
        p = logs.exp()
        if outputs.is_cuda:  # in any case, since to ask whether it is needed would wait for the device
            logs.clamp_(min=torch.finfo(logs.dtype).min)
        entropies = logs.mul_(p).sum(-1).neg_()
        if not outputs.is_cuda and bool(entropies.isnan().any()):
            # 0 log 0 is 0, as 0 times any finite logarithm is.
            logs = _log_softmax(outputs)
            entropies = logs.clamp_(min=torch.finfo(logs.dtype).min).mul_(p).sum(-1).neg_()
        return _named(p, entropies)

    def _with_classes(self, outputs: Tensor) -> tuple[Tensor, int]:
        """The outputs with their classes in the last dimension, and the dimension in the model's output."""
        if outputs.dim() == 2:
            outputs = outputs.unsqueeze(2)
        dim = self.dimension(tuple(outputs.shape[1:]))
        return outputs.movedim(dim + 1, -1), dim

    def label_probabilities(self, outputs: Tensor, call: OutputCall | None = None) -> dict[str, Tensor]:
        """Return the probability of each label, (samples, N, ...) in float32, and its entropy in nats, by name.

        Args:
            outputs: (samples, N, ...).
            call: the call that made the outputs, if it is known.

        Raises:
            ValueError: they are not of the form that was given.
        """
        outputs = outputs.float()
        wants_probabilities = '"probabilities" where the model returns them'
        if self.form == "probabilities":
            least, most = (
                cast("list[float]", torch.stack(outputs.aminmax()).tolist()) if outputs.numel() else (0.0, 1.0)
            )
            # Not a number is accepted.
            check(
                "outputs", not (least < 0 or most > 1), '"logits" where they are no probabilities', f"{least} to {most}"
            )
            return _named(outputs, binary_entropy(outputs))
        is_softmax = call is OutputCall.SOFTMAX or call is OutputCall.LOG_SOFTMAX
        exclusive = "logits of labels of which several may be true"
        check("outputs", not is_softmax, exclusive, 'a softmax, of which one is: give task="classification"')
        is_sigmoid = call is OutputCall.SIGMOID or (outputs.numel() > 0 and _spans_unit_interval(outputs, call))
        check("outputs", not is_sigmoid, wants_probabilities, f'"logits" and numbers in [0, 1]{_IF_LABEL_LOGITS}')
        # Of -|x|, which has the same entropy; clamped, since 0 times infinity is not a number.
        size = outputs.abs().clamp_(max=_LARGEST_LOGIT)
        entropies = nn.functional.softplus(-size).add_(size.mul_(torch.sigmoid(-size)))
        return _named(outputs.sigmoid(), entropies)


def _named(p: Tensor, entropies: Tensor) -> dict[str, Tensor]:
    return {"value": p, "sample entropy": entropies}


def values_and_noise(outputs: Tensor, variance: Callable[[Tensor], Tensor] | None) -> dict[str, Tensor]:
    """Return the values, (samples, N, ...) in float32, and the variance of the noise if the model predicts it, by name.

    Args:
        outputs: (samples, N, ...), or with the noise (samples, N, 2, ...).
        variance: from the second part of outputs to the variance of the noise; None if there is but one.
    """
    y = outputs.float()
    if variance is None:
        return {"value": y}
    y, spread = y.unbind(2)
    noise = variance(spread)
    wanted = '"mean_log_variance" where the variance is not positive'
    check("outputs", not bool((noise < 0).any()), wanted, '"mean_variance" and negative numbers')
    return {"value": y, "aleatoric_variance": noise}


def class_counts(model: nn.Module) -> frozenset[int]:
    """Return candidates for a model's number of classes, from its attributes and its configuration.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> model.num_classes = 3
        >>> class_counts(nn.Sequential(model))
        frozenset({3})
    """
    sources = [model, getattr(model, "config", None), getattr(model, "hparams", None)]
    vocabulary = {count for source in sources[1:] for count in _counts(source, "vocab_size")}
    labels = {count for source in sources for name in _LABELS for count in _counts(source, name)}
    if hasattr(model, "get_output_embeddings"):  # in transformers, the layer that returns logits of the vocabulary
        try:
            head = cast("Any", model).get_output_embeddings()
        except NotImplementedError:
            head = None
        # In transformers every configuration has two labels by default and a vocabulary, whatever the task.
        if head is not None:
            return frozenset(vocabulary | set(head.weight.shape[:1]))
        last = {layer.out_features for layer in model.children() if isinstance(layer, nn.Linear)}
        return frozenset(_count_of_head(model) or vocabulary & last or labels)
    children = list(model.children())
    if labels or vocabulary or len(children) != 1 or any(True for _ in model.parameters(recurse=False)):
        return frozenset(labels | vocabulary)
    # A wrapper without parameters of its own, such as that of a compiled model.
    return class_counts(children[0])


def _count_of_head(model: nn.Module) -> set[int]:
    """The outputs of a head in transformers: of a speech recogniser, or of a detector, "no object" included."""
    heads = (getattr(model, name, None) for name in _HEADS)
    layers = ([layer for layer in head.modules() if isinstance(layer, nn.Linear)] for head in heads if head is not None)
    return {linear[-1].out_features for linear in layers if linear}


def _counts(source: Any, name: str) -> set[int]:
    is_mapping = isinstance(source, Mapping)
    value: Any = cast("Mapping[str, Any]", source).get(name) if is_mapping else getattr(source, name, None)
    count: Any = len(cast("Any", value)) if isinstance(value, (Mapping, list, tuple)) else value
    return {count} if isinstance(count, int) and not isinstance(count, bool) and count > 0 else set()


def check_rows(output: Tensor, count: int) -> None:
    """Raise an error unless the model returned a row for each input."""
    if output.dim() == 0 or len(output) != count:
        raise ValueError(
            f"the model must return one row for each of {count} inputs, got shape {tuple(output.shape)}"
            "; give batch_dim=1 where inputs lie in the second dimension, as in sequence-first models"
        )


def _with_both_classes(outputs: Tensor, form: str) -> Tensor:
    """Add the first of two classes where the only number is that of the second."""
    if outputs.shape[-1] != 1:
        return outputs
    rest = 1 - outputs if form == "probabilities" else torch.zeros_like(outputs)
    return torch.cat([rest, outputs], -1)


def _log_softmax(outputs: Tensor) -> Tensor:
    """Log-softmax over the last dimension, in the memory layout that is fastest: with strided classes if few."""
    if outputs.stride(-1) == 1 and outputs.shape[-1] >= _VECTOR_WIDTH:
        return outputs.log_softmax(-1)
    # torch is several times slower over a short contiguous dimension than over a strided one.
    dim = 2 if outputs.dim() > 3 else 1
    return outputs.movedim(-1, dim).contiguous().log_softmax(dim).movedim(dim, -1)


def _check_logits(outputs: Tensor, call: OutputCall | None, dim: int) -> None:
    """Raise an error if outputs are clearly not logits, which a few rows, or equal rows, cannot show.

    Args:
        outputs: (samples, N, ..., classes).
        dim: the dimension of the classes in the model's output.
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
    if classes > 1 and sum_to_one(rows, _LOOSE_TOLERANCE if call is OutputCall.SOFTMAX else _TOLERANCE):
        # One-hot rows may be logits.
        rows_differ = len(rows) >= _MIN_ROWS and bool((rows != rows[0]).any() & ((rows > 0) & (rows < 1)).any())
        is_softmax = call is OutputCall.SOFTMAX or rows_differ
        wanted = '"probabilities" where the model returns them'
        check("outputs", not is_softmax, wanted, f'"logits" and numbers that sum to 1{_IF_LOGITS}')
        return
    _check_dimension(outputs, dim)
    if call is OutputCall.SIGMOID or _spans_unit_interval(outputs, call):
        if classes == 1:
            wanted = '"probabilities" where the model returns that of the second of two classes'
            check("outputs", False, wanted, f'"logits" and numbers in [0, 1], as of a sigmoid{_IF_LOGIT}')
        check("outputs", False, _ONE_TRUE_CLASS, f"numbers in [0, 1] that do not sum to 1, {_MULTILABEL}{_IF_LOGITS}")


def _spans_unit_interval(outputs: Tensor, call: OutputCall | None) -> bool:
    """Whether numbers lie in [0, 1], and fill it as sigmoids do.

    Args:
        outputs: (samples, N, ..., classes).
    """
    least, most = cast("list[float]", torch.stack(outputs.aminmax()).tolist())
    span = _MIN_SPAN.get(outputs.shape[-1] if outputs.dim() > 2 else 1, _MIN_SPAN_OF_MANY)
    if call is OutputCall.OTHER or not 0 < least <= most <= 1 or most - least < span:
        return False
    # Rows of one sample: those of an input in several samples are close together.
    rows = outputs[0].flatten(0, -2) if outputs.dim() > 2 else outputs[0].unsqueeze(1)
    return len(cast("Tensor", rows[:_ROWS_SEARCHED].unique(dim=0))) >= _MIN_ROWS


def _check_dimension(p: Tensor, dim: int, logarithms: bool = False) -> None:
    """Raise an error if probabilities, (samples, N, ..., classes), sum to 1 over another dimension than the last.

    Args:
        dim: the dimension of the classes in the model's output, before they were moved to the end.
    """
    if p.dim() < 4 or p[..., 0].numel() < _MIN_ROWS or bool((p[0] == p[0, :1]).all()):
        return
    p = p[0].exp() if logarithms else p[0]
    if not bool((p >= 0).all()) or sum_to_one(p, _LOOSE_TOLERANCE):
        return
    p = p.movedim(-1, dim)
    for other in range(1, p.dim()):
        if other != dim and p.shape[other] > 1 and sum_to_one(p.movedim(other, -1)):
            check("class_dim", False, f"{other}, over which the model's probabilities sum to 1", dim)


def sum_to_one(p: Tensor, slack: float = _TOLERANCE) -> bool:
    """Whether numbers sum to 1 along the last dimension."""
    return bool(((p.sum(-1) - 1).abs() <= slack).all())


def check_probabilities(p: Tensor, argument: str, wanted: str, hint: str = "") -> None:
    """Raise an error if numbers along the last dimension are not probabilities; NaN is accepted.

    Args:
        hint: what the error adds if all numbers are in [0, 1].

    Raises:
        ValueError: "<argument> must be <wanted>, got sums of ...": some are negative, or do not sum to 1.
    """
    sums = p.sum(-1)
    if bool((p < 0).any() | ((sums - 1).abs() > _LOOSE_TOLERANCE).any()):
        least, most = (float(bound) for bound in sums.aminmax())
        is_within = bool(((p >= 0) & (p <= 1)).all())
        check(argument, False, wanted, f"sums of {least:.3g} to {most:.3g}" + (hint if is_within else ""))
