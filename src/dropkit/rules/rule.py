"""A rule: one misuse, how to find it in source and in a trace, and examples that are its tests and its page."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dropkit.diagnostics import CrossFileCondition, Diagnostic, FactCondition, Fix, Severity
from dropkit.lint.semantic.always_on import is_always_on_name, is_marked_always_on, is_named_always_on
from dropkit.lint.semantic.model import SourceFile
from dropkit.trace import Form, Phase, Site, Trace


class Default(str, Enum):
    """Whether a rule runs by default: `preview` and `off` rules must be selected."""

    ON = "on"
    PREVIEW = "preview"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Violation:
    """A misuse in source: the node, and the message and severity if they differ from the rule's."""

    node: ast.AST
    message: str | None = None
    fix: Fix | None = None
    severity: Severity | None = None
    # Holds only if no other file meets this condition.
    unless: CrossFileCondition | None = None
    # Holds only if the facts of other files are so.
    given: FactCondition | None = None

    def as_information(self) -> Violation:
        """The same with severity `info`, which fails no run, and without its fix."""
        return replace(self, severity=Severity.INFO, fix=None)


@dataclass(frozen=True, slots=True)
class TraceViolation:
    """A misuse in a trace: the site or module, and the message and severity if they differ from the rule's."""

    at: Site | str
    message: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A program that runs and has the misuse, each wrong line ending in `# <code>`; and the same, fixed.

    `diff` holds both: lines that begin with `-` are those of the misuse, and lines with `+` those of the fix. If the
    rule has a fix, applying it to `bad` gives exactly `good`. `unseen` says why a trace of the model does not show the
    misuse, if it does not.
    """

    diff: str
    unseen: str = ""

    @property
    def bad(self) -> str:
        """The program with the misuse."""
        return re.sub(r"(?m)^\+.*\n|^-", "", self.diff)

    @property
    def good(self) -> str:
        """The program without it."""
        return re.sub(r"(?m)^-.*\n|^\+| *# DRP\d{3}$", "", self.diff)


@dataclass(frozen=True, slots=True)
class Rule:
    """One misuse. `check_source` and `check_trace` find it; the docstring of its file explains it."""

    code: str
    name: str
    message: str
    severity: Severity
    examples: tuple[Example, ...]
    check_source: Callable[[SourceFile], Iterator[Violation]] | None = None
    check_trace: Callable[[Trace], Iterator[TraceViolation]] | None = None
    default: Default = Default.ON
    # The effect of --fix, or of --fix --unsafe-fixes; empty if there is no fix.
    fix: str = ""
    fix_is_safe: bool = False

    @property
    def module(self) -> str:
        """The dotted name of the rule's file."""
        return (self.check_source or self.check_trace or Rule).__module__

    @property
    def explanation(self) -> str:
        """The docstring of the rule's file."""
        return inspect.cleandoc(sys.modules[self.module].__doc__ or "")

    @property
    def found_by(self) -> tuple[str, ...]:
        """The commands that find it: check, audit or both."""
        detectors = {"check": self.check_source, "audit": self.check_trace}
        return tuple(name for name, detector in detectors.items() if detector is not None)

    def diagnostics(self, source: SourceFile) -> Iterator[Diagnostic]:
        """The misuses in `source`."""
        for violation in self.check_source(source) if self.check_source is not None else ():
            yield Diagnostic(
                code=self.code,
                message=violation.message or self.message,
                severity=violation.severity or self.severity,
                path=source.path,
                span=source.text.span(violation.node),
                fix=violation.fix,
                unless=violation.unless,
                given=violation.given,
            )


def if_short(message: str) -> str | None:
    """A message with names in it; None, so that the rule's is shown, if long names make it too long."""
    return message if len(message) < 60 else None


def unless_intended(source: SourceFile, violation: Violation, is_likely_intended: bool = False) -> Iterator[Violation]:
    """Yield `violation`, unless a marker or a setting says that this dropout stays on.

    Where only names, docstrings or other comments say so, or the caller, its severity becomes `info`.
    """
    if not is_marked_always_on(source, violation.node):
        is_intended = is_likely_intended or is_named_always_on(source, violation.node)
        yield violation.as_information() if is_intended else violation


def active_in_eval(trace: Trace) -> Iterator[Site]:
    """The sites that drop after `model.eval()` and are not marked as always on."""
    return (site for site in trace.sites if site.was_active(Phase.EVAL) and not site.is_marked_always_on)


def severity_in_eval(site: Site) -> Severity | None:
    """INFO for a site that names such as MCDropout and Prenet say stays on in evaluation; None for any other."""
    return Severity.INFO if site.is_named_always_on or any(is_always_on_name(owner) for owner in site.owners) else None


def violations_in_eval(trace: Trace, form: Form, message: str | None = None) -> Iterator[TraceViolation]:
    """The sites of a form that drop after `model.eval()`."""
    sites = (site for site in active_in_eval(trace) if _form_in_eval(site) is form)
    return (TraceViolation(site, message, severity_in_eval(site)) for site in sites)


def _form_in_eval(site: Site) -> Form:
    """The form of a site; a Module that drops though its own flag is off uses a function, or a mask of its own."""
    visit = next(visit for visit in site.visits_in(Phase.EVAL) if visit.is_active)
    if site.form is Form.REGISTERED and site.flag_in_eval is False and visit.training is False:
        return Form.MASK if visit.function is None else Form.FUNCTION
    return site.form
