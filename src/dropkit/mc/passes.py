"""Passes: a model run many times on one batch, each time with the masks of another sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.mc.batches import Batch
from dropkit.mc.coins import Coins, Rows
from dropkit.mc.keyed import Keyed
from dropkit.mc.layout import Layout
from dropkit.mc.probing import layouts
from dropkit.mc.sampling import nothing
from dropkit.mc.tape import Diverged, Known, Tape, held_by, tensors
from dropkit.mc.thin import Stale

# Enough to tell the inputs from most other sizes, and to roll.
_PROBED = 3


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
        # The model writes over its inputs, or may: it is given copies, so that the user's stay what they are.
        self._writes = True
        self._held = held_by(model)
        self._layouts: list[Layout | None] | None = None
        self._said_lost = False
        # Why an idea was given up, for the user.
        self.notes: list[str] = []

    def run(self, batch: Batch, rows: Rows, samples: int) -> Iterator[Tensor]:
        """The outputs of one sample after another.

        Raises:
            NothingToSample: nothing draws.
        """
        self._probe(batch)
        self._coins.forget_batch()
        mode = Keyed(self._coins, self._layouts or [], rows)
        tape: Tape | None = None
        for sample in range(samples):
            output, tape = self._pass(mode, batch, rows, sample, tape)
            if not mode.drawn:
                raise nothing()
            if mode.lost and not self._said_lost:
                self._said_lost = True
                self._say_lost(mode.lost)
            yield output

    def _pass(
        self, mode: Keyed, batch: Batch, rows: Rows, sample: int, tape: Tape | None
    ) -> tuple[Tensor, Tape | None]:
        """One pass, and the tape for the next."""
        given = batch.copied() if self._writes else batch
        if tape is None and self._replay:
            tape = Tape(Known([*self._held, *tensors([given.args, given.kwargs])]), self._copying)
        elif tape is not None:
            tape.begin()
        thin = self._thin and rows.group is not None
        try:
            output = self._once(mode, given, sample, tape, thin)
        except Stale as stale:
            mode.never_wait(stale.place)
            return self._pass(mode, batch, rows, sample, None)
        except Exception as error:
            if thin and not isinstance(error, Diverged):
                self._thin = False
                self.notes.append(f"nothing was cut out: {_said(error)}")
            elif tape is not None and not tape.recording:
                self._give_up_replay(f"the model does not run the same way before its first draw ({_said(error)})")
            else:
                raise
            return self._pass(mode, batch, rows, sample, None)
        if tape is not None:
            tape = self._judged(tape)
        return output, tape

    def _once(self, mode: Keyed, batch: Batch, sample: int, tape: Tape | None, thin: bool) -> Tensor:
        mode.begin(sample, tape, thin)
        with mode:
            output = self._output(self._model(*batch.args, **batch.kwargs))
        if tape is not None and tape.running and not tape.recording:
            raise Diverged("no draw, where the first pass drew")
        output = mode.dense(output)
        mode.end()
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

    def _probe(self, batch: Batch) -> None:
        """Find the layouts, as soon as there are two inputs to tell apart."""
        if self._layouts is not None or batch.count < 2:
            return
        few, fault = batch.take(0, min(batch.count, _PROBED)), ""
        # A model may want batches of one size.
        for part in (few, batch):
            try:
                self._layouts = self._found(part)
                break
            except Exception as error:
                fault = _said(error)
        else:
            self._layouts = []
            self.notes.append(f"masks depend on the batches: inputs cannot be told apart by rolling them ({fault})")
        lost = [site for site, layout in enumerate(self._layouts) if layout is None]
        if lost:
            self._say_lost(lost)

    def _say_lost(self, sites: Iterable[int]) -> None:
        places = ", ".join(map(str, sorted(sites)))
        self.notes.append(f"masks depend on the batches: inputs cannot be told apart at draw {places}")

    def _found(self, batch: Batch) -> list[Layout | None]:
        batch = batch.copied()
        rolled = batch.rolled()
        before = Known(tensors([batch.args, batch.kwargs]))

        def run(roll: bool) -> None:
            one = rolled if roll else batch
            self._model(*one.args, **one.kwargs)

        found = layouts(run, batch.count)
        self._writes = not before.untouched()
        return found


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
