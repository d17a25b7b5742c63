"""A diagnostic: one misuse at one place, and the edits that fix it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """How serious a misuse is. Errors and warnings are shown; `info` is shown on request and never fails a run."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the most serious."""
        return list(Severity).index(self)

    @property
    def style(self) -> str:
        """Its style in a terminal, in rich's words."""
        return {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}[self.value]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the bytes from `start` to `end`, counted in the UTF-8 form of the decoded text, by `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """Edits that fix a misuse together, or not at all.

    A safe fix leaves training unchanged and keeps every key of the state dict. `changes_training` marks the few safe
    fixes that make a call do what it plainly says, and so change the numbers of a training run.
    """

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True
    changes_training: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the text: lines and columns begin at 1, columns count characters, the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class CrossFileCondition:
    """A condition that drops a diagnostic about the class with the simple name `owner`. Any of these meets it.

    Attributes:
        owner: the class.
        attribute: another file reads it, in a base or subclass, or from an object of the class; empty asks for none.
        argument: a base, or another class with one of `bases`, takes an argument of this name; empty asks for none.
        bases: one of these base classes, of other files, is not in the project, or may use all arguments.
    """

    owner: str
    attribute: str = ""
    argument: str = ""
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FactCondition:
    """A condition that keeps a diagnostic: all facts of `needs` hold in the project, and none of `refuted_by`.

    `ProjectIndex.holds` says what a fact like "sets-mode:Wrapper" means.
    """

    needs: tuple[str, ...] = ()
    refuted_by: tuple[str, ...] = ()


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
    given: FactCondition | None = None

    @property
    def is_open(self) -> bool:
        """Whether other files decide if it is a misuse."""
        return self.unless is not None or self.given is not None

    @property
    def is_likely(self) -> bool:
        """Whether it is a misuse if no other file is known."""
        return self.given is None or not self.given.needs
