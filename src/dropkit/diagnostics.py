"""A finding: one misuse at one place, and the edits that would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """How sure and how bad: errors and warnings are shown; `info` only when asked for, and it never fails a run."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the gravest."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in the place of the bytes from `start` up to `end`, counted in the UTF-8 form of the decoded text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """Edits that mend a finding together, or not at all.

    A safe fix leaves training as it was and keeps every key of the state dict; `changes_training` marks the few that
    are safe for what the call plainly meant, but change the numbers of a training run.
    """

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True
    changes_training: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Where: lines and columns begin at 1, columns count characters, the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class CrossFileCondition:
    """What other files must be asked before a finding stands: does anyone there read `attribute` of `owner`?

    `owner` is the simple name of a class; its subclasses, and whoever holds one of its objects, are asked.
    """

    owner: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One misuse at one place. `cell` is the notebook cell, from 1, that `span` counts in."""

    code: str
    message: str
    severity: Severity
    path: str
    span: Span
    fix: Fix | None = None
    unless: CrossFileCondition | None = None
    cell: int | None = None
