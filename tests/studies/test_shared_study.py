"""Studies that machines share: outcomes are those of one machine, whichever processes die."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import contextmanager
from threading import Event, Thread

import optuna
import pytest
from helpers.storage_servers import grpc_proxy, postgresql
from helpers.study_workers import HEARTBEAT, SPECIFICATION, WORK, coordinate, start, train, trials, work

from dropkit.studies import Outcome
from dropkit.studies.journal import open_journal
from dropkit.studies.shared_study import SharedStudy
from dropkit.studies.storage import open_storage
from dropkit.studies.trial_log import OtherStudy, read_outcomes
from dropkit.studies.workers import run

# Twenty take a minute.
KILLS = int(os.environ.get("DROPKIT_KILLS", "3"))


@pytest.fixture
def url(tmp_path):
    return f"journal:{tmp_path / 'study.journal'}"


def create(url, resume=False, specification=SPECIFICATION, heartbeat=HEARTBEAT):
    return SharedStudy.create(url, "study", specification, WORK, resume, heartbeat)


def collect(study, chosen, workers=2, train=train):
    """Run trials with workers in threads; return the outcomes."""
    outcomes = []
    threads = [Thread(target=study.train_trials, args=(train, 60)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    study.run(chosen, train, 1, outcomes.append)
    for thread in threads:
        thread.join()
    return outcomes


def local(chosen):
    outcomes = []
    run(chosen, train, 1, outcomes.append)
    return {outcome.trial.key: outcome for outcome in outcomes}


def complete(url, name="study"):
    """How many complete trials the storage has of each key."""
    storage = open_storage(url)
    shared = storage.get_all_trials(storage.get_study_id_from_name(name))
    return Counter(t.user_attrs["key"] for t in shared if t.state == optuna.trial.TrialState.COMPLETE)


def test_outcomes_are_those_of_one_machine(url):
    """Every trial has one outcome, equal to that of a local run bit for bit."""
    outcomes = collect(create(url), trials(8))

    assert len(outcomes) == 8
    assert {outcome.trial.key: outcome for outcome in outcomes} == local(trials(8))


def test_outcomes_may_add_trials(url):
    """The trials that `on_outcome` returns run as well."""
    study, seeds = create(url), []

    def on_outcome(outcome):
        seeds.append(outcome.trial.seed)
        return trials(4)[2:] if outcome.trial.seed == 0 else None

    thread = Thread(target=study.train_trials, args=(train, 60))
    thread.start()
    study.run(trials(2), train, 1, on_outcome)
    thread.join()

    assert sorted(seeds) == [0, 1, 2, 3]


def test_resumed_study_trains_nothing_twice(url):
    """Outcomes that the storage has are reported without training."""
    collect(create(url), trials(3))

    outcomes = []
    create(url, resume=True).run(trials(3), train, 1, outcomes.append)

    assert {outcome.trial.key: outcome for outcome in outcomes} == local(trials(3))


def test_outcomes_are_kept_unless_resume_is_given(url):
    """A study with finished trials is not continued by accident."""
    collect(create(url), trials(2))

    with pytest.raises(OtherStudy, match="2 finished trials of study; resume it"):
        create(url)


def test_another_specification_is_refused(url):
    """A name stands for one study; where it ran, its provenance, does not matter."""
    create(url, specification={"data": "a", "provenance": "x"})

    create(url, specification={"data": "a", "provenance": "y"})
    with pytest.raises(OtherStudy, match="with another data"):
        create(url, specification={"data": "b"})


def test_exception_of_a_trial_is_its_failure(url):
    """An error of the user's code is an outcome, as in a local run."""

    def fail(trial):
        raise RuntimeError("out of memory")

    (outcome,) = collect(create(url), trials(1), workers=1, train=fail)

    assert outcome.failure == "RuntimeError: out of memory"


def test_interrupted_worker_gives_its_trial_back(url):
    """The trial waits again at once, and does not count as one whose worker died."""
    study = create(url, heartbeat=3600)  # so that missing heartbeats have no part in it

    def stop(trial):
        raise KeyboardInterrupt

    coordinator = Thread(target=study.run, args=(trials(1), train, 1, (outcomes := []).append))
    coordinator.start()
    study._heartbeat = HEARTBEAT
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            study.train_trials(stop, wait=60)
    study.train_trials(train, wait=60)
    coordinator.join()

    assert outcomes == list(local(trials(1)).values())


