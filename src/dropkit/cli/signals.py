"""SIGTERM as an exception, so that a command that is stopped can say what it has kept."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from signal import SIGTERM, signal


class Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def sigterm_raises() -> Generator[None]:
    """Raise `Terminated` at SIGTERM, as Python raises `KeyboardInterrupt` at SIGINT."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can set signal handlers.
        yield
        return
    before = signal(SIGTERM, stop)
    try:
        yield
    finally:
        signal(SIGTERM, before)
