"""predict: a model's predictions with their uncertainty, from many passes with dropout left on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, overload

import torch
from torch import Tensor, nn

from dropkit import modes, random
from dropkit.arguments import check, counted
from dropkit.mc import batches, distributed
from dropkit.mc.accumulators import Classification, Estimator, Measures, Regression, entropy
from dropkit.mc.batch_rows import BatchRows, MaskSharing, split_by_group
from dropkit.mc.batches import Adapt, Batch
from dropkit.mc.masks import MaskSampler
from dropkit.mc.outputs import Classes, Labels, check_probabilities, check_rows, class_counts, sum_to_one, tensor_of
from dropkit.mc.passes import Passes
from dropkit.mc.prediction import ClassPrediction, ValuePrediction
from dropkit.mc.sampling import uncompiled
from dropkit.mc.site_mode import note_packed_order
from dropkit.mc.training_flag.override import Override
from dropkit.report.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Inputs that share a mask with `masks="chunk"`; more than these are "many".
CHUNK = 2048
_BATCH = 256
# With `until`, samples between two looks at the error.
_LOOK = 10
# Numbers that are worth a call of their own: outputs of fewer wait for those of the next samples.
_TOGETHER = 2**17


class Options(TypedDict, total=False):
    """The named arguments of `predict`, for type checkers; they are explained there."""

    masks: Literal["input", "chunk", "shared"] | None
    plan: Literal["iid", "stratified"]
    seed: int | None
    until: float | None
    keep_samples: bool
    outputs: Literal["logits", "probabilities"]
    class_dim: int | None
    labels: Tensor | None
    output: Callable[[Any], Tensor] | None
    adapt: Adapt | None
    index: Tensor | None
    batch_size: int
    chunk: int
    replay: bool
    thin: bool
    progress: bool | None


@overload
def predict(
    model: nn.Module,
    inputs: Any,
    samples: int = 50,
    task: Literal["classification"] = "classification",
    **options: Unpack[Options],
) -> ClassPrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, *, task: Literal["regression"], **options: Unpack[Options]
) -> ValuePrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int, task: Literal["regression"], **options: Unpack[Options]
) -> ValuePrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, task: str = "classification", **options: Unpack[Options]
) -> ClassPrediction | ValuePrediction: ...
@torch.no_grad()
def predict(
    model: nn.Module,
    inputs: Any,
    samples: int = 50,
    task: str = "classification",
    *,
    masks: Literal["input", "chunk", "shared"] | None = None,
    plan: Literal["iid", "stratified"] = "iid",
    seed: int | None = None,
    until: float | None = None,
    keep_samples: bool = False,
    outputs: Literal["logits", "probabilities"] = "logits",
    class_dim: int | None = None,
    labels: Tensor | None = None,
    output: Callable[[Any], Tensor] | None = None,
    adapt: Adapt | None = None,
    index: Tensor | None = None,
    batch_size: int = _BATCH,
    chunk: int = CHUNK,
    replay: bool = True,
    thin: bool = True,
    progress: bool | None = None,
) -> ClassPrediction | ValuePrediction:
    r"""Run a model many times with its dropout on, and estimate from that what it predicts and how sure it is of it.

    The model runs in evaluation mode with every dropout drawing, as in `sampling`; it is left as it was found. The mask
    of an input is a function of `seed`, the site, the sample and the input's number alone: batch size, threads and
    processes do not change it. Samples are summed as they come, so the memory is that of one batch. Under `torchrun`
    (an initialised `torch.distributed`) batches are shared out among the processes and each gets the whole result.

    Args:
        model: any module that drops; not scripted. Compiled ones run uncompiled.
        inputs: a tensor or array (N, ...), a mapping of them (the model's named arguments) or a tuple of them (its
            arguments); or anything that yields batches, such as a `DataLoader`. Of a batch that is a list or tuple the
            first part is the input; `adapt` says otherwise.
        samples: passes for each input, T.
        task: "classification" of logits, or "regression" of values.
        masks: which inputs share the masks of a sample: none ("input"), `chunk` neighbours ("chunk") or all ("shared").
            Shared masks are much faster, and each input's estimates are as good, but the errors of neighbours are
            correlated. If None, "chunk" for the classification of what is known to be more than `chunk` inputs, else
            "input".
        plan: "iid" for independent samples; "stratified" for a Latin hypercube, in which each unit is kept equally
            often over the samples. The error of the mean is then never noticeably larger, and mostly much smaller;
            `standard_error` is that of independent samples, which bounds it.
        seed: 64 bits; from torch's generator if None.
        until: a standard error of the mean. An input for which it is reached takes no further samples; looked at after
            every 10. None for `samples` passes each.
        keep_samples: keep what each pass gave, too: (T, N, ...).
        outputs: what the model returns for classes: "logits" (or log-probabilities), or "probabilities". One logit, of
            (N,) or (N, 1), is that of the second of two classes.
        class_dim: the dimension of classes in the output, which has the inputs in dimension 0. If None: 1 of two
            dimensions; of more the one that the model's configuration (`num_labels`, `num_classes`, `vocab_size`) or
            the shape of the labels tells, and an error if they do not: -1 for (N, T, C), 1 for (N, C, H, W). One logit
            for each label, (N, T) or (N, L), needs `output=lambda y: y.unsqueeze(-1)` and -1.
        labels: true classes, whose shape may tell `class_dim` and nothing else; if None, those that a loader yields in
            pairs with the inputs.
        output: from what the model returns to the tensor of outputs. If None: the tensor itself, `.logits`, the entry
            "logits", or the first of a tuple.
        adapt: from a batch to the argument of the model, or a tuple or mapping of its arguments.
        index: (N,), integers in [0, 2**32), the number of each input, which its masks follow; its place in `inputs` if
            None.
        batch_size: inputs in a pass, where `inputs` are not in batches already.
        chunk: inputs that share masks with "chunk".
        replay: compute what comes before the first draw once for all samples.
        thin: cut dropped units out of matrix products where inputs share masks.
        progress: show a bar; where a terminal is, after two seconds, if None.

    Returns:
        A `ClassPrediction` or a `ValuePrediction`, in float32 on the CPU.

    Raises:
        NothingToSample: nothing in the model draws.
        ValueError: an argument is out of range.

    Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
    ICML 2016, arXiv:1506.02142.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> r.mean.shape, r.mutual_information.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    samples, batch_size, chunk = counted("samples", samples), counted("batch_size", batch_size), counted("chunk", chunk)
    settings = _Settings(task, masks, plan, until, outputs, class_dim, labels is not None, chunk)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    index = None if index is None else _checked_index(torch.as_tensor(index))
    number = int(random.draw()) if seed is None else random.signed(seed, "seed")
    known = batches.count(inputs) if index is None else len(index)
    group = settings.group(known)
    stratified = plan == "stratified"
    sampler = MaskSampler(distributed.broadcast_seed(number), samples, stratified)

    classes = Classes(outputs, None if class_dim is None else int(class_dim), class_counts(model))
    given = None if labels is None else _checked_labels(labels, inputs if adapt is None else None)

    def estimator(batch: Batch) -> Estimator:
        if task == "regression":
            return Regression(samples, stratified)
        tokens = batch.token_shapes() if output is None else frozenset[tuple[int, ...]]()
        of_batch = replace(classes, labels=batch.labels if labels is None else given, tokens=tokens)
        return Classification(samples, lambda one: of_batch.probabilities(one, passes.ending), stratified)

    found: list[tuple[int, _Found]] = []
    notes: list[str] = []
    override: Override | None = None
    with modes.evaluating(model), torch.inference_mode(False), torch.no_grad():
        passes = Passes(model, output or tensor_of, sampler, replay, thin)
        device = _device_of(model)
        with Progress("sampling", None if known is None else known * samples, progress) as bar:
            for place, (batch, ids) in enumerate(_numbered(batches.stream(inputs, batch_size, adapt), index)):
                if not distributed.is_mine(place):
                    continue
                for begin, end, rows in split_by_group(ids, group):
                    part = batch.take(begin, end).to(device)
                    # Not around the iteration over batches, in which the user's own networks may run.
                    with uncompiled(override) as override, note_packed_order():
                        passes.noise_left_off = override.noise_left_off
                        one = _one_batch(passes, part, rows, estimator(batch), samples, until, keep_samples, bar)
                    found.append((place, one))
        notes = [*passes.notes, *passes.noise_left_off]
    return _joined(distributed.gather(found), task, notes)


