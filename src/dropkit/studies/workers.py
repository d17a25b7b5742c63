"""Run trials one after the other, or in several processes that may die without loss."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

from dropkit.extras import needed_for
from dropkit.studies.trial import Outcome, Trial

Train = Callable[[Trial], Outcome]
# Called with each outcome as it comes; the trials that it returns are run as well.
OnOutcome = Callable[[Outcome], Iterable[Trial] | None]
# What runs trials: `run`, or a storage that other machines share.
Runner = Callable[[Sequence[Trial], Train, int, OnOutcome], None]

# A trial whose process ends so often is not tried again.
MAX_DEATHS = 3
# In seconds: how often a worker looks whether its coordinator lives, which is how long it outlives one that was killed.
_WATCH = 1.0


def run(trials: Sequence[Trial], train: Train, workers: int, on_outcome: OnOutcome) -> None:
    """Train every trial and report each outcome as it comes; outcomes do not depend on `workers`.

    An exception of a trial is its failure. An exception of `on_outcome` ends the run.

    Args:
        trials: what is to be trained, in this order.
        train: trains one; with several workers it is pickled, by value where it is defined in a script.
        workers: processes; with 1 trials run in this one.
        on_outcome: called in this process; may return trials to be run after those that wait.
    """
    if workers == 1 or not trials:
        waiting = deque(trials)
        while waiting:
            waiting.extend(on_outcome(attempt(train, waiting.popleft())) or ())
    else:
        _run_in_processes(trials, train, workers, on_outcome)


def attempt(train: Train, trial: Trial) -> Outcome:
    """Train one trial; an exception is a failure, except for a request to stop."""
    try:
        return train(trial)
    except Exception as error:  # of the user's code
        return Outcome(trial, {}, failure=f"{type(error).__name__}: {error}")


def _run_in_processes(trials: Sequence[Trial], train: Train, workers: int, on_outcome: OnOutcome) -> None:
    # Unlike the pools of the standard library it needs no `if __name__ == "__main__"` and takes any function.
    with needed_for("a study with several workers", "study"):
        import cloudpickle
        from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    _start_tracker()
    # Bytes, so that a worker which cannot load them reports it as a failure of its trials.
    work = cloudpickle.dumps(train)
    pending = {trial.key: trial for trial in trials}
    deaths: dict[str, int] = {}
    while pending:
        # A process that ends takes the others along. What may have ended it runs alone, so that no other is blamed.
        suspects = [trial for key, trial in pending.items() if key in deaths]
        batch, size = (suspects, 1) if suspects else (list(pending.values()), workers)
        pool: Any = ProcessPoolExecutor(size, initializer=_initialise, initargs=(work, os.getpid()))
        try:
            with _no_interrupts():
                futures: set[Future[Outcome]] = {pool.submit(_attempt, trial) for trial in batch}
            while futures:
                done, futures = wait(futures, return_when=FIRST_COMPLETED)
                # Outcomes first, so that a process which ends at the same time does not cost them.
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    outcome = future.result()
                    del pending[outcome.trial.key]
                    for trial in on_outcome(outcome) or ():
                        pending[trial.key] = trial
                        if not suspects:
                            futures.add(pool.submit(_attempt, trial))
        except BrokenProcessPool:
            # All futures fail together; the first of those that remain had begun.
            for trial in [trial for trial in batch if trial.key in pending][:size]:
                deaths[trial.key] = deaths.get(trial.key, 0) + 1
                if deaths[trial.key] > MAX_DEATHS:
                    del pending[trial.key]
                    failure = f"its process ended {deaths[trial.key]} times"
                    for other in on_outcome(Outcome(trial, {}, failure=failure)) or ():
                        pending[other.key] = other
        finally:
            pool.shutdown(wait=False, kill_workers=True)


def _start_tracker() -> None:
    """Start the process that cleans up after a coordinator that was killed, so that it does not warn of doing so."""
    from loky.backend.resource_tracker import ensure_running

    before = dict(os.environ)
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _no_interrupts() -> Generator[None]:
    """Hold back Ctrl-C, which a terminal sends to all processes, and for good from those that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_work = b""


def _initialise(work: bytes, coordinator: int) -> None:
    """Receive once what all trials of this process need, such as the data; end when the coordinator has ended."""
    global _work
    _work = work
    threading.Thread(target=_watch, args=(coordinator,), daemon=True).start()


def _watch(coordinator: int) -> None:
    while os.getppid() == coordinator:
        time.sleep(_WATCH)
    os.kill(os.getpid(), signal.SIGTERM)


@cache
def _train() -> Train:
    return pickle.loads(_work)


def _attempt(trial: Trial) -> Outcome:
    return attempt(lambda trial: _train()(trial), trial)
