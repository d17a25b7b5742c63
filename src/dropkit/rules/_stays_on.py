"""What the rules of the 1xx family have in common: who draws though the model is to evaluate, and who means to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.training_flag import named_around, named_on_purpose, on_purpose
from dropkit.rules.rule import Violation
from dropkit.trace import Phase, Site, Trace


def unless_meant(source: SourceFile, hit: Violation) -> Iterator[Violation]:
    """`hit`, unless the code says that this dropout is to stay on; where only words do, for information."""
    if not on_purpose(source, hit.node):
        yield for_information(hit) if named_around(source, hit.node) else hit


def for_information(hit: Violation) -> Violation:
    """The same for whoever asks for it: nothing that fails a run, or is mended."""
    return replace(hit, severity=Severity.INFO, fix=None)


def active_in_eval(trace: Trace) -> Iterator[Site]:
    """Sites that draw after `model.eval()`, but for those of which the code says that they are to."""
    return (site for site in trace.sites if site.was_active(Phase.EVAL) and not site.is_marked_always_on)


def severity(site: Site) -> Severity | None:
    """Information, of a site whose name or that of a class around it says that it stays on: MCDropout, Prenet."""
    return Severity.INFO if site.is_named_always_on or any(named_on_purpose(owner) for owner in site.owners) else None


def ignores_its_flag(site: Site, by_hand: bool) -> bool:
    """Whether a module draws in evaluation though its own flag says not to; by a mask of its own, or a function."""
    visit = next(visit for visit in site.visits_in(Phase.EVAL) if visit.is_active)
    return site.flag_in_eval is False and visit.training is False and (visit.function is None) == by_hand
