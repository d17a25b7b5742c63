"""The results of the linter: of one file, and of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.project_index import ClassSummary
from dropkit.lint.semantic.source_text import Text

# Kinds of notes.
UNREAD, UNFIXED, UNSILENCED = "not checked", "not fixed", "not silenced"


@dataclass(frozen=True, slots=True)
class Note:
    """What failed for a file, or for one cell of a notebook, and why. Any note makes the exit code 2.

    `line` counts in the cell, where there is one; `message` repeats it.
    """

    path: str
    message: str
    cell: int | None = None
    line: int | None = None
    kind: str = UNREAD


@dataclass(slots=True)
class SearchResult:
    """The files to check, each once and in order; notes on paths that cannot be read; and warnings."""

    files: list[str] = field(default_factory=list[str])
    notes: list[Note] = field(default_factory=list[Note])
    warnings: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result of one file. `classes` is None where the file contains nothing that rules look at."""

    findings: tuple[Diagnostic, ...] = ()
    notes: tuple[Note, ...] = ()
    classes: ClassSummary | None = None

    @property
    def was_read(self) -> bool:
        """Whether the file was read, at least in part: only cells of it may have failed."""
        return all(note.cell is not None for note in self.notes)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a run: everything that a format shows.

    `texts` holds the texts that findings refer to, by (path, cell). `files` is the number of files that were read, and
    `without_dropout` of those among them that do not mention any. `warnings` are about the run and do not change
    the exit code.
    """

    findings: tuple[Diagnostic, ...] = ()
    notes: tuple[Note, ...] = ()
    files: int = 0
    fixed: tuple[Diagnostic, ...] = ()
    texts: Mapping[tuple[str, int | None], Text] = field(default_factory=dict["tuple[str, int | None]", "Text"])
    warnings: tuple[str, ...] = ()
    without_dropout: int = 0

    @property
    def fails(self) -> bool:
        """Whether there is any finding above `info`."""
        return any(finding.severity is not Severity.INFO for finding in self.findings)

    @property
    def fixable(self) -> int:
        """The number of findings with a safe fix."""
        return sum(finding.fix is not None and finding.fix.safe for finding in self.findings)

    @property
    def unsafely_fixable(self) -> int:
        """The number of findings with an unsafe fix."""
        return sum(finding.fix is not None and not finding.fix.safe for finding in self.findings)