@torch.no_grad()
def from_samples(probabilities: Tensor) -> ClassPrediction:
    """The same measures of samples that come from elsewhere: the members of an ensemble, or one pass alone.

    Args:
        probabilities: of classes, along the last dimension.

    Shape:
        probabilities: (T, N, ..., classes).

    Raises:
        ValueError: there are fewer than three dimensions, or numbers that are no probabilities.

    Example:
        >>> members = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
        >>> from_samples(members).mean
        tensor([[0.7000, 0.3000]])
    """
    probabilities = torch.as_tensor(probabilities).float()
    fits = probabilities.dim() >= 3 and len(probabilities) > 0
    check("probabilities", fits, "(T, N, ..., classes) with T of at least 1", tuple(probabilities.shape))
    wanted = "of classes, with a sum of 1 over the last dimension"
    for dim in range(2, probabilities.dim() - 1):
        if sum_to_one(probabilities.movedim(dim, -1)):
            wanted += f", as probabilities.movedim({dim}, -1) has"
    check_probabilities(probabilities, "probabilities", wanted)
    estimator = Classification(len(probabilities), lambda p: (p, entropy(p)))
    kept = estimator.add(0, probabilities, None)
    found = _found(estimator, [kept])
    prediction = _joined([found], "classification", [])
    assert isinstance(prediction, ClassPrediction)
    return prediction


