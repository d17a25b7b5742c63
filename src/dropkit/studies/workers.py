"""Run trials one after the other, or in several processes that may die without loss."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from dropkit.studies.trial import Outcome, Trial

Train = Callable[[Trial], Outcome]
# Called with each outcome as it comes; the trials that it returns are run as well.
OnOutcome = Callable[[Outcome], Iterable[Trial] | None]
# What runs trials: `run`, or a storage that other machines share.
Runner = Callable[[Sequence[Trial], Train, int, OnOutcome], None]

# A trial whose process ends so often is not tried again.
MAX_DEATHS = 3
# In seconds: how long idle workers wait, which is how long they outlive a coordinator that was killed.
_IDLE = 10


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
    from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    pending = {trial.key: trial for trial in trials}
    deaths: dict[str, int] = {}
    while pending:
        pool: Any = ProcessPoolExecutor(workers, timeout=_IDLE, initializer=_initialise, initargs=(train,))
        try:
            futures: set[Future[Outcome]] = {pool.submit(_attempt, trial) for trial in pending.values()}
            while futures:
                done, futures = wait(futures, return_when=FIRST_COMPLETED)
                # Outcomes first, so that a process which ends at the same time does not cost them.
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    outcome = future.result()
                    del pending[outcome.trial.key]
                    for trial in on_outcome(outcome) or ():
                        pending[trial.key] = trial
                        futures.add(pool.submit(_attempt, trial))
        except BrokenProcessPool:
            # All futures fail together. Those that had begun may be what ended the process.
            for trial in list(pending.values())[: workers + 1]:
                deaths[trial.key] = deaths.get(trial.key, 0) + 1
                if deaths[trial.key] > MAX_DEATHS:
                    on_outcome(Outcome(trial, {}, failure=f"its process ended {deaths[trial.key]} times"))
                    del pending[trial.key]
        finally:
            pool.shutdown(wait=False, kill_workers=True)


_train: Train | None = None


def _initialise(train: Train) -> None:
    """Receive once what all trials of this process need, such as the data."""
    global _train
    _train = train


def _attempt(trial: Trial) -> Outcome:
    assert _train is not None  # for pyright
    return attempt(_train, trial)