def test_trial_is_claimed_by_one_worker(url, monkeypatch):
    """A worker that saw a trial waiting does not get it where another one was faster."""
    study = create(url)
    template = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"key": trials(1)[0].key})
    study._storage.create_new_trial(study._id, template)
    slow = SharedStudy.join(url)
    before = slow._storage.get_all_trials(slow._id)
    monkeypatch.setattr(slow._storage, "get_all_trials", lambda *_, **__: before)

    assert study._claim() == (0, trials(1)[0])
    assert slow._claim() == (-1, None)


def test_worker_without_heartbeat_loses_its_trial(url):
    """What it stores later does not count, also where it would be another outcome."""
    study = create(url)
    late = SharedStudy.join(url)
    trial_id, trial = -1, None
    outcomes = []
    coordinator = Thread(target=study.run, args=(trials(1), train, 1, outcomes.append))
    coordinator.start()
    while trial is None:
        trial_id, trial = late._claim()

    study.train_trials(train, wait=60)
    coordinator.join()

    assert not late._complete(trial_id, Outcome(trial, {"test_error": -1.0}))
    assert outcomes == list(local(trials(1)).values())


def test_trial_whose_workers_die_fails(url):
    """A trial that ends every process that trains it is tried four times."""
    study, outcomes = create(url), []
    coordinator = Thread(target=study.run, args=(trials(1), train, 1, outcomes.append))
    coordinator.start()
    while coordinator.is_alive():
        study._claim()

    assert outcomes[0].failure == "its process ended 4 times"


def test_damaged_outcome_is_trained_again(url):
    """An outcome that cannot be read is no outcome."""
    study = create(url)
    storage = open_storage(url)
    template = optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE, value=0.0, user_attrs={"key": trials(1)[0].key, "outcome": {"a": 1}}
    )
    storage.create_new_trial(study._id, template)

    outcomes = collect(study, trials(1), workers=1)

    assert outcomes == list(local(trials(1)).values())


def test_half_written_line_of_a_journal_is_removed(tmp_path):
    """What a killed process left of a line costs no other line."""
    path = tmp_path / "study.journal"
    study = create(f"journal:{path}")
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"' + b"x" * 100_000)

    open_journal(str(path)).set_study_user_attr(study._id, "a", 1)

    assert open_journal(str(path)).get_study_user_attrs(study._id)["a"] == 1


@pytest.mark.parametrize(
    "url", ["study.db", "grpc://host", "grpc://host:port", "journal:", "journal:/nowhere/a", "a://b"]
)
def test_wrong_storage_is_named(url):
    """The error says which forms there are, or what is missing."""
    with pytest.raises(ValueError, match="storage must be"):
        open_storage(url)


def test_worker_names_the_studies_there_are(url):
    """Without a name there must be one unfinished study."""
    with pytest.raises(ValueError, match=r"\(none unfinished\), got None"):
        SharedStudy.join(url)
    create(url)
    with pytest.raises(ValueError, match=r"\(study unfinished\), got 'other'"):
        SharedStudy.join(url, "other")

    assert SharedStudy.join(url).work == WORK


def kill_at_random(url, folder, kills, count):
    """Run a coordinator and two workers, and kill one of them at each of some random moments, and start it again."""
    moments, never = random.Random(0), Event()
    processes = [start(coordinate, url, folder, count), start(work, url), start(work, url)]
    for _ in range(kills):
        never.wait(moments.uniform(0, 0.5))
        index = moments.randrange(3)
        processes[index].kill()
        processes[index].join()
        processes[index] = start(coordinate, url, folder, count) if index == 0 else start(work, url)
    for process in processes:
        process.join(120)


@contextmanager
def storage_of(kind, folder):
    """Give the URL of an empty storage."""
    if kind == "journal":
        yield f"journal:{folder / 'journal'}"
    elif kind == "postgresql":
        with postgresql() as url:
            yield url
    else:
        with grpc_proxy(f"sqlite:///{folder / 'study.db'}") as url:
            yield url


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql", "grpc"])
def test_killed_workers_and_coordinators_lose_nothing(kind, tmp_path):
    """Processes are killed at random moments: every trial has one outcome, that of an undisturbed run."""
    count, folder = 4 * KILLS, tmp_path / "folder"

    with storage_of(kind, tmp_path) as url:
        kill_at_random(url, str(folder), KILLS, count)
        times = complete(url)

    assert (folder / "finished").exists()
    assert read_outcomes(folder) == local(trials(count))
    assert set(times.values()) == {1}
