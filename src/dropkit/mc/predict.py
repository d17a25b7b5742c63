"""predict: the predictions of a model with their uncertainty, from many passes with dropout active."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from dropkit import modes, random
from dropkit.arguments import check
from dropkit.mc import batches, distributed
from dropkit.mc.accumulators import Accumulator, Classification, Regression
from dropkit.mc.batch_rows import BatchRows, split_by_group
from dropkit.mc.batches import Batch
from dropkit.mc.masks import MaskSampler
from dropkit.mc.measures import entropy
from dropkit.mc.options import Options, Settings, signature
from dropkit.mc.outputs import Classes, check_probabilities, check_rows, class_counts, sum_to_one, tensor_of
from dropkit.mc.passes import Passes
from dropkit.mc.prediction import ClassPrediction, ValuePrediction
from dropkit.mc.results import PartialResult, join
from dropkit.mc.sampling import uncompiled
from dropkit.mc.site_mode import note_packed_order
from dropkit.mc.training_flag.override import Override
from dropkit.report.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

# With a target standard error, samples between two checks of the error.
_SAMPLES_BETWEEN_CHECKS = 10
# Outputs are collected until they hold this many numbers, and then added to the sums in one call.
_NUMBERS_AT_ONCE = 2**17


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
    model: nn.Module, inputs: Any, samples: int = 50, task: str = "classification", **options: Unpack[Options]
) -> ClassPrediction | ValuePrediction:
    r"""Run a model many times with dropout active, and estimate its predictions and their uncertainty.

    The model runs in evaluation mode with every dropout active, as in `sampling`, and is left unchanged. The mask of an
    input depends on `seed`, the dropout, the sample and the input's number alone: batch size, threads and processes do
    not change it. Samples are summed as they come, so that memory is needed for one batch. Under `torchrun` (an
    initialised `torch.distributed`) the processes share the batches, and each returns the whole result.

    Args:
        model: any module with dropout; not scripted. Compiled ones run uncompiled.
        inputs: a tensor or array (N, ...), a mapping of them (the model's named arguments) or a tuple of them (its
            arguments); or anything that yields batches, such as a `DataLoader`. The first item of a batch that is a
            list or tuple is the input, unless there is a `prepare_batch`.
        samples: passes for each input, T.
        task: "classification" of logits, or "regression" of values.
        masks: which inputs share the masks of a sample: none ("input"), `chunk` neighbours ("chunk") or all ("shared").
            Shared masks are much faster, and each input's estimates are as good, but the errors of neighbours are
            correlated. If None, "chunk" for classification with more than `chunk` inputs, else "input".
        plan: "iid" for independent samples; "stratified" for a Latin hypercube, in which each unit is kept equally
            often over the samples. The error of the mean is then never noticeably larger, and mostly much smaller;
            `standard_error` is that of independent samples, which is an upper bound.
        seed: 64 bits; from torch's generator if None.
        target_standard_error: stop sampling an input when the standard error of its mean is at most this, checked after
            every 10 samples. If None, every input takes `samples` passes.
        keep_samples: keep the output of each pass as `r.samples`, (T, N, ...).
        outputs: what the model returns for classes: "logits" (or log-probabilities), or "probabilities". A single
            logit, (N,) or (N, 1), is that of the second of two classes.
        class_dim: the dimension of classes in the output; dimension 0 holds the inputs. If None: 1 of two dimensions;
            of more the one that follows from the model's configuration (`num_labels`, `num_classes`, `vocab_size`) or
            the shape of the labels, and an error if none does: -1 for (N, T, C), 1 for (N, C, H, W). One logit for
            each label, (N, T) or (N, L), needs `output=lambda y: y.unsqueeze(-1)` and -1.
        labels: true classes; only their shape is used, to find `class_dim`. If None, the labels that a loader yields in
            pairs with the inputs.
        output: from what the model returns to the tensor of outputs. If None: the tensor itself, `.logits`, the entry
            "logits", or the first item of a tuple.
        prepare_batch: from a batch to the argument of the model, or a tuple or mapping of its arguments.
        example_ids: (N,), integers in [0, 2**32), the number of each input, which selects its masks; its position in
            `inputs` if None.
        batch_size: inputs in a pass, where `inputs` are not batches already.
        chunk: inputs that share masks with "chunk".
        replay: compute what comes before the first active dropout once for all samples.
        thin: leave dropped units out of matrix products where inputs share masks.
        plain: run each input once without dropout as well, for `r.plain`, with which reports compare the samples.
        progress: show a progress bar. If None, show it on a terminal, after two seconds.

    Returns:
        A `ClassPrediction` or a `ValuePrediction`, in float32 on the CPU.

    Raises:
        NothingToSample: no dropout in the model is active.
        TypeError: `model` is not a module, or `inputs` hold no tensor.
        ValueError: an argument is out of range.

    Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
    ICML 2016, arXiv:1506.02142.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> r.mean.shape, r.mutual_information.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    settings = Settings.of(samples, task, options)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    seed = int(random.draw()) if settings.seed is None else settings.seed
    ids = settings.example_ids
    count = batches.count(inputs) if ids is None else len(ids)
    group_size = settings.group_size(count)
    sampler = MaskSampler(distributed.broadcast_seed(seed), settings.samples, settings.is_stratified)

    class_dim = None if settings.class_dim is None else int(settings.class_dim)
    classes = Classes(settings.outputs, class_dim, class_counts(model))
    given_labels = settings.checked_labels(inputs)

    def accumulator(batch: Batch) -> Accumulator:
        if settings.task == "regression":
            return Regression(settings.samples, settings.is_stratified)
        tokens = batch.token_shapes() if settings.output is None else frozenset[tuple[int, ...]]()
        labels = batch.labels if settings.labels is None else given_labels
        classes_of_batch = replace(classes, labels=labels, tokens=tokens)
        return Classification(
            settings.samples,
            lambda outputs: classes_of_batch.probabilities(outputs, passes.output_call),
            settings.is_stratified,
        )

    results: list[tuple[int, PartialResult]] = []
    override: Override | None = None
    with modes.evaluation_mode(model), torch.inference_mode(False), torch.no_grad():
        passes = Passes(model, settings.output or tensor_of, sampler, settings.replay, settings.thin)
        device = _device_of(model)
        with Progress("sampling", None if count is None else count * settings.samples, settings.progress) as bar:
            stream = batches.stream(inputs, settings.batch_size, settings.prepare_batch)
            for number, (batch, batch_ids) in enumerate(_with_ids(stream, ids)):
                if not distributed.is_mine(number):
                    continue
                for begin, end, rows in split_by_group(batch_ids, group_size):
                    part = batch.take(begin, end).to(device)
                    # Not around the loop over batches: a loader may run networks of the user.
                    with uncompiled(override) as override, note_packed_order():
                        passes.noise_left_off = override.noise_left_off
                        result = _run_batch(passes, part, rows, accumulator(batch), settings, bar)
                        if settings.plain:
                            values = accumulator(batch).add(0, passes.plain(part).unsqueeze(0), None)
                            result = replace(result, plain=values[0].cpu())
                        results.append((number, result))
        notes = [*passes.notes, *passes.noise_left_off]
    return join(distributed.gather(results), settings.task, notes)


