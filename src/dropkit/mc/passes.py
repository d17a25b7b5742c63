"""Passes: a model run many times on one batch, each time with the masks of another sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.mc import generators
from dropkit.mc.accelerate.prefix_cache import Diverged, Known, Tape, held_by, tensors
from dropkit.mc.accelerate.pruned import Stale, settle
from dropkit.mc.batch_dim import Layout
from dropkit.mc.batch_dim_probe import Probed, probe
from dropkit.mc.batches import Batch
from dropkit.mc.intercept import forked
from dropkit.mc.keyed_mode import Keyed
from dropkit.mc.masks import Coins, Rows
from dropkit.mc.output_calls import Ending
from dropkit.mc.sampling import nothing
from dropkit.mc.training_flag.override import any_raised

# Inputs to find the layouts from: enough to tell their number from most other sizes, and to roll; more where these are
# alike.
_FEW, _MORE = 3, 32
_LOST = "masks depend on the batches: inputs cannot be told apart at draw"


class Passes:
    """The passes of `predict`.

    Args:
        model: in evaluation mode.
        output: from what the model returns to the tensor that is wanted.
        coins: the draws.
        replay: compute what comes before the first draw once a batch.
        thin: cut what is dropped out of matrix products, where inputs share masks.
    """

    def __init__(
        self, model: nn.Module, output: Callable[[Any], Tensor], coins: Coins, replay: bool, thin: bool
    ) -> None:
        self._model, self._output, self._coins = model, output, coins
        self._replay, self._thin, self._copying = replay, thin, False
        self._held = held_by(model)
        # For batches of which a single input has these shapes.
        self._layouts: dict[tuple[object, ...], list[Layout | None]] = {}
        self._draws: dict[tuple[object, ...], int] = {}
        self._said_lost = False
        # Whether the model draws from the generators of Python or NumPy.
        self._of_python = False
        # The call that made the last outputs, where that tells what they are.
        self.ending: Ending | None = None
        # Why an idea was given up, for the user.
        self.notes: list[str] = []
        # Notes on what modules draw in training mode, and is no dropout.
        self.off: Mapping[str, None] = {}

    def run(self, batch: Batch, rows: Rows, samples: int) -> Iterator[Tensor]:
        """The outputs of one sample after another.

        Raises:
            NothingToSample: nothing draws.
        """
        kind = batch.kind()
        layouts = self._found(batch, kind)
        self._coins.forget_batch()
        mode = Keyed(self._coins, layouts, rows)
        inputs = _Inputs(batch)
        tape: Tape | None = None
        for sample in range(samples):
            output, tape = self._pass(mode, inputs, sample, tape)
            if not mode.drawn:
                raise nothing(self.off)
            self._say_lost_at(mode.lost)
            if self._draws.setdefault(kind, mode.sites) != mode.sites:
                self._say_lost("masks depend on the batches: passes differ in how often they draw")
            yield output

    def _pass(self, mode: Keyed, inputs: _Inputs, sample: int, tape: Tape | None) -> tuple[Tensor, Tape | None]:
        """One pass, and the tape for the next."""
        if inputs.written(mode) and tape is not None:
            self._give_up_replay("the model writes into its inputs")
            tape = None
        given = inputs.own
        if tape is None and self._replay:
            tape = Tape(Known([*self._held, *tensors([given.args, given.kwargs])]), self._copying)
        elif tape is not None:
            tape.begin()
        thin = self._thin and mode.rows.group is not None
        try:
            output = self._once(mode, given, sample, tape, thin)
        except Stale as stale:
            mode.never_wait(stale.place)
            return self._pass(mode, inputs, sample, None)
        except Exception as error:
            if thin and not isinstance(error, Diverged):
                self._thin = False
                self.notes.append(f"nothing was cut out: {_said(error)}")
            elif tape is not None and not tape.recording:
                self._give_up_replay(f"the model does not run the same way before its first draw ({_said(error)})")
            else:
                raise
            return self._pass(mode, inputs, sample, None)
        if tape is not None:
            tape = self._judged(tape)
        return output, tape

    def _once(self, mode: Keyed, batch: Batch, sample: int, tape: Tape | None, thin: bool) -> Tensor:
        mode.begin(sample, tape, thin)
        seed = self._coins.unseen(sample, mode.rows.first)
        # The first pass over a batch tells whether it is worth the time in the others.
        watches = sample == 0 or self._of_python
        with forked(seed), generators.kept(seed) if watches else nullcontext(_no) as drawn:
            before = torch.get_rng_state()
            with mode:
                output = self._output(self._run(batch))
            self.ending = mode.endings.of(output)
            moved = not torch.equal(before, torch.get_rng_state())
            self._of_python = drawn() or (watches and sample > 0)
        if self._of_python:
            self._say_lost("masks depend on the batches: something draws from the generators of Python or NumPy")
            # What gates dropout may do so by Python's numbers alone.
            mode.drawn += any_raised()
        if moved:
            self._say_lost("masks depend on the batches: something draws from torch's generator unseen")
            if tape is not None:
                tape.fault = "something draws from torch's generator unseen"
        if tape is not None and tape.running and not tape.recording:
            raise Diverged("no draw, where the first pass drew")
        output = mode.dense(output)
        if mode.end():
            settle(self._model)
        return output

    def _judged(self, tape: Tape) -> Tape | None:
        """The tape, if it serves the next pass."""
        if tape.fault is not None:
            self._give_up_replay(tape.fault)
            return None
        if tape.recording:
            # Nothing drew.
            return None
        if not tape.intact:
            self._copying = True
            return None
        return tape

    def _give_up_replay(self, why: str) -> None:
        self._replay = False
        self.notes.append(f"every pass ran in full: {why}")

    def _found(self, batch: Batch, kind: tuple[object, ...]) -> list[Layout | None]:
        """The layouts, as soon as there are two inputs to tell apart."""
        if kind in self._layouts or batch.count < 2:
            return self._layouts.get(kind, [])
        try:
            probed = self._probed(batch)
        except Exception as error:
            self._say_lost(f"masks depend on the batches: inputs cannot be told apart by rolling them ({_said(error)})")
            probed = Probed([], [])
        self._say_lost_at(site for site, layout in enumerate(probed.layouts) if layout is None)
        if probed.alike:
            self._say_lost_at(probed.alike, "masks may depend on the batches: inputs are all alike at draw")
        else:
            self._layouts[kind] = probed.layouts
        if probed.layouts:
            self._draws.setdefault(kind, len(probed.layouts))
        return probed.layouts

    def _probed(self, batch: Batch) -> Probed:
        try:
            probed = probe(self._run, batch.take(0, min(batch.count, _FEW)))
            return probe(self._run, batch.spread(_MORE)) if probed.alike else probed
        except Exception:
            # A model may want batches of one size.
            return probe(self._run, batch)

    def _run(self, batch: Batch) -> Any:
        return self._model(*batch.args, **batch.kwargs)

    def _say_lost(self, why: str) -> None:
        """Once: what holds of one batch holds of most."""
        if not self._said_lost:
            self._said_lost = True
            self.notes.append(why)

    def _say_lost_at(self, sites: Iterable[int], why: str = _LOST) -> None:
        places = ", ".join(map(str, sorted(sites)))
        if places:
            self._say_lost(f"{why} {places}")


class _Inputs:
    """What the model is given: copies, for it may write over them.

    Attributes:
        own: as the user's are, once `written` has been asked.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._copy()

    def _copy(self) -> None:
        self.own = self._batch.copied()
        self._known = Known(tensors([self.own.args, self.own.kwargs]))

    def written(self, mode: Keyed) -> bool:
        """Whether a pass has written over them, or may have; they are then copied anew."""
        written = mode.escaped or not self._known.untouched()
        if written:
            self._copy()
        return written


def _no() -> bool:
    return False


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def rows_of(ids: Tensor, chunk: int | None) -> Iterator[tuple[int, int, Rows]]:
    """A batch in parts whose masks are one group's: (place of the first, place after the last, rows).

    Args:
        ids: the number of each input, int64.
        chunk: inputs in a group, 0 for all; None if each is a group of its own.
    """
    if chunk is None:
        yield 0, len(ids), Rows(ids, None)
        return
    groups = ids // chunk if chunk else torch.zeros_like(ids)
    breaks = cast("list[int]", groups.diff().nonzero().flatten().add(1).tolist())
    for begin, end in zip([0, *breaks], [*breaks, len(ids)], strict=True):
        yield begin, end, Rows(ids[begin:end], int(groups[begin]))
