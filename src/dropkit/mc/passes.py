"""The loop of Monte Carlo dropout: run a model many times on a batch, each time with the masks of another sample.

This is the plain core of `predict`: a pass is one call of the model under `KeyedMode`. Whatever saves work is behind
`Accelerator`. Its only effect here is in `_run_sample`, which runs a pass again if an accelerator failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.mc.accelerator import Accelerator
from dropkit.mc.batch_dim_probe import BatchDimFinder
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.generators import fork_python, fork_torch
from dropkit.mc.keyed_mode import KeyedMode
from dropkit.mc.masks import MaskSampler
from dropkit.mc.notes import Notes
from dropkit.mc.output_calls import OutputCall
from dropkit.mc.plain_mode import PlainMode
from dropkit.mc.sampling import nothing_to_sample
from dropkit.mc.training_flag.override import is_any_overridden, own_training_flags


class Passes:
    """The passes of one call of `predict`.

    Args:
        model: in evaluation mode.
        output: returns the tensor of outputs from what the model returns.
        sampler: the masks of all samples.
        replay: compute what comes before the first dropout once per batch.
        thin: leave dropped units out of matrix products, where inputs share masks.

    Attributes:
        notes: for the user, on how the result was computed.
        noise_left_off: notes on random numbers in training mode that are no dropout.
        output_call: the kind of call that made the last output, if it is known.
    """

    def __init__(
        self, model: nn.Module, output: Callable[[Any], Tensor], sampler: MaskSampler, replay: bool, thin: bool
    ) -> None:
        self.notes = Notes()
        self.noise_left_off: Mapping[str, None] = {}
        self.output_call: OutputCall | None = None
        self._model, self._output, self._sampler = model, output, sampler
        self._finder = BatchDimFinder(self._run_model, self.notes)
        self._accelerator = Accelerator()
        if replay or thin:
            # Imported here, so that plain passes do not need it.
            from dropkit.mc.accelerate import CachedAndPruned

            self._accelerator = CachedAndPruned(model, self.notes, replay, thin)
        # By `Batch.kind`: how many dropouts a pass has.
        self._site_counts: dict[tuple[object, ...], int] = {}
        self._uses_python_generators = False

    def run(self, batch: Batch, rows: BatchRows, samples: int) -> Iterator[Tensor]:
        """Yield the output of the model for each sample.

        Raises:
            NothingToSample: no dropout is active.
        """
        kind, batch_dims = batch.kind(), self._finder.find(batch)
        if batch_dims:
            self._site_counts.setdefault(kind, len(batch_dims))
        self._sampler.forget_batch()
        self._accelerator.begin_batch(rows)
        mode = KeyedMode(self._sampler, batch_dims, rows, self._accelerator)
        for sample in range(samples):
            output = self._run_sample(mode, batch, sample)
            if not mode.random_calls:
                raise nothing_to_sample(self.noise_left_off)
            self.notes.unknown_batch_dims(mode.unknown_sites)
            if self._site_counts.setdefault(kind, mode.site_count) != mode.site_count:
                self.notes.masks_depend_on_batching("passes differ in their number of dropouts")
            yield output

    def plain(self, batch: Batch) -> Tensor:
        """Return the output of a pass in evaluation mode, without dropout; after `run`, of which it uses the prefix."""
        with own_training_flags():
            try:
                return self._run_plain(batch, self._accelerator.prefix)
            except Exception:  # such as that the model runs other code where it has no dropout
                return self._run_plain(batch, Accelerator())

    def _run_plain(self, batch: Batch, prefix: Accelerator) -> Tensor:
        arguments = prefix.begin_pass(batch) or batch.copied()
        # A model that draws random numbers in evaluation mode must not move the generators.
        seed = self._sampler.seed_outside_sites(0, 0)
        with fork_torch(seed), fork_python(seed), PlainMode(prefix):
            return self._output(self._run_model(arguments))

    def _run_sample(self, mode: KeyedMode, batch: Batch, sample: int) -> Tensor:
        """Run a pass, and run it again while it fails and the accelerator has something left to switch off."""
        while True:
            try:
                return self._run_pass(mode, batch, sample)
            except Exception as error:
                if not self._accelerator.failed(error):
                    raise

    def _run_pass(self, mode: KeyedMode, batch: Batch, sample: int) -> Tensor:
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
                output = self._output(self._run_model(arguments))
            self.output_call = mode.output_calls.of(output)
            torch_was_used = not torch.equal(before, torch.get_rng_state())
            self._uses_python_generators = python_was_used() or (watches_python and sample > 0)
        if self._uses_python_generators:
            self.notes.masks_depend_on_batching("random numbers come from the generators of Python or NumPy")
            # A module may drop by Python's random numbers alone.
            mode.random_calls += is_any_overridden()
        if torch_was_used:
            self.notes.masks_depend_on_batching("random numbers come from torch's generator unseen")
        output = self._accelerator.materialize(output)
        self._accelerator.end_pass(has_hidden_randomness=torch_was_used)
        return output

    def _run_model(self, batch: Batch) -> Any:
        return self._model(*batch.args, **batch.kwargs)
