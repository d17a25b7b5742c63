"""A folder that keeps the outcomes of a study as they come, so that nothing finished is lost or done twice.

`study.json` says what is studied, `trials.jsonl` has a line for each outcome. A line counts once its end is on the
disk: what a crash or a full disk cut short is removed, and its trial runs again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from filelock import FileLock, Timeout

from dropkit import files
from dropkit.studies.trial import Outcome

TRIALS = "trials.jsonl"
SPECIFICATION = "study.json"
_LOCK = ".lock"


class FolderInUse(RuntimeError):
    """Another process runs a study in the folder."""


class OtherStudy(ValueError):
    """The folder holds another study, or this one was not asked to be resumed."""


class TrialLog:
    """The outcomes of one study, in memory, and in a folder if there is one.

    Use it in a `with` block, which locks the folder.

    Args:
        folder: made if it does not exist; None to keep outcomes in memory only.
        specification: what is studied, as plain values; a folder with another specification is refused.
        resume: whether outcomes of an earlier, interrupted run are kept; if not, the folder must hold none.

    Raises:
        FolderInUse: at `with`, if another process has the folder.
        OtherStudy: at `with`, if it holds what this study must not change.
    """

    def __init__(self, folder: str | Path | None, specification: Mapping[str, Any], resume: bool = False) -> None:
        self.folder: Path | None = None if folder is None else Path(folder)
        self._specification = json.loads(json.dumps(specification))
        self._resume = resume
        self._outcomes: dict[str, Outcome] = {}
        self._file: Any = None
        self._open = ExitStack()

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Outcomes by the key of their trial."""
        return self._outcomes

    def __enter__(self) -> TrialLog:
        if self.folder is not None:
            with ExitStack() as stack:
                self._enter(stack, self.folder)
                self._open = stack.pop_all()
        return self

    def _enter(self, stack: ExitStack, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(FileLock(folder / _LOCK, timeout=0))
        except Timeout:
            raise FolderInUse(f"another process runs a study in {folder}") from None
        self._check_specification(folder)
        file = stack.enter_context(open(folder / TRIALS, "a+b", buffering=0))  # noqa: SIM115 (closed by the stack)
        file.seek(0)
        content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) < len(content):
            file.truncate(len(complete))
        self._outcomes = _parse(complete)
        if self._outcomes and not self._resume:
            count = len(self._outcomes)
            raise OtherStudy(f"{folder} holds {count} finished trials of this study; resume it, or take another folder")
        self._file = file

    def _check_specification(self, folder: Path) -> None:
        path = folder / SPECIFICATION
        if not path.exists():
            others = [name for name in (TRIALS,) if (folder / name).exists()]
            if others:
                raise OtherStudy(f"{folder} has {TRIALS} without {SPECIFICATION}; take another folder")
            files.write(path, (json.dumps(self._specification, indent=2) + "\n").encode())
            return
        try:
            there = json.loads(files.read(path))
        except ValueError:
            there = None
        if _compared(there) != _compared(self._specification):
            different = [
                name for name, value in _compared(self._specification).items() if not _same(there, name, value)
            ]
            what = f"with another {', '.join(different)}" if different else "that this one does not know"
            raise OtherStudy(f"{folder} holds a study {what}; take another folder, or the command in {path}")

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome: it is on the disk when this returns.

        Raises:
            OSError: it could not be written, as on a full disk; the outcomes before it are kept.
        """
        if outcome.trial.key in self._outcomes:
            return
        if self._file is not None:
            line = json.dumps(outcome.to_dict(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
            start = os.fstat(self._file.fileno()).st_size
            try:
                written = self._file.write(line)
                if written != len(line):
                    raise OSError(28, f"only {written} of {len(line)} bytes were written", str(self.folder))
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(start)
                raise
        self._outcomes[outcome.trial.key] = outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None
        self._open.close()


def read_outcomes(folder: str | Path) -> dict[str, Outcome]:
    """Return the outcomes in a folder, which another process may still add to, by the key of their trial."""
    path = Path(folder, TRIALS)
    content = files.read(path) if path.exists() else b""
    return _parse(content[: content.rfind(b"\n") + 1])


def _parse(lines: bytes) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for line in lines.split(b"\n")[:-1]:
        try:
            outcome = Outcome.from_dict(json.loads(line))
        except (ValueError, RecursionError):
            continue  # damaged: its trial runs again
        outcomes.setdefault(outcome.trial.key, outcome)
    return outcomes


def _compared(specification: Any) -> Any:
    """What tells studies apart: the same one may be continued by another command, on another machine."""
    if not isinstance(specification, dict):
        return specification
    values = cast("dict[str, Any]", specification)
    return {name: value for name, value in values.items() if name != "provenance"}


def _same(there: Any, name: str, value: Any) -> bool:
    return isinstance(there, dict) and cast("dict[str, Any]", there).get(name) == value
