"""The report of an audit: sites, findings and totals, as text, as a dict or as an HTML page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dropkit.auditor.report_rows import AuditFinding, Row, Totals, granularity, groups, rows, share_text, summary
from dropkit.report.units import counted
from dropkit.trace import Phase, Place, RandomOperation, Site, Visit

__all__ = ["AuditFinding", "Report"]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The result of an audit.

    Attributes:
        model: class name.
        sites: every dropout, in order of execution; then those that exist and were not reached.
        findings: what is wrong, most severe first.
        other_random: random operations that are no dropout.
        totals: sums over one training step.
        stopped: exception that ended the run early, if any.
        backward_error: first line of the exception raised by backward, if any.
    """

    model: str
    sites: tuple[Site, ...]
    findings: tuple[AuditFinding, ...]
    other_random: tuple[RandomOperation, ...]
    totals: Totals
    stopped: str | None = None
    backward_error: str | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row for each site."""
        return tuple(rows(self.sites, fold=False))

    @property
    def summary(self) -> list[str]:
        """The totals as lines of text."""
        return summary(self.totals, self.backward_error, self.other_random)

    @property
    def hidden(self) -> int:
        """Number of sites that drop nothing because their rate is 0."""
        return sum(site.is_off for site in self.sites)

    def table(self, width: int | None = None, color: bool = False, *, wide: bool = False, full: bool = False) -> str:
        """Return the report as text: sites, findings, totals.

        Args:
            width: number of columns; the terminal's if None, and 80 if there is no terminal. Columns that do not fit
                are left out, and the text says which.
            color: whether to use escape codes for a terminal.
            wide: show all columns, however wide the lines become.
            full: show each site in a row of its own, and those with rate 0; by default equal layers share a row.
        """
        from dropkit.auditor.report_text import render, terminal_width

        lines = self.summary
        if self.hidden and not full:
            lines.append(f"{counted(self.hidden, 'site')} at rate 0 not shown (--full or table(full=True))")
        width = None if wide else width or terminal_width()
        return render(self._shown(full), self.findings, self.stopped, lines, width, color)

    def _shown(self, full: bool) -> list[Row]:
        return rows(self.sites, fold=False) if full else rows((s for s in self.sites if not s.is_off), fold=True)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON. Times are in seconds, memory in bytes."""
        return {
            "model": self.model,
            "stopped": self.stopped,
            "backward_error": self.backward_error,
            "totals": asdict(self.totals),
            "findings": [_finding_dict(finding) for finding in self.findings],
            "sites": [_site_dict(site) for site in self.sites],
            "other_random_operations": [
                {"operator": operation.operator, "place": _place_text(operation.place)}
                for operation in self.other_random
            ],
        }

    def to_html(self) -> str:
        """Return a self-contained HTML page, on which the table can be sorted and filtered."""
        return self._html("audit.html")

    def _html(self, template: str) -> str:
        import torch

        import dropkit
        from dropkit.report.page import render

        shown = groups(self.sites)
        return render(
            template,
            report=self,
            groups=shown,
            totals=self.totals,
            time=share_text(self.totals.share),
            max_share=max((group.row.share.high for group in shown), default=0.0) or 1.0,
            version=dropkit.__version__,
            torch=torch.__version__,
        )

    def _repr_html_(self) -> str:
        from dropkit.report.page import render

        return f'<style>{render("style.css")}</style><div class="dropkit">{self._html("audit_body.html")}</div>'

    def __repr__(self) -> str:
        return self.table()


def _site_dict(site: Site) -> dict[str, Any]:
    return {
        "name": site.name,
        "kind": site.kind,
        "form": site.form.value,
        "place": _place_text(site.place),
        "p": site.p,
        "rate": site.rate,
        "active_in_train": site.was_active(Phase.TRAIN),
        "active_in_eval": site.was_active(Phase.EVAL),
        "reached": site.was_reached,
        "calls": site.calls,
        "kept_bytes": site.kept_bytes,
        "seconds": site.seconds,
        "visits": [_visit_dict(visit) for visit in site.visits],
    }


def _visit_dict(visit: Visit) -> dict[str, Any]:
    return {
        "phase": visit.phase.value,
        "shape": list(visit.shape),
        "dtype": visit.dtype,
        "p": visit.p,
        "active": visit.is_active,
        "granularity": granularity(visit),
        "mask_elements": visit.mask_elements,
        "dropped": visit.dropped,
        "after": visit.origin.last,
        "before": list(visit.consumers),
        "kept_bytes": visit.kept_bytes,
        "seconds": visit.seconds,
    }


def _finding_dict(finding: AuditFinding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "message": finding.message,
        "site": finding.site,
        "place": _place_text(finding.place),
    }


def _place_text(place: Place | None) -> str | None:
    return None if place is None else str(place)
