"""Share the trials of a study with workers on other machines, through an Optuna storage.

Each trial is a trial of an Optuna study: WAITING, then RUNNING once a worker has claimed it, COMPLETE once its outcome
is stored, and FAIL if its worker sends no heartbeats any more. The storage makes each change atomic, so that one worker
claims a trial, and it is either completed or failed. The coordinator adds whatever is neither waiting, running nor
complete, and takes the first outcome of each trial: none is lost, and none counts twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from dropkit.studies.storage import import_optuna, open_storage, quiet
from dropkit.studies.trial import Outcome, Trial
from dropkit.studies.trial_log import OtherStudy
from dropkit.studies.workers import MAX_DEATHS, OnOutcome, Train, attempt

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

# In seconds, between two heartbeats of a worker.
HEARTBEAT = 10.0
# After so many heartbeats without one a worker is dead; more than a journal's lock may hold it up.
_MISSED = 6
# How often the storage is asked for news, in each heartbeat.
_POLLS = 10

# Attributes of the Optuna study, and of its trials.
_SPECIFICATION, _WORK, _FINISHED, _INTERVAL = "specification", "work", "finished", "heartbeat_seconds"
_KEY, _OUTCOME, _BEAT, _RETURNED = "key", "outcome", "heartbeat", "returned"


class SharedStudy:
    """The trials of one study in a storage.

    Args:
        storage: where it is.
        name: of the study, which exists.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        optuna = import_optuna()
        self.name = name
        self._storage = storage
        self._id = storage.get_study_id_from_name(name)
        self._state: Any = optuna.trial.TrialState
        self._is_over: Any = optuna.exceptions.UpdateFinishedTrialError
        self._heartbeat = float(self._attributes.get(_INTERVAL, HEARTBEAT))

    @classmethod
    def create(
        cls,
        url: str,
        name: str,
        specification: Mapping[str, Any],
        work: Mapping[str, Any],
        resume: bool = False,
        heartbeat: float = HEARTBEAT,
    ) -> SharedStudy:
        """Return the study of a coordinator.

        Args:
            url: as of `open_storage`.
            name: by which workers find the study.
            specification: what is studied, as plain values, such as `Plan.to_dict`; a study of this name with another
                one is refused, and so is a worker that finds another one with its data and code.
            work: what workers need to find the specification and train its trials, as plain values.
            resume: whether outcomes that the storage has are kept; if not, it must have none.
            heartbeat: seconds between two heartbeats of a worker.

        Raises:
            OtherStudy: the storage has another study of this name, or this one was not asked to be resumed.
        """
        optuna = import_optuna()
        storage = open_storage(url)
        with suppress(optuna.exceptions.DuplicatedStudyError), quiet(optuna):
            storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], name)
        study = cls(storage, name)
        study._check(specification, resume)
        study._heartbeat = heartbeat
        for key, value in {_INTERVAL: heartbeat, _FINISHED: False, _WORK: json.loads(json.dumps(work))}.items():
            storage.set_study_user_attr(study._id, key, value)
        return study

    @classmethod
    def join(cls, url: str, name: str | None = None, wait: float = 0.0) -> SharedStudy:
        """Return the study of a worker: the one of this name, or the only unfinished one.

        Args:
            url: as of `open_storage`.
            name: of the study.
            wait: seconds that the coordinator may take to create it.

        Raises:
            ValueError: there is none, or there are several.
        """
        storage = open_storage(url)
        end = monotonic() + wait
        while True:
            shared = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
            unfinished = [other for other in shared if _WORK in shared[other] and not shared[other].get(_FINISHED)]
            found = unfinished if name is None else [name] if _WORK in shared.get(name, {}) else []
            if len(found) == 1:
                return cls(storage, found[0])
            if monotonic() >= end or len(found) > 1:
                wanted = f"the name of a study in the storage ({', '.join(unfinished) or 'none'} unfinished)"
                raise ValueError(f"study must be {wanted}, got {name!r}")
            sleep(1)

    @property
    def work(self) -> Mapping[str, Any]:
        """What workers need to train the trials."""
        return self._attributes[_WORK]

    @property
    def is_finished(self) -> bool:
        """Whether the coordinator has all outcomes."""
        return bool(self._attributes.get(_FINISHED))

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes that the storage has."""
        complete: list[Any] = self._storage.get_all_trials(self._id, deepcopy=False, states=(self._state.COMPLETE,))
        return [outcome for item in complete if (outcome := _outcome(item)) is not None]

    def differences(self, specification: Mapping[str, Any]) -> list[str]:
        """Return the names of what differs from the specification of the study."""
        here, there = comparable(specification), self._attributes[_SPECIFICATION]
        return [name for name in here | there if here.get(name) != there.get(name)]

    def run(self, trials: Sequence[Trial], train: Train, workers: int, on_outcome: OnOutcome) -> None:
        """Have workers train every trial, and report each outcome as it comes.

        It is a `Runner`: outcomes are those of `workers.run`. An exception of `on_outcome` ends the run; workers go on
        with the trials that wait.

        Args:
            trials: what is to be trained, in this order.
            train: unused, since workers have their own.
            workers: unused, since they come and go.
            on_outcome: called in this process; may return trials to be run after those that wait.
        """
        pending = {trial.key: trial for trial in trials}
        watch = _Watch(self._heartbeat * _MISSED)
        damaged: dict[int, bool] = {}
        while pending:
            shared: list[Any] = self._storage.get_all_trials(self._id, deepcopy=False)
            is_idle = True
            for item in shared:
                if item.state == self._state.COMPLETE and item.number not in damaged:
                    outcome = _outcome(item)
                    damaged[item.number] = outcome is None
                    if outcome is not None and pending.pop(outcome.trial.key, None):
                        is_idle = False
                        pending |= {trial.key: trial for trial in on_outcome(outcome) or ()}
            for item in shared:
                if item.state == self._state.RUNNING and watch.is_dead(item.number, item.user_attrs.get(_BEAT)):
                    self._set(item.number, self._state.FAIL)
            self._add_missing(shared, damaged, pending, on_outcome)
            if is_idle:
                sleep(self._heartbeat / _POLLS)
        self._storage.set_study_user_attr(self._id, _FINISHED, True)

    def train_trials(
        self, train: Train, wait: float, on_outcome: Callable[[Outcome], Any] = lambda outcome: None
    ) -> int:
        """Train trials, one after the other, until the study is finished; return how many.

        A trial that is interrupted, as by Ctrl-C, is given back.

        Args:
            train: trains one.
            wait: seconds without a trial after which to stop.
            on_outcome: called after each.
        """
        done, since = 0, monotonic()
        while not self.is_finished and monotonic() - since <= wait:
            number, trial = self._claim()
            if trial is None:
                sleep(self._heartbeat / _POLLS)
                continue
            try:
                with self._heartbeats(number):
                    outcome = attempt(train, trial)
            except BaseException:
                with suppress(self._is_over):
                    self._storage.set_trial_user_attr(self._storage_id(number), _RETURNED, True)
                self._set(number, self._state.FAIL)
                raise
            if self._complete(number, outcome):
                done += 1
                on_outcome(outcome)
            since = monotonic()
        return done

    @property
    def _attributes(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._id)

    def _check(self, specification: Mapping[str, Any], resume: bool) -> None:
        if _SPECIFICATION not in self._attributes:
            self._storage.set_study_user_attr(self._id, _SPECIFICATION, comparable(specification))
            return
        different = self.differences(specification)
        if different:
            raise OtherStudy(f"the storage has a study {self.name} with another {', '.join(different)}")
        finished = len(self._storage.get_all_trials(self._id, deepcopy=False, states=(self._state.COMPLETE,)))
        if finished and not resume:
            raise OtherStudy(
                f"the storage has {finished} finished trials of {self.name}; resume it, or take another name"
            )

    def _add_missing(
        self, shared: Sequence[Any], damaged: Mapping[int, bool], pending: dict[str, Trial], on_outcome: OnOutcome
    ) -> None:
        """Add the trials that neither wait, nor run, nor are complete; one whose workers died too often has failed."""
        is_lost = [item.state == self._state.FAIL or damaged.get(item.number, False) for item in shared]
        there = {item.user_attrs.get(_KEY) for item, lost in zip(shared, is_lost, strict=True) if not lost}
        lost = [item for item, lost in zip(shared, is_lost, strict=True) if lost]
        deaths = Counter(item.user_attrs.get(_KEY) for item in lost if not item.user_attrs.get(_RETURNED))
        for key, trial in list(pending.items()):
            if key in there:
                continue
            if deaths[key] > MAX_DEATHS:
                del pending[key]
                outcome = Outcome(trial, {}, failure=f"its process ended {deaths[key]} times")
                pending |= {more.key: more for more in on_outcome(outcome) or ()}
                continue
            template = import_optuna().trial.create_trial(state=self._state.WAITING, user_attrs={_KEY: key})
            self._storage.create_new_trial(self._id, template)

    def _claim(self) -> tuple[int, Trial | None]:
        """Claim the first trial that waits and that nobody else claims."""
        waiting: list[Any] = self._storage.get_all_trials(self._id, deepcopy=False, states=(self._state.WAITING,))
        for item in waiting:
            if self._set(item.number, self._state.RUNNING):
                return item.number, Trial.from_key(item.user_attrs[_KEY])
        return -1, None

    def _storage_id(self, number: int) -> int:
        """What the storage calls the trial of this number."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _complete(self, number: int, outcome: Outcome) -> bool:
        """Store an outcome, unless the trial was given to another worker since this one seemed dead."""
        try:
            self._storage.set_trial_user_attr(self._storage_id(number), _OUTCOME, outcome.to_dict())
        except self._is_over:
            return False
        # Optuna wants a value for each complete trial; nobody reads it.
        return self._set(number, self._state.COMPLETE, [0.0])

    def _set(self, number: int, state: Any, values: list[float] | None = None) -> bool:
        """Change the state of a trial; return whether this process did it, not another."""
        try:
            return self._storage.set_trial_state_values(self._storage_id(number), state, values)
        except self._is_over:
            return False

    @contextmanager
    def _heartbeats(self, number: int) -> Generator[None]:
        ended = Event()

        def beat() -> None:
            for beats in count(1):
                if ended.wait(self._heartbeat):
                    return
                try:
                    self._storage.set_trial_user_attr(self._storage_id(number), _BEAT, beats)
                except self._is_over:
                    return
                except Exception:  # (the storage is away; the next heartbeat may reach it)
                    continue

        thread = Thread(target=beat, name="dropkit-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Watch:
    """Notices trials whose heartbeats stop, by the clock of this machine: those of others may be wrong."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last: dict[int, tuple[Any, float]] = {}

    def is_dead(self, number: int, beat: Any) -> bool:
        before, since = self._last.setdefault(number, (beat, monotonic()))
        if beat != before:
            self._last[number] = (beat, monotonic())
            return False
        return monotonic() - since > self._patience


def comparable(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification as JSON holds it, without what outcomes do not depend on."""
    return {name: value for name, value in json.loads(json.dumps(specification)).items() if name != "provenance"}


def _outcome(item: Any) -> Outcome | None:
    """The stored outcome; None if it is damaged."""
    try:
        outcome = Outcome.from_dict(item.user_attrs[_OUTCOME])
    except (KeyError, ValueError):
        return None
    return outcome if outcome.trial.key == item.user_attrs.get(_KEY) else None
