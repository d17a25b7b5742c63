"""Optuna's journal file, repaired where a process was killed, or a disk was full, while it wrote a line."""

from __future__ import annotations

import os

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

# In seconds: how long the others wait for a process that was killed while it wrote. A file system of a network may
# take long to write, but not so long.
GRACE = 30
_BLOCK = 1 << 16


class _RepairingLock(JournalFileSymlinkLock):
    """A lock that removes a half-written line, since with one all lines after it would be unreadable."""

    def __init__(self, file: str) -> None:
        super().__init__(file, grace_period=GRACE)
        self._file = file

    def acquire(self) -> bool:
        is_acquired = super().acquire()
        try:
            _remove_half_line(self._file)
        except BaseException:
            self.release()
            raise
        return is_acquired


def open_journal(file: str) -> JournalStorage:
    """Return the storage of a journal file, which is made if it does not exist."""
    return JournalStorage(JournalFileBackend(file, lock_obj=_RepairingLock(file)))


def _remove_half_line(path: str) -> None:
    with open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end < size:
            file.truncate(end)