@dataclass(frozen=True, slots=True)
class _Settings:
    """The arguments that must go together."""

    task: str
    masks: str | None
    plan: str
    until: float | None
    outputs: str
    class_dim: object
    has_labels: bool
    chunk: int

    def __post_init__(self) -> None:
        check("task", self.task in ("classification", "regression"), '"classification" or "regression"', self.task)
        check("plan", self.plan in ("iid", "stratified"), '"iid" or "stratified"', self.plan)
        kinds = [one.value for one in MaskSharing]
        check("masks", self.masks is None or self.masks in kinds, '"input", "chunk" or "shared"', self.masks)
        check("outputs", self.outputs in ("logits", "probabilities"), '"logits" or "probabilities"', self.outputs)
        integer = hasattr(self.class_dim, "__index__") and not isinstance(self.class_dim, bool)
        check("class_dim", self.class_dim is None or integer, "an integer or None", repr(self.class_dim))
        if self.task == "regression":
            check("class_dim", self.class_dim is None, 'None with task="regression"', self.class_dim)
            check("labels", not self.has_labels, 'None with task="regression"', "labels")
        check("until", self.until is None or self.until > 0, "larger than 0", self.until)
        if self.until is not None:
            check("plan", self.plan == "iid", '"iid" where until is given: stratified samples end together', self.plan)

    def group(self, count: int | None) -> int | None:
        """Inputs that share masks: None for none, 0 for all."""
        many = self.task == "classification" and count is not None and count > self.chunk
        masks = self.masks or (MaskSharing.CHUNK.value if many else MaskSharing.INPUT.value)
        return {MaskSharing.INPUT.value: None, MaskSharing.CHUNK.value: self.chunk, MaskSharing.SHARED.value: 0}[masks]


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of a part of the inputs, on the CPU."""

    measures: Measures
    errors: Measures
    samples: Tensor
    kept: Tensor | None


def _one_batch(
    passes: Passes,
    batch: Batch,
    rows: BatchRows,
    estimator: Estimator,
    samples: int,
    until: float | None,
    keep: bool,
    bar: Progress,
) -> _Found:
    kept: list[Tensor] = []
    active: Tensor | None = None
    waiting: list[Tensor] = []
    for sample, output in enumerate(passes.run(batch, rows, samples)):
        check_rows(output, batch.count)
        look = until is not None and (sample + 1) % _LOOK == 0
        enough = look or sample + 1 == samples or (len(waiting) + 1) * output.numel() >= _TOGETHER
        # The next pass may write where this one did.
        waiting.append(output if enough else output.clone())
        if not enough:
            continue
        value = estimator.add(sample + 1 - len(waiting), torch.stack(waiting), active)
        bar.advance(len(waiting) * batch.count)
        waiting.clear()
        if keep:
            kept.append(value.cpu())
        if until is not None and look:
            going = estimator.sums.error_of_mean() > until
            active = going if active is None else active & going
            if not active.any():
                break
    return _found(estimator, kept)


def _found(estimator: Estimator, kept: list[Tensor]) -> _Found:
    measures, errors = estimator.measures()
    return _Found(
        {name: one.cpu() for name, one in measures.items()},
        {name: one.cpu() for name, one in errors.items()},
        estimator.sums.count.long().cpu(),
        torch.cat(kept).cpu() if kept else None,
    )


def _numbered(stream: Iterator[Batch], index: Tensor | None) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with the numbers of its inputs."""
    first = 0
    for batch in stream:
        if batch.count == 0:
            continue
        last = first + batch.count
        if index is None:
            yield batch, torch.arange(first, last)
        else:
            check("index", last <= len(index), "as long as the inputs", f"{len(index)} numbers")
            yield batch, index[first:last].long().cpu()
        first = last
    check("inputs", first > 0, "at least one", "none")
    check("index", index is None or first == len(index), "as long as the inputs", index is not None and len(index))


