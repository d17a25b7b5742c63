"""A study on one machine whose workers and coordinator are killed at random moments."""

import os
import random
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from helpers.study_workers import coordinate_here, start, train, trials

from dropkit.studies.trial_log import TRIALS, read_outcomes

# Twenty take some minutes.
KILLS = int(os.environ.get("DROPKIT_KILLS", "3"))
# In seconds: for what takes one or two on a machine that does nothing else.
_LIMIT = 120


def wait_until(holds):
    """Wait until a condition holds, and say how long it took."""
    begin, never = monotonic(), Event()
    while not holds():
        assert monotonic() - begin < _LIMIT
        never.wait(0.02)
    return monotonic() - begin


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    """The processes that a process has started, by what they run."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}
    except OSError:
        return {}


def workers(pid):
    return [child for child, command in children(pid).items() if "popen_loky" in command]


def lines(folder):
    path = Path(folder, TRIALS)
    return path.read_bytes().splitlines() if path.exists() else []


def kill_at_random(folder, kills, count):
    """Start a coordinator with two workers; kill one of them at random moments, and start the coordinator again."""
    moments, coordinator = random.Random(0), start(coordinate_here, str(folder), count)
    for number in range(kills):
        wanted, pid = len(lines(folder)) + moments.randrange(3), coordinator.pid
        wait_until(lambda wanted=wanted, pid=pid: len(lines(folder)) >= wanted and workers(pid))
        Event().wait(moments.uniform(0, 0.2))
        if number % 2 == 0:
            # A pool that begins anew has none for a moment.
            wait_until(lambda pid=pid: workers(pid) or not is_running(pid))
            if running := workers(pid):
                os.kill(moments.choice(running), 9)
            continue
        started = children(pid)
        coordinator.kill()
        coordinator.join()
        wait_until(lambda started=started: not any(map(is_running, started)))
        coordinator = start(coordinate_here, str(folder), count)
    coordinator.join(_LIMIT)
    return coordinator


@pytest.mark.slow
def test_a_killed_study_loses_no_trial_and_leaves_no_process(tmp_path):
    """Every trial has one outcome, that of an undisturbed run, and all processes end with their coordinator."""
    count = 8 * KILLS

    coordinator = kill_at_random(tmp_path, KILLS, count)

    assert (tmp_path / "finished").exists()
    assert coordinator.exitcode == 0
    assert len(lines(tmp_path)) == count
    assert read_outcomes(tmp_path) == {trial.key: train(trial) for trial in trials(count)}
    assert (tmp_path / "stderr").read_text() == ""
