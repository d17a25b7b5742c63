"""The progress bar: when it is shown, what it shows, and that it needs no thread."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from dropkit.report import progress
from dropkit.report.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    # Not a fixture: pytest sets sys.stderr again between the set-up of a test and its call.
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the bar reads, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    """Work that ends within two seconds writes nothing."""
    terminal = _terminal(monkeypatch)

    with Progress("checking", 10) as bar:
        clock[0] = 1.9
        bar.advance(9)

    assert terminal.getvalue() == ""


def test_long_work_shows_what_is_done(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    """After two seconds the bar shows the description and the steps that are done, of all."""
    terminal = _terminal(monkeypatch)

    with Progress("checking", 10) as bar:
        clock[0] = 2.1
        bar.advance(4)

    assert "checking" in terminal.getvalue()
    assert "4/10" in terminal.getvalue()


def test_a_total_may_be_known_late(monkeypatch: pytest.MonkeyPatch):
    """`update` sets the steps that are done, how many there are, and what is being done."""
    terminal = _terminal(monkeypatch)

    with Progress("checking", visible=True) as bar:
        bar._next_refresh = 0.0
        bar.update(3, 7, "reading")

    assert "reading" in terminal.getvalue()
    assert "3/7" in terminal.getvalue()


@pytest.mark.parametrize("visible", [None, False])
def test_no_bar_without_a_terminal(visible: bool | None, capsys: pytest.CaptureFixture[str], clock: list[float]):
    """Where standard error is a file, a bar must be asked for."""
    with Progress("checking", 10, visible) as bar:
        clock[0] = 5.0
        bar.advance()

    assert capsys.readouterr().err == ""


def test_no_bar_where_standard_error_is_closed(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    """Python has no stream where the shell closed it."""
    monkeypatch.setattr(sys, "stderr", None)

    with Progress("checking", 10) as bar:
        clock[0] = 5.0
        bar.advance()


def test_a_bar_runs_no_thread(monkeypatch: pytest.MonkeyPatch):
    """A process may be forked while the bar is shown."""
    _terminal(monkeypatch)
    threads = threading.active_count()

    with Progress("checking", 10, visible=True) as bar:
        bar.advance()

        assert threading.active_count() == threads
