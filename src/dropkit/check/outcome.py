"""What a run of the checker leaves: findings, files that could not be read, what was mended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dropkit.facts.finding import Finding
from dropkit.facts.text import Text


@dataclass(frozen=True, slots=True)
class Note:
    """A file that was passed over, and why. A note never changes the exit code."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a format needs to show.

    `texts` holds the text that a finding's span counts in, by (path, cell), for every file that has findings.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[Note, ...] = ()
    files: int = 0
    mended: tuple[Finding, ...] = ()
    texts: Mapping[tuple[str, int | None], Text] = field(default_factory=dict["tuple[str, int | None]", "Text"])

    @property
    def fixable(self) -> int:
        """How many findings a safe fix would mend."""
        return sum(finding.fix is not None and finding.fix.safe for finding in self.findings)

    @property
    def unsafely_fixable(self) -> int:
        """How many more an unsafe fix would mend."""
        return sum(finding.fix is not None and not finding.fix.safe for finding in self.findings)