def _checked_index(index: Tensor) -> Tensor:
    integers = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    check("index", index.dim() == 1 and integers, "(N,) of integers", f"{tuple(index.shape)} of {index.dtype}")
    if len(index):
        least, most = (int(one) for one in index.aminmax())
        check("index", 0 <= least <= most < 2**32, "in [0, 2**32)", f"{least} to {most}")
    return index.long()


def _checked_labels(labels: Any, inputs: Any) -> Labels | None:
    labels = torch.as_tensor(labels)
    count = batches.count(inputs) if batches.is_whole(inputs) else None
    fits = labels.dim() > 0 and count in (None, len(labels))
    wanted = "one for each input" if count is None else f"one for each of {count} inputs"
    check("labels", fits, wanted, f"shape {tuple(labels.shape)}")
    return Labels.of(labels)


def _joined(parts: list[_Found], task: str, notes: list[str]) -> ClassPrediction | ValuePrediction:
    measures, errors = (
        {name: torch.cat([getattr(part, kind)[name] for part in parts]) for name in getattr(parts[0], kind)}
        for kind in ("measures", "errors")
    )
    count = torch.cat([part.samples for part in parts])
    kept = None
    if parts[0].kept is not None:
        most = max(len(cast("Tensor", part.kept)) for part in parts)
        kept = torch.cat([_lengthened(cast("Tensor", part.kept), most) for part in parts], 1)
    kind = ClassPrediction if task == "classification" else ValuePrediction
    return kind(**measures, standard_error=errors, samples=count, draws=kept, notes=tuple(notes))


def _lengthened(kept: Tensor, samples: int) -> Tensor:
    """As many samples as elsewhere; not a number where inputs took fewer."""
    missing = kept.new_full((samples - len(kept), *kept.shape[1:]), torch.nan)
    return torch.cat([kept, missing])


def _device_of(model: nn.Module) -> torch.device:
    first = next((one for one in (*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if first is None else first.device
