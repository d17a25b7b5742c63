"""The report of an audit: sites, findings, totals, as a table, a dict or a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dropkit.auditor.savings import Savings
from dropkit.diagnostics import Severity
from dropkit.report.units import in_bytes, in_count, in_seconds
from dropkit.trace import Draw, Phase, Place, Site, Trace, Visit

# What a table calls kinds with long names.
_SHORT = {"scaled_dot_product_attention": "SDPA", "multi_head_attention_forward": "MHA"}


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One misuse in a running model. `dropkit explain <code>` has the whole story."""

    code: str
    name: str
    message: str
    severity: Severity
    site: str
    place: Place | None
    explanation: str

    def __str__(self) -> str:
        where = f" (called at {self.place})" if self.place is not None and str(self.place) not in self.site else ""
        return f"{self.site}{where}: {self.code} {self.severity.value}: {self.message}"


@dataclass(frozen=True, slots=True)
class Row:
    """A site in words."""

    site: str
    kind: str
    p: str
    rate: str
    shape: str
    coins: str
    draws: str
    calls: int
    after: str
    before: str
    kept: str
    time: str
    share: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one training step. `saved_*` are what `dropkit.install()` would save; None where it has nothing to say."""

    sites: int
    dropped: int
    kept_bytes: int
    seconds: float
    share: float
    saved_seconds: float | None
    saved_bytes: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What an audit saw.

    Attributes:
        model: class name.
        sites: every dropout, in order of execution; then those that exist and were not reached.
        findings: what is wrong, the gravest first.
        draws: random numbers that were no dropout.
        totals: of one training step.
        stopped: why the run ended early, if it did.
        backward_error: the first line of what backward raised, if it did.
    """

    model: str
    sites: tuple[Site, ...]
    findings: tuple[AuditFinding, ...]
    draws: tuple[Draw, ...]
    totals: Totals
    stopped: str | None = None
    backward_error: str | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """One for each site."""
        step = self.totals.seconds
        return tuple(_row(site, step) for site in self.sites)

    def table(self, width: int | None = None, color: bool = False) -> str:
        """The report as text: the sites, the findings, the totals.

        Args:
            width: columns; if None those of the terminal, and as many as are needed where there is none.
            color: with escape codes for a terminal.
        """
        from dropkit.auditor.report_text import text

        return text(self, width, color)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON. Times in seconds, memory in bytes."""
        return {
            "model": self.model,
            "stopped": self.stopped,
            "backward_error": self.backward_error,
            "totals": asdict(self.totals),
            "findings": [_plain(finding) for finding in self.findings],
            "sites": [_site(site) for site in self.sites],
            "other_draws": [{"operator": one.operator, "place": _text(one.place)} for one in self.draws],
        }

    def to_html(self) -> str:
        """A page that stands alone: nothing is fetched and nothing runs in it."""
        return self._html("audit.html")

    def _html(self, template: str) -> str:
        import torch

        import dropkit
        from dropkit.report.page import render

        rows = self.rows
        return render(
            template,
            report=self,
            rows=rows,
            totals=self.totals,
            widest=max((row.share for row in rows), default=0.0) or 1.0,
            version=dropkit.__version__,
            torch=torch.__version__,
        )

    def _repr_html_(self) -> str:
        from dropkit.report.page import render

        return f'<style>{render("style.css")}</style><div class="dropkit">{self._html("audit_body.html")}</div>'

    def __repr__(self) -> str:
        return self.table()


def totals(trace: Trace, saved: Savings | None) -> Totals:
    """Sums over the training step."""
    seconds = sum(site.seconds for site in trace.sites)
    return Totals(
        sites=len(trace.sites),
        dropped=sum(visit.elements for site in trace.sites for visit in site.of(Phase.TRAIN)),
        kept_bytes=sum(site.kept_bytes for site in trace.sites),
        seconds=trace.seconds,
        share=seconds / trace.seconds if trace.seconds else 0.0,
        saved_seconds=saved.seconds if saved is not None else None,
        saved_bytes=saved.bytes if saved is not None else None,
    )


def _row(site: Site, step: float) -> Row:
    visits = list(site.of(Phase.TRAIN)) or site.visits
    seen = next((visit for visit in visits if visit.drew), visits[0] if visits else None)
    seconds, kept, rate = site.seconds, site.kept_bytes, site.rate
    return Row(
        site=site.name or "(the model)" if site.is_module else f"{site.name or '(the model)'} {site.place or ''}",
        kind=_SHORT.get(site.kind, site.kind),
        p="" if site.p is None else f"{site.p:g}",
        rate="" if rate is None else f"{rate:.4g}",
        shape=" x ".join(map(str, seen.shape)) if seen is not None else "",
        coins=share(seen) if seen is not None else "",
        draws=_draws(site),
        calls=site.calls,
        after=seen.origin.last if seen is not None else "",
        before=", ".join(seen.before) if seen is not None else "",
        kept=in_bytes(kept) if kept else "",
        time=f"{in_seconds(seconds)} {seconds / step:.1%}" if seconds and step else "",
        share=seconds / step if step else 0.0,
    )


def share(visit: Visit) -> str:
    """What each coin decides about: an element, a channel, a sample ...

    Example:
        >>> share(Visit(Phase.TRAIN, shape=(8, 3, 5, 5), unit=(8, 3, 1, 1), coins=24))
        'channel'
    """
    if not visit.coins or len(visit.unit) != len(visit.shape):
        return "element" if visit.drew else ""
    own = [dim for dim, (one, size) in enumerate(zip(visit.unit, visit.shape, strict=True)) if one == size]
    shared = [dim for dim, (one, size) in enumerate(zip(visit.unit, visit.shape, strict=True)) if one == 1 < size]
    if not shared:
        return "element"
    if all(dim in shared or visit.shape[dim] == 1 for dim in range(1, len(visit.shape))) and 0 in own:
        return "sample"
    if own[:2] == [0, 1] and all(dim in shared or visit.shape[dim] == 1 for dim in range(2, len(visit.shape))):
        return "channel"
    if own == [0, *range(2, len(visit.shape))]:
        return "position"
    return "all at once" if len(shared) == len(visit.shape) else f"dims {', '.join(map(str, own))}"


def _draws(site: Site) -> str:
    if not site.reached:
        return "rate only" if site.carries_rate else "not reached"
    phases = [phase.value for phase in (Phase.TRAIN, Phase.EVAL) if site.drew(phase)]
    return " + ".join(phases) or "never"


def _site(site: Site) -> dict[str, Any]:
    return {
        "name": site.name,
        "kind": site.kind,
        "form": site.form.value,
        "place": _text(site.place),
        "p": site.p,
        "rate": site.rate,
        "active_in_train": site.drew(Phase.TRAIN),
        "active_in_eval": site.drew(Phase.EVAL),
        "reached": site.reached,
        "calls": site.calls,
        "kept_bytes": site.kept_bytes,
        "seconds": site.seconds,
        "visits": [_visit(visit) for visit in site.visits],
    }


def _visit(visit: Visit) -> dict[str, Any]:
    return {
        "phase": visit.phase.value,
        "shape": list(visit.shape),
        "dtype": visit.dtype,
        "p": visit.p,
        "drew": visit.drew,
        "one_coin_for_each": share(visit),
        "coins": visit.coins,
        "dropped": visit.dropped,
        "after": visit.origin.last,
        "before": list(visit.before),
        "kept_bytes": visit.kept_bytes,
        "seconds": visit.seconds,
    }


def _plain(finding: AuditFinding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "message": finding.message,
        "site": finding.site,
        "place": _text(finding.place),
    }


def _text(place: Place | None) -> str | None:
    return None if place is None else str(place)


def summary(report: Report) -> Sequence[str]:
    """The totals, a line each."""
    total = report.totals
    lines = [
        f"{total.sites} {'site' if total.sites == 1 else 'sites'}: {in_count(total.dropped)} elements dropped a step, "
        f"{in_bytes(total.kept_bytes)} held for backward, {total.share:.1%} of the step's operator time"
    ]
    if total.saved_bytes is not None and total.saved_seconds:
        lines.append(
            f"dropkit.install() would save {in_bytes(total.saved_bytes)} and {in_seconds(total.saved_seconds)} "
            f"of {in_seconds(total.seconds)} a step"
        )
    if report.backward_error is not None:
        lines.append(f"backward failed: {report.backward_error}")
    if report.draws:
        lines.append(f"{len(report.draws)} draws of random numbers that are no dropout")
    return lines
