"""The loop of Monte Carlo dropout: run a model many times on a batch, each time with the masks of another sample.

This is the plain core of `predict`: a pass is one call of the model under `KeyedMode`. Whatever saves work is behind
`Accelerator`. Its only effect here is in `_run_sample`, which runs a pass again if an accelerator failed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.mc.accelerator import Accelerator
from dropkit.mc.batch_dim import tolerance_of
from dropkit.mc.batch_dim_probe import BatchDimFinder
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.generators import fork_python, fork_torch
from dropkit.mc.heads import Head
from dropkit.mc.keyed_mode import KeyedMode
from dropkit.mc.masks import MaskSampler
from dropkit.mc.notes import Notes
from dropkit.mc.options import Settings
from dropkit.mc.padding import Padding, without_padding
from dropkit.mc.plain_mode import PlainMode
from dropkit.mc.results import PartialResult
from dropkit.mc.sampling import nothing_to_sample
from dropkit.mc.together import TogetherMode
from dropkit.mc.training_flag.override import is_any_overridden, own_training_flags
from dropkit.report.progress import Progress

# Samples of a single input run together if their largest tensors stay in the cache, and if enough fit.
_NUMBERS_TOGETHER = 2**16
_FEWEST_TOGETHER = 6
# With a target standard error, samples between two checks of the error.
_SAMPLES_BETWEEN_CHECKS = 10
# Outputs are collected until they hold this many numbers, and then added to the sums in one call.
_NUMBERS_AT_ONCE = 2**17


class Passes:
    """The passes of one call of `predict`.

    Args:
        model: in evaluation mode.
        heads: find the outputs in what the model returns.
        settings: as for `predict`.
        sampler: the masks of all samples.

    Attributes:
        notes: for the user, on how the result was computed.
        noise_left_off: notes on random numbers in training mode that are no dropout.
    """

    def __init__(self, model: nn.Module, heads: Sequence[Head], settings: Settings, sampler: MaskSampler) -> None:
        self.heads: Sequence[Head] = heads
        self.settings: Settings = settings
        self.notes: Notes = Notes()
        self.noise_left_off: Mapping[str, None] = {}
        self._model, self._sampler = model, sampler
        self._finder = BatchDimFinder(self._run_model, self.notes)
        self._accelerator = Accelerator()
        if settings.replay or settings.thin:
            # Imported here, so that plain passes do not need it.
            from dropkit.mc.accelerate import CachedAndPruned

            self._accelerator = CachedAndPruned(model, self.notes, settings.replay, settings.thin)
        # By `Batch.kind`: how many dropouts a pass has.
        self._site_counts: dict[tuple[object, ...], int] = {}
        self._uses_python_generators = False
        # Inputs that need a pass for each sample, by `Batch.kind`.
        self._not_together: set[tuple[object, ...]] = set()
        # By head and `Batch.kind`: whether the inputs are first in an output where the shape does not show it.
        self._is_first: dict[tuple[object, ...], bool] = {}

    def results(self, batch: Batch, rows: BatchRows, padding: Padding, bar: Progress) -> list[PartialResult]:
        """Run all passes over one batch, or fewer if every input reaches the target standard error.

        Returns:
            The results of each head.
        """
        heads, target, most = self.heads, self.settings.target_standard_error, self.settings.samples
        accumulators = [head.accumulator(batch, self.settings) for head in heads]
        active: Tensor | None = None
        valid: list[Tensor | None] = []
        pending: list[list[Tensor]] = []
        for count, outputs in enumerate(self.run(batch, rows), start=1):
            self._check(outputs, batch)
            is_check = target is not None and count % _SAMPLES_BETWEEN_CHECKS == 0
            numbers = sum(output.numel() for output in outputs)
            must_add = is_check or count == most or (len(pending) + 1) * numbers >= _NUMBERS_AT_ONCE
            # The next pass may write over this output.
            pending.append(outputs if must_add else [output.clone() for output in outputs])
            if not must_add:
                continue
            for accumulator, *of_head in zip(accumulators, *pending, strict=True):
                stacked = torch.stack(of_head) if len(of_head) > 1 else of_head[0].unsqueeze(0)
                accumulator.add(count - len(pending), stacked, active)
                del stacked, of_head  # before the next pass, which needs the memory
            if not valid:
                shapes = [accumulator.sums.center.shape for accumulator in accumulators]
                valid = [padding.valid_places(batch, head, shape) for head, shape in zip(heads, shapes, strict=True)]
            bar.advance(len(pending) * batch.count)
            pending.clear()
            outputs.clear()  # `enumerate` holds the list
            if target is not None and is_check:
                errors = [sums.sums.error_of_mean(places) for sums, places in zip(accumulators, valid, strict=True)]
                is_unsure = torch.stack(errors).amax(0) > target
                active = is_unsure if active is None else active & is_unsure
                if not active.any():
                    break
        plain = self.plain(batch)
        results = [PartialResult.of(*of_head) for of_head in zip(accumulators, plain, strict=True)]
        return [without_padding(result, places) for result, places in zip(results, valid, strict=True)]

    def run(self, batch: Batch, rows: BatchRows) -> Iterator[list[Tensor]]:
        """Yield the outputs of the heads for each sample, each (N, ...).

        Raises:
            NothingToSample: no dropout is active.
        """
        kind, batch_dims = batch.kind(), self._finder.find(batch)
        if batch_dims:
            self._site_counts.setdefault(kind, len(batch_dims))
        self._accelerator.begin_batch(rows)
        mode = KeyedMode(self._sampler, batch_dims, rows, self._accelerator)
        sample, samples = 0, self.settings.samples
        while sample < samples:
            outputs = self._run_sample(mode, batch, sample)
            if not mode.random_calls:
                raise nothing_to_sample(self.noise_left_off)
            self.notes.unknown_batch_dims(mode.unknown_sites)
            if self._site_counts.setdefault(kind, mode.site_count) != mode.site_count:
                self.notes.masks_depend_on_batching("passes differ in their number of dropouts")
            first = [output.clone() for output in outputs] if len(rows) == 1 else []
            yield outputs
            del outputs  # before the next pass, which needs the memory
            sample += 1
            if len(rows) == 1 and kind not in self._not_together:
                sample += yield from self._run_together(mode, batch, range(sample - 1, samples), first)

    def _run_together(
        self, mode: KeyedMode, batch: Batch, samples: range, first: list[Tensor]
    ) -> Generator[list[Tensor], None, int]:
        """Yield the outputs of samples of a single input after the first, and return how many.

        They are fewer, or none, if the model needs a pass for each sample.

        Args:
            first: the outputs of the first sample, in a pass of its own.
        """
        rows, at_once = mode.rows, _NUMBERS_TOGETHER // max(mode.most_numbers, 1)
        is_plain = rows.group is None and not batch.batch_dims and not self._sampler.is_stratified
        if not is_plain or self._uses_python_generators or min(at_once, len(samples)) < _FEWEST_TOGETHER:
            return 0
        many = TogetherMode(self._sampler, (), rows, self._accelerator)
        for begin in range(0, len(samples), at_once):
            many.samples = samples[begin : begin + at_once]
            try:
                outputs = self._run_pass(many, batch, many.samples[0])
            except Exception:  # such as that the model has code for one input
                outputs = None
            if outputs is None or (begin == 0 and not self._are_rows(outputs, mode, batch, many.samples, first)):
                self._not_together.add(batch.kind())
                return max(begin - 1, 0)
            for row in range(begin == 0, len(many.samples)):
                yield [output[row : row + 1] for output in outputs]
        return len(samples) - 1

    def _are_rows(
        self, outputs: list[Tensor], mode: KeyedMode, batch: Batch, samples: range, first: list[Tensor]
    ) -> bool:
        """Whether the first and the last row are the outputs of these samples in passes of their own."""
        last = self._run_sample(mode, batch, samples[-1])
        rows = [*((output, 0, one) for output, one in zip(outputs, first, strict=True))]
        rows += ((output, -1, one) for output, one in zip(outputs, last, strict=True))
        return all(
            output.shape == (len(samples), *one.shape[1:])
            and torch.allclose(output[row], one[0], rtol=0, atol=tolerance_of(one), equal_nan=True)
            for output, row, one in rows
        )

    def _check(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        # A function of its own, since a variable of a loop would hold the last output for longer.
        for output, head in zip(outputs, self.heads, strict=True):
            head.check_shape(output, batch.count)

    def plain(self, batch: Batch) -> list[Tensor | None]:
        """Return what each head predicts in evaluation mode, without dropout; None if it is not wanted.

        It ends the passes over a batch, and uses their prefix.
        """
        outputs: list[Tensor] = []
        if self.settings.plain:
            with own_training_flags():
                try:
                    outputs = self._run_plain(batch, self._accelerator)
                except Exception:  # such as that the model runs other code where it has no dropout
                    outputs = self._run_plain(batch, Accelerator())
        # Before what follows, which needs memory.
        self._sampler.end_batch()
        self._accelerator.end_batch()
        if not outputs:
            return [None for _ in self.heads]
        return [head.values(batch, self.settings, output) for head, output in zip(self.heads, outputs, strict=True)]

    def _run_plain(self, batch: Batch, accelerator: Accelerator) -> list[Tensor]:
        arguments = accelerator.begin_pass(batch, is_plain=True) or batch.copied()
        # A model that draws random numbers in evaluation mode must not move the generators.
        seed = self._sampler.seed_outside_sites(0, 0)
        with fork_torch(seed), fork_python(seed), PlainMode(accelerator):
            outputs = self._outputs(arguments)
        return [self._inputs_first(index, output, batch) for index, output in enumerate(outputs)]

    def _run_sample(self, mode: KeyedMode, batch: Batch, sample: int) -> list[Tensor]:
        """Run a pass, and run it again while it fails and the accelerator has something left to switch off."""
        while True:
            try:
                return self._run_pass(mode, batch, sample)
            except Exception as error:
                if not self._accelerator.failed(error):
                    raise

    def _run_pass(self, mode: KeyedMode, batch: Batch, sample: int) -> list[Tensor]:
        # The model may write over its arguments.
        arguments = self._accelerator.begin_pass(batch) or batch.copied()
        mode.begin_pass(sample)
        seed = self._sampler.seed_outside_sites(sample, mode.rows.first)
        # Comparing the states of these generators takes time, so only the first pass over a batch does it, unless they
        # are used.
        watches_python = sample == 0 or self._uses_python_generators
        fork = fork_python(seed) if watches_python else nullcontext(lambda: False)
        with fork_torch(seed), fork as python_was_used:
            before = torch.get_rng_state()
            with mode:
                outputs = self._outputs(arguments)
            if mode.records_output_calls:
                for head, output in zip(self.heads, outputs, strict=True):
                    head.call = mode.output_calls.of(output)
            torch_was_used = not torch.equal(before, torch.get_rng_state())
            self._uses_python_generators = python_was_used() or (watches_python and sample > 0)
        if self._uses_python_generators:
            self.notes.masks_depend_on_batching("random numbers come from the generators of Python or NumPy")
            # A module may drop by Python's random numbers alone.
            mode.random_calls += is_any_overridden()
        if torch_was_used:
            self.notes.masks_depend_on_batching("random numbers come from torch's generator unseen")
        outputs = [self._accelerator.materialize(output) for output in outputs]
        self._accelerator.end_pass(has_hidden_randomness=torch_was_used)
        return [self._inputs_first(index, output, batch) for index, output in enumerate(outputs)]

    def _outputs(self, batch: Batch) -> list[Tensor]:
        returned = self._run_model(batch)
        returned = returned if self.settings.output is None else self.settings.output(returned)
        return [head.reader(returned) for head in self.heads]

    def _run_model(self, batch: Batch) -> Any:
        args, kwargs = batch.arguments()
        return self._model(*args, **kwargs)

    def _inputs_first(self, head: int, output: Tensor, batch: Batch) -> Tensor:
        """Return an output with the inputs in its first dimension, where the model has them in another."""
        if not output.dim() and batch.count == 1:  # squeezed, such as in the last batch of a loader
            return output.unsqueeze(0)
        dim = next(iter(batch.batch_dims.values()), 0)
        if not dim or output.dim() <= dim or output.shape[dim] != batch.count:
            return output
        if len(output) == batch.count:
            # Both dimensions have this size: the one of the inputs is smaller for fewer inputs.
            kind = head, batch.kind()
            if kind not in self._is_first:
                self._is_first[kind] = self._has_inputs_first(head, dim, batch)
            if self._is_first[kind]:
                return output
        return output.movedim(dim, 0)

    def _has_inputs_first(self, head: int, dim: int, batch: Batch) -> bool:
        if batch.count == 1:
            return False
        few = batch.take(0, batch.count - 1).copied()
        with fork_torch(), fork_python():
            return self._outputs(few)[head].shape[dim] != few.count
