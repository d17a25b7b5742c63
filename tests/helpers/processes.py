"""Processes that run checks together, as ranks of one gloo group: started once, bounded in time, with their errors.

A server process imports torch and dropkit once; ranks are forked from it, so that they start in milliseconds. They meet
in a file, and need no port. An error, or a call that takes too long, ends all of them; the next call starts new ones.
"""

from __future__ import annotations

import faulthandler
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

# Seconds that one call may take: many times what the slowest needs on a busy machine.
LIMIT = 120
_context: Any = get_context("forkserver")
# What checks import; DTensor imports the compiler with its first operator.
_context.set_forkserver_preload(
    ["pytest", "torch._dynamo", "torch.distributed.tensor", "dropkit.nn", "dropkit.functional"]
)


class Ranks:
    """A group of `world_size` processes."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._processes: list[Any] = []
        self._ends: list[Connection] = []
        self._folder: str | None = None

    def run(self, function: Callable[..., Any], *arguments: Any, limit: float = LIMIT) -> list[Any]:
        """Return what `function(*arguments)` returns on each rank; tensors come back as copies.

        Raises:
            AssertionError: the function raised on a rank, with that rank's traceback, or took more than `limit`
                seconds.
        """
        if not self._processes:
            self._start(limit)
        # Not `Connection.send`, with which torch shares memory instead of copying it.
        for end in self._ends:
            end.send_bytes(pickle.dumps((function, arguments, limit)))
        deadline = time.monotonic() + limit
        answers: dict[int, Any] = {}
        errors: dict[int, str] = {}
        waiting = {end: rank for rank, end in enumerate(self._ends)}
        while waiting:
            # Where one rank has failed, the others may wait for it for ever.
            ready = wait(list(waiting), 1.0 if errors else deadline - time.monotonic())
            for end in ready:
                rank = waiting.pop(end)
                try:
                    error, answers[rank] = pickle.loads(end.recv_bytes())
                except EOFError:
                    error = "the process ended"
                if error is not None:
                    errors[rank] = error
            if not ready:
                errors |= dict.fromkeys(waiting.values(), "no answer in time")
                break
        if errors:
            self.stop()
            raise AssertionError(
                "\n".join(f"rank {rank} of {self.world_size}: {errors[rank]}" for rank in sorted(errors))
            )
        return [answers[rank] for rank in range(self.world_size)]

    def stop(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._ends = [], []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, limit: float) -> None:
        self._folder = tempfile.mkdtemp(prefix="dropkit-ranks-")
        for rank in range(self.world_size):
            here, there = _context.Pipe()
            arguments = there, rank, self.world_size, f"{self._folder}/meeting", limit, sys.path
            process = _context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._ends.append(here)


def _work(end: Connection, rank: int, world_size: int, meeting: str, limit: float, path: list[str]) -> None:
    """Run what comes through the pipe, until it is closed."""
    sys.path[:] = path
    torch.set_num_threads(1)
    timeout = timedelta(seconds=limit)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size, timeout=timeout
    )
    while True:
        try:
            function, arguments, limit = pickle.loads(end.recv_bytes())
        except EOFError:
            return
        faulthandler.dump_traceback_later(limit, exit=True)
        try:
            answer = pickle.dumps((None, function(*arguments)))
        except BaseException:
            answer = pickle.dumps((traceback.format_exc(), None))
        faulthandler.cancel_dump_traceback_later()
        end.send_bytes(answer)