# What `help` shows; type checkers see `Options`.
predict.__signature__ = signature(predict)  # pyright: ignore[reportFunctionMemberAccess] (functions take attributes)


@torch.no_grad()
def from_samples(probabilities: Tensor) -> ClassPrediction:
    """Compute the same measures from samples of your own: the members of an ensemble, or a single pass.

    Args:
        probabilities: class probabilities along the last dimension, the samples along the first.

    Shape:
        probabilities: (T, N, ..., classes).

    Raises:
        ValueError: there are fewer than three dimensions, or numbers that are not probabilities.

    Example:
        >>> members = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
        >>> from_samples(members).mean
        tensor([[0.7000, 0.3000]])
    """
    probabilities = torch.as_tensor(probabilities).float()
    has_shape = probabilities.dim() >= 3 and len(probabilities) > 0
    check("probabilities", has_shape, "(T, N, ..., classes) with T of at least 1", tuple(probabilities.shape))
    wanted = "of classes, with a sum of 1 over the last dimension"
    for dim in range(2, probabilities.dim() - 1):
        if sum_to_one(probabilities.movedim(dim, -1)):
            wanted += f", as probabilities.movedim({dim}, -1) has"
    check_probabilities(probabilities, "probabilities", wanted)
    accumulator = Classification(len(probabilities), lambda p: (p, entropy(p)))
    samples = accumulator.add(0, probabilities, None)
    prediction = join([PartialResult.of(accumulator, [samples])], "classification", [])
    assert isinstance(prediction, ClassPrediction)
    return prediction


def _run_batch(
    passes: Passes, batch: Batch, rows: BatchRows, accumulator: Accumulator, settings: Settings, bar: Progress
) -> PartialResult:
    """Run all passes over one batch, or fewer if every input reaches the target standard error."""
    target = settings.target_standard_error
    samples: list[Tensor] = []
    active: Tensor | None = None
    pending: list[Tensor] = []
    for sample, output in enumerate(passes.run(batch, rows, settings.samples)):
        check_rows(output, batch.count)
        is_check = target is not None and (sample + 1) % _SAMPLES_BETWEEN_CHECKS == 0
        is_last = sample + 1 == settings.samples
        must_add = is_check or is_last or (len(pending) + 1) * output.numel() >= _NUMBERS_AT_ONCE
        # The next pass may write over this output.
        pending.append(output if must_add else output.clone())
        if not must_add:
            continue
        values = accumulator.add(sample + 1 - len(pending), torch.stack(pending), active)
        bar.advance(len(pending) * batch.count)
        pending.clear()
        if settings.keep_samples:
            samples.append(values.cpu())
        if target is not None and is_check:
            is_unsure = accumulator.sums.error_of_mean() > target
            active = is_unsure if active is None else active & is_unsure
            if not active.any():
                break
    return PartialResult.of(accumulator, samples)


def _with_ids(stream: Iterator[Batch], ids: Tensor | None) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with the numbers of its inputs."""
    first = 0
    for batch in stream:
        if batch.count == 0:
            continue
        last = first + batch.count
        if ids is None:
            yield batch, torch.arange(first, last)
        else:
            check("example_ids", last <= len(ids), "as long as the inputs", f"{len(ids)} numbers")
            yield batch, ids[first:last].cpu()
        first = last
    check("inputs", first > 0, "at least one", "none")
    check("example_ids", ids is None or first == len(ids), "as long as the inputs", ids is not None and len(ids))


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if first is None else first.device
