"""What a run of the checker leaves: findings, what could not be read or written, what was fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.semantic.source_text import Text

UNREAD, UNFIXED, UNSILENCED = "not checked", "not fixed", "not silenced"


@dataclass(frozen=True, slots=True)
class Note:
    """What could not be done with a file, or with one cell of a notebook, and why. The exit code is then 2.

    `line` counts in the cell. The message says it, too, where there is one.
    """

    path: str
    message: str
    cell: int | None = None
    line: int | None = None
    what: str = UNREAD


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a format needs to show.

    `texts` holds the text that a finding's span counts in, by (path, cell), for every file that has findings. `files`
    is the number of files that were read. `warnings` are about the run, and do not change the exit code.
    """

    findings: tuple[Diagnostic, ...] = ()
    notes: tuple[Note, ...] = ()
    files: int = 0
    mended: tuple[Diagnostic, ...] = ()
    texts: Mapping[tuple[str, int | None], Text] = field(default_factory=dict["tuple[str, int | None]", "Text"])
    warnings: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether anything was found that is more than information."""
        return any(finding.severity is not Severity.INFO for finding in self.findings)

    @property
    def fixable(self) -> int:
        """How many findings a safe fix would mend."""
        return sum(finding.fix is not None and finding.fix.safe for finding in self.findings)

    @property
    def unsafely_fixable(self) -> int:
        """How many more an unsafe fix would mend."""
        return sum(finding.fix is not None and not finding.fix.safe for finding in self.findings)
