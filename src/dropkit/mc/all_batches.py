"""The loop over batches of inputs, which `predict` and `propagate` share: from arguments to predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import modes, random
from dropkit.arguments import check
from dropkit.mc import batch_stream, distributed
from dropkit.mc.batch_rows import split_by_group
from dropkit.mc.batch_stream import BatchStream
from dropkit.mc.batches import Batch, taken
from dropkit.mc.chosen_dropout import chosen_dropout
from dropkit.mc.heads import heads_of, notes_of
from dropkit.mc.masks import MaskSampler
from dropkit.mc.options import Settings
from dropkit.mc.padding import Padding
from dropkit.mc.passes import Passes
from dropkit.mc.prediction import AnyPrediction
from dropkit.mc.results import PartialResult, join
from dropkit.mc.sampling import uncompiled
from dropkit.mc.site_mode import note_packed_order
from dropkit.mc.training_flag.override import Override
from dropkit.report.progress import Progress


def run_all_batches(
    model: nn.Module, inputs: Any, settings: Settings, kind: type[Passes]
) -> AnyPrediction | dict[Any, AnyPrediction]:
    """Return the prediction for all inputs; for several heads a dict of them.

    Raises:
        TypeError: `model` is not a module, or `inputs` hold no tensor.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    seed = int(random.draw()) if settings.seed is None else settings.seed
    ids = settings.example_ids
    count = batch_stream.count(inputs, settings.batch_dim) if ids is None else len(ids)
    group_size = settings.group_size(count)
    sampler = MaskSampler(distributed.broadcast_seed(seed), settings.samples, settings.is_stratified)
    heads = heads_of(settings, model, inputs)
    padding = Padding(settings.valid, settings.ignore_index)
    stream = BatchStream(model, settings.batch_size, settings.prepare_batch, settings.batch_dim)

    results: list[tuple[int, list[PartialResult]]] = []
    override: Override | None = None
    with (
        modes.evaluation_mode(model),
        torch.inference_mode(False),
        torch.no_grad(),
        chosen_dropout(model, settings.p, settings.sites) as chosen,
    ):
        passes = kind(model, heads, settings, sampler)
        first = next(iter((*model.parameters(), *model.buffers())), None)
        device = torch.device("cpu") if first is None else first.device
        with Progress("sampling", None if count is None else count * settings.samples, settings.progress) as bar:
            given = settings.labels_and_valid()
            for number, (batch, batch_ids) in enumerate(_with_ids(stream.of(inputs), ids, *given)):
                if not distributed.is_mine(number):
                    continue
                for begin, end, rows in split_by_group(batch_ids, group_size):
                    part = batch.take(begin, end).to(device)
                    # Not around the loop over batches: a loader may run networks of the user.
                    with uncompiled(override, chosen.modules) as override, note_packed_order():
                        passes.noise_left_off = override.noise_left_off
                        results.append((number, passes.results(part, rows, padding, bar)))
        notes = [*passes.notes, *padding.notes, *chosen.notes(), *notes_of(heads), *passes.noise_left_off]
    of_heads = zip(*distributed.gather(results), strict=True)
    predictions = [join(list(parts), head.task, notes) for head, parts in zip(heads, of_heads, strict=True)]
    if isinstance(settings.task, Mapping):
        return {head.name: prediction for head, prediction in zip(heads, predictions, strict=True)}
    return predictions[0]


def _with_ids(
    stream: Iterator[Batch], ids: Tensor | None, labels: Any, valid: Tensor | None
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with the numbers of its inputs, and with the labels and the places that were given for all."""
    first = 0
    for batch in stream:
        if batch.count == 0:
            continue
        last = first + batch.count
        rows = slice(first, last)
        if labels is not None:
            batch = replace(batch, labels=taken(labels, rows))
        if valid is not None:
            batch = replace(batch, valid=valid[rows])
        if ids is None:
            yield batch, torch.arange(first, last)
        else:
            check("example_ids", last <= len(ids), "as long as the inputs", f"{len(ids)} numbers")
            yield batch, ids[first:last].cpu()
        first = last
    check("inputs", first > 0, "at least one", "none")
    check("example_ids", ids is None or first == len(ids), "as long as the inputs", ids is not None and len(ids))
