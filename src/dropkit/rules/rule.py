"""What a rule is: one misuse, how to see it in source and in a run, and examples that are its tests and its page."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dropkit.diagnostics import CrossFileCondition, Diagnostic, Fix, Severity
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.training_flag import named_around, named_on_purpose, on_purpose
from dropkit.trace import Phase, Site, Trace


class Default(str, Enum):
    """Whether a rule runs when nothing is selected: `preview` and `off` rules must be asked for."""

    ON = "on"
    PREVIEW = "preview"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Violation:
    """What a rule saw: the node that is wrong, and what differs from the rule's own message and severity."""

    node: ast.AST
    message: str | None = None
    fix: Fix | None = None
    severity: Severity | None = None
    # Stands only if no other file answers yes.
    unless: CrossFileCondition | None = None

    def as_information(self) -> Violation:
        """The same for those who ask for it: it fails no run, and has no fix."""
        return replace(self, severity=Severity.INFO, fix=None)


@dataclass(frozen=True, slots=True)
class TraceViolation:
    """What a rule saw in a run: the site or the module that is wrong, and what differs from the rule's own words."""

    at: Site | str
    message: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A program that runs and holds the misuse, each wrong line ending in `# <code>`; and the same, mended.

    Where the rule has a fix, applying it to `bad` gives `good`, to the letter. `unseen` says why a run of the
    model does not show the misuse, where it does not.
    """

    bad: str
    good: str
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One misuse. `check_source` finds it in a file, `check_trace` in a run; the docstring of its file explains it."""

    code: str
    name: str
    message: str
    severity: Severity
    examples: tuple[Example, ...]
    check_source: Callable[[SourceFile], Iterator[Violation]] | None = None
    check_trace: Callable[[Trace], Iterator[TraceViolation]] | None = None
    default: Default = Default.ON
    # What --fix, or --fix --unsafe-fixes, does; empty where there is no fix.
    fix: str = ""
    fix_is_safe: bool = False

    @property
    def explanation(self) -> str:
        """The docstring of the rule's file."""
        detector = self.check_source or self.check_trace
        return inspect.cleandoc(sys.modules[detector.__module__].__doc__ or "") if detector is not None else ""

    @property
    def found_by(self) -> tuple[str, ...]:
        """The commands that find it: check, audit or both."""
        detectors = {"check": self.check_source, "audit": self.check_trace}
        return tuple(name for name, detector in detectors.items() if detector is not None)

    def diagnostics(self, source: SourceFile) -> Iterator[Diagnostic]:
        """What the rule finds in `source`."""
        for hit in self.check_source(source) if self.check_source is not None else ():
            yield Diagnostic(
                code=self.code,
                message=hit.message or self.message,
                severity=hit.severity or self.severity,
                path=source.path,
                span=source.text.span(hit.node),
                fix=hit.fix,
                unless=hit.unless,
            )


def unless_intended(source: SourceFile, violation: Violation) -> Iterator[Violation]:
    """`violation`, unless a marker or a setting says that this dropout stays on; information if only words say so."""
    if not on_purpose(source, violation.node):
        yield violation.as_information() if named_around(source, violation.node) else violation


def active_in_eval(trace: Trace) -> Iterator[Site]:
    """The sites that drop after `model.eval()` and are not marked as always on."""
    return (site for site in trace.sites if site.was_active(Phase.EVAL) and not site.is_marked_always_on)


def severity_in_eval(site: Site) -> Severity | None:
    """INFO for a site named as one that stays on in evaluation, as MCDropout and Prenet are; None for any other."""
    return Severity.INFO if site.is_named_always_on or any(named_on_purpose(owner) for owner in site.owners) else None


def ignores_its_flag(site: Site, by_hand: bool) -> bool:
    """Whether a module drops in evaluation though its own flag is off: by a mask of its own, or by a function."""
    visit = next(visit for visit in site.visits_in(Phase.EVAL) if visit.is_active)
    return site.flag_in_eval is False and visit.training is False and (visit.function is None) == by_hand
