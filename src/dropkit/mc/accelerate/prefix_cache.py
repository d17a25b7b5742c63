"""PrefixCache: compute what comes before the first dropout once per batch, since it is the same in every pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dropkit.containers import tensors
from dropkit.mc.accelerate.recording import ESCAPES, Diverged, Recording, WriteCounts
from dropkit.mc.accelerator import Accelerator
from dropkit.mc.batches import Batch
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.notes import Notes, reason


class PrefixCache(Accelerator):
    """Records the first pass over a batch up to its first dropout, and reuses the results in the others.

    Args:
        notes: gets a note if the cache fails; it is then off for all further batches.
    """

    def __init__(self, model: nn.Module, notes: Notes, replays: bool) -> None:
        self._notes, self._replays = notes, replays
        # Parameters, buffers, and tensors in plain attributes.
        self._model_tensors: list[Tensor] = [
            tensor for module in model.modules() for tensor in tensors(list(vars(module).values()))
        ]
        self._copying = False
        self.end_batch()

    def end_batch(self) -> None:
        self._recording: Recording | None = None
        # The recording for the next pass, if there is one.
        self._reusable: Recording | None = None
        self._arguments: Batch | None = None
        self._argument_writes = WriteCounts([])

    def begin_pass(self, batch: Batch, is_plain: bool = False) -> Batch | None:
        super().begin_pass(batch, is_plain)
        # If this pass fails, the next one makes a new recording.
        self._recording, self._reusable = self._reusable, None
        if self._recording is not None and not self._argument_writes.are_current():
            self._switch_off("the model writes into its inputs")
            self._recording = None
        if not self._replays:
            return None
        if self._recording is None:
            self._arguments = batch.copied()
            arguments = list(tensors([self._arguments.args, self._arguments.kwargs]))
            self._argument_writes = WriteCounts(arguments)
            self._recording = Recording(WriteCounts([*self._model_tensors, *arguments]), self._copying)
        else:
            self._recording.begin_pass()
        return self._arguments

    def intercept(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        recording = self._recording
        if recording is not None and func in ESCAPES:
            recording.fault = (
                f"{getattr(func, '__name__', func)} of a tensor shares memory with code whose writes are not counted"
            )
        if recording is None or not recording.is_running:
            return super().intercept(func, types, args, kwargs)
        return recording.call(func, args, kwargs)

    def before_site(self) -> None:
        if self._recording is not None and self._recording.is_running:
            self._recording.stop()

    def end_pass(self, has_hidden_randomness: bool) -> None:
        super().end_pass(has_hidden_randomness)
        recording = self._recording
        if recording is None:
            return
        if has_hidden_randomness:
            recording.fault = "random numbers come from torch's generator unseen"
        if recording.is_running and not recording.is_recording:
            raise Diverged("no dropout, where the first pass had one")
        if recording.fault is not None:
            self._switch_off(recording.fault)
        elif recording.is_recording:
            pass  # there was no dropout
        elif recording.is_intact():
            self._reusable = recording
        else:
            self._copying = True

    def failed(self, error: Exception) -> bool:
        if super().failed(error):
            return True
        if self._recording is None or self._recording.is_recording:
            return False
        self._switch_off(f"passes differ before the first dropout ({reason(error)})")
        return True

    def _switch_off(self, cause: str) -> None:
        self._replays = False
        self._notes.append(f"every pass ran in full: {cause}")
