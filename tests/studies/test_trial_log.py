"""The folder of a study: what is on the disk counts, and nothing else."""

import json
import os

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.trial import Outcome, Trial
from dropkit.studies.trial_log import SPECIFICATION, TRIALS, FolderInUse, OtherStudy, TrialLog, read_outcomes

SPEC = {"settings": ["a"], "seeds": 2, "data": {"p": (0.1, 0.5)}}
OUTCOMES = [
    Outcome(Trial("net", BASELINE, 0), {"test_error": 0.1}, {"epoch": (1.0,)}, 0.5),
    Outcome(Trial("net", Setting("dropout", 0.5, ("a", "ü\u2028")), 1), {"test_error": float("1e-300")}, {}, 0.5),
    Outcome(Trial("net", Setting("dropout", 0.1), 1), {}, {}, 0.5, "ValueError: two\nlines"),
]


def written(folder):
    with TrialLog(folder, SPEC) as log:
        for outcome in OUTCOMES:
            log.add(outcome)
    return folder / TRIALS


def resumed(folder):
    with TrialLog(folder, SPEC, resume=True) as log:
        return list(log.outcomes.values())


def test_outcomes_are_read_as_they_were_written(tmp_path):
    """Failures, names of any letters, and line ends in texts included; an outcome is a line."""
    path = written(tmp_path)

    assert resumed(tmp_path) == OUTCOMES
    assert list(read_outcomes(tmp_path).values()) == OUTCOMES
    assert path.read_bytes().count(b"\n") == len(OUTCOMES)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_half_written_line_is_removed(tmp_path, cut):
    """The lines before it are kept, and the next one begins on a line of its own."""
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])

    with TrialLog(tmp_path, SPEC, resume=True) as log:
        assert list(log.outcomes.values()) == OUTCOMES[:2]
        log.add(OUTCOMES[2])

    assert resumed(tmp_path) == OUTCOMES


@given(st.binary(max_size=60), st.sampled_from([0, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_a_damaged_line_costs_that_line_alone(tmp_path_factory, damage, place):
    """Whatever it holds."""
    folder = tmp_path_factory.mktemp("study")
    lines = written(folder).read_bytes().split(b"\n")
    lines[place] = damage.replace(b"\n", b"")
    (folder / TRIALS).write_bytes(b"\n".join(lines))

    assert resumed(folder) == [outcome for number, outcome in enumerate(OUTCOMES) if number != place]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"trial": {"seed": 1e999}}', b"NaN", b"\xff"])
def test_a_line_of_other_json_is_no_outcome(tmp_path, line):
    """Nor is one that Python's parser cannot take."""
    path = written(tmp_path)
    path.write_bytes(line + b"\n" + path.read_bytes())

    assert resumed(tmp_path) == OUTCOMES


def test_an_outcome_counts_once(tmp_path):
    """The first one, in memory and in the file."""
    again = Outcome(OUTCOMES[0].trial, {"test_error": 0.9})
    path = written(tmp_path)
    with TrialLog(tmp_path, SPEC, resume=True) as log:
        log.add(again)
    path.write_bytes(path.read_bytes() + json.dumps(again.to_dict()).encode() + b"\n")

    assert resumed(tmp_path) == OUTCOMES


def test_a_folder_must_be_resumed_by_name(tmp_path):
    """A second run does not go on by accident."""
    written(tmp_path)

    with pytest.raises(OtherStudy, match="holds 3 finished trials of this study; resume it, or take another folder"):
        TrialLog(tmp_path, SPEC).__enter__()


def test_another_study_is_refused(tmp_path):
    """The message names what differs; where it runs and what its command was do not count."""
    written(tmp_path)

    with pytest.raises(OtherStudy, match="with another seeds"):
        TrialLog(tmp_path, {**SPEC, "seeds": 3}, resume=True).__enter__()
    with TrialLog(tmp_path, {**SPEC, "provenance": {"command": "again"}}, resume=True) as log:
        assert len(log.outcomes) == 3


def test_trials_without_their_specification_are_refused(tmp_path):
    """What they were trained for is unknown."""
    written(tmp_path)
    os.remove(tmp_path / SPECIFICATION)

    with pytest.raises(OtherStudy, match=r"has trials.jsonl without study.json"):
        TrialLog(tmp_path, SPEC, resume=True).__enter__()


def test_a_folder_is_for_one_process(tmp_path):
    """A second one is refused at once; the lock is free again after any end."""
    with TrialLog(tmp_path, SPEC), pytest.raises(FolderInUse, match="another process runs a study"):
        TrialLog(tmp_path, SPEC, resume=True).__enter__()
    with pytest.raises(OtherStudy):
        TrialLog(tmp_path, {**SPEC, "seeds": 3}).__enter__()

    with FileLock(tmp_path / ".lock", timeout=0):
        pass


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    """The outcome is not believed, and those before it are kept."""
    with TrialLog(tmp_path, SPEC) as log:
        log.add(OUTCOMES[0])
        before = (tmp_path / TRIALS).read_bytes()
        monkeypatch.setattr(os, "fsync", _full)
        with pytest.raises(OSError, match="No space left"):
            log.add(OUTCOMES[1])
        assert list(log.outcomes.values()) == OUTCOMES[:1]
        assert (tmp_path / TRIALS).read_bytes() == before
        monkeypatch.undo()
        log.add(OUTCOMES[1])

    assert resumed(tmp_path) == OUTCOMES[:2]


def _full(descriptor):
    raise OSError(28, "No space left on device")


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    """Outcomes are kept in memory."""
    monkeypatch.chdir(tmp_path)

    with TrialLog(None, SPEC) as log:
        log.add(OUTCOMES[0])

    assert list(log.outcomes.values()) == OUTCOMES[:1]
    assert list(tmp_path.iterdir()) == []
