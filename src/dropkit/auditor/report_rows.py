"""The parts of a report: findings, one row for each site, and totals."""

from __future__ import annotations

import linecache
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from dropkit.auditor.folding import folded
from dropkit.diagnostics import Severity
from dropkit.report.units import counted, in_bytes, in_count, in_percent, in_seconds
from dropkit.trace import Phase, Place, RandomOperation, Share, Site, Trace, Visit

# Abbreviations of long kinds in tables.
_ABBREVIATIONS = {"scaled_dot_product_attention": "SDPA", "multi_head_attention_forward": "MHA"}
# How many other random operations the summary names.
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One misuse in a running model. `dropkit explain <code>` explains it."""

    code: str
    name: str
    message: str
    severity: Severity
    site: str
    place: Place | None
    explanation: str

    def __str__(self) -> str:
        return f"{self.where}: {self.code} {self.severity.value}: {self.message}"

    @property
    def where(self) -> str:
        """The site, and the line that calls it."""
        called = self.place is not None and str(self.place) not in self.site
        return f"{self.site} (called at {self.place})" if called else self.site


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a site, or of several in equal layers, in a table.

    Attributes:
        place: line of a function or a mask; "" for a module.
        count: number of sites.
        rate: measured fraction of mask elements that dropped.
        granularity: what one mask element covers.
        active_in: modes in which it drops, or why it does not.
        after: operation that computed its input.
        before: operations that use its output.
        saved: memory of masks saved for backward.
        share: of the training step's time.
    """

    site: str
    place: str
    count: int
    kind: str
    p: str
    rate: str
    input_shape: str
    granularity: str
    active_in: str
    calls: int
    after: str
    before: str
    saved: str
    time: str
    share: Share

    @property
    def cells(self) -> dict[str, str]:
        """Cells by heading, from left to right."""
        return {
            "site": f"{self.site}\n{self.place}" if self.place else self.site,
            "kind": self.kind,
            "p": self.p,
            "dropped": self.rate,
            "active in": self.active_in,
            "time": self.time,
            "granularity": self.granularity,
            "saved": self.saved,
            "input": self.input_shape,
            "calls": str(self.calls),
            "after > before": f"{self.after} > {self.before}" if self.after or self.before else "",
        }

    @property
    def is_inactive(self) -> bool:
        return self.active_in in ("never", "not reached", "rate only", "skipped in this run")


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over one training step.

    Attributes:
        skipped: how many of the sites are in layers that the step skipped.
        dropped: number of elements.
        kept_bytes: memory of masks saved for backward.
        seconds: time of all operators.
        share: of dropout in this time.
    """

    sites: int
    skipped: int
    dropped: int
    kept_bytes: int
    seconds: float
    share: Share


def totals(trace: Trace) -> Totals:
    """Sum over the training step."""
    return Totals(
        sites=len(trace.sites),
        skipped=sum(site.was_skipped for site in trace.sites),
        dropped=sum(visit.dropped_elements for site in trace.sites for visit in site.visits_in(Phase.TRAIN)),
        kept_bytes=sum(site.kept_bytes for site in trace.sites),
        seconds=trace.seconds,
        share=trace.share,
    )


def rows(sites: Iterable[Site], fold: bool) -> list[Row]:
    """Describe sites in words; those of equal layers in one row, if asked."""
    if not fold:
        return [row([site]) for site in sites]
    return [row(alike, name) for name, alike in folded(sites, lambda site: site.name, _traits)]


@dataclass(frozen=True, slots=True)
class Group:
    """A row of the page.

    Attributes:
        row: of all sites together.
        members: rows of the single sites, if there are several.
        source: the line of the program that calls them; "" if it cannot be read.
        seconds, saved: to sort by.
    """

    row: Row
    members: list[Row]
    place: str
    source: str
    seconds: float
    saved: int


def groups(sites: Iterable[Site]) -> list[Group]:
    """Describe sites in words for a page, those of equal layers together."""
    return [
        Group(
            row=row(alike, name),
            members=[row([site]) for site in alike] if len(alike) > 1 else [],
            place=str(alike[0].place or ""),
            source=_source_line(alike[0].place),
            seconds=sum(site.seconds for site in alike),
            saved=sum(site.kept_bytes for site in alike),
        )
        for name, alike in folded(sites, lambda site: site.name, _traits)
    ]


def _source_line(place: Place | None) -> str:
    return "" if place is None else linecache.getline(place.file, place.line).strip()


def row(sites: Sequence[Site], name: str | None = None) -> Row:
    """Describe a site, or several that are alike, in words."""
    site, visit = sites[0], _typical_visit(sites[0])
    saved, share = sum(site.kept_bytes for site in sites), total_share(sites)
    return Row(
        site=(site.name if name is None else name) or "(the model)",
        place="" if site.is_module or site.place is None else str(site.place),
        count=len(sites),
        kind=_ABBREVIATIONS.get(site.kind, site.kind),
        p=_range([site.p for site in sites]),
        rate=_range([site.rate for site in sites]),
        input_shape=_shape(visit),
        granularity=granularity(visit) if visit is not None else "",
        active_in=_active_in(site),
        calls=sum(site.calls for site in sites),
        after=visit.origin.last if visit is not None else "",
        before=", ".join(visit.consumers) if visit is not None else "",
        saved=in_bytes(saved) if saved else "",
        time=f"{in_seconds(sum(site.seconds for site in sites))} {share_text(share)}" if share.is_reliable else "",
        share=share,
    )


def _traits(site: Site) -> Hashable:
    """What sites have in common that share a row."""
    one = row([site])
    return site.form, site.kind, site.place, bool(site.p), one.active_in, one.granularity, one.input_shape, one.after


def _typical_visit(site: Site) -> Visit | None:
    visits = list(site.visits_in(Phase.TRAIN)) or site.visits
    return next((visit for visit in visits if visit.is_active), visits[0] if visits else None)


def _shape(visit: Visit | None) -> str:
    return " x ".join(map(str, visit.shape)) if visit is not None else ""


def _range(values: Iterable[float | None]) -> str:
    """Format the lowest and the highest of some numbers."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    ends = [f"{value:.3g}" for value in (min(known), max(known))]
    return ends[0] if ends[0] == ends[1] else "-".join(ends)


def total_share(sites: Iterable[Site]) -> Share:
    """The sum of shares; none if one of them is unreliable."""
    shares = [site.share for site in sites if site.seconds]
    if not all(share.is_reliable for share in shares):
        return Share()
    return Share(sum(share.low for share in shares), sum(share.high for share in shares))


def granularity(visit: Visit) -> str:
    """Say what one mask element covers: an element, a channel, a sample ...

    Example:
        >>> granularity(Visit(Phase.TRAIN, shape=(8, 3, 5, 5), mask_shape=(8, 3, 1, 1), mask_elements=24))
        'channel'
    """
    shape, mask_shape = visit.shape, visit.mask_shape
    if visit.covers:
        return visit.covers
    if not visit.mask_elements or len(mask_shape) != len(shape):
        return "element" if visit.is_active else ""
    dims = range(len(shape))
    separate = [dim for dim in dims if mask_shape[dim] == shape[dim]]
    shared = [dim for dim in dims if mask_shape[dim] == 1 < shape[dim]]
    if not shared:
        return "element"
    if 0 in separate and all(dim in shared or shape[dim] == 1 for dim in dims[1:]):
        return "sample"
    if separate[:2] == [0, 1] and all(dim in shared or shape[dim] == 1 for dim in dims[2:]):
        return "channel"
    if separate == [0, *dims[2:]]:
        return "position"
    return "all at once" if len(shared) == len(shape) else f"dims {', '.join(map(str, separate))}"


def _active_in(site: Site) -> str:
    if site.was_skipped:
        return "skipped in this run"
    if not site.was_reached:
        return "rate only" if site.has_rate_used_elsewhere else "not reached"
    phases = [phase.value for phase in (Phase.TRAIN, Phase.EVAL) if site.was_active(phase)]
    return " + ".join(phases) or "never"


def share_text(share: Share) -> str:
    """Format a share as an interval; empty if it is unreliable."""
    return in_percent(share.low, share.high) if share.is_reliable else ""


def summary(totals: Totals, backward_error: str | None, other_random: Sequence[RandomOperation]) -> list[str]:
    """Return the totals as lines of text."""
    time = share_text(totals.share) and f", {share_text(totals.share)} of the operator time"
    lines = [
        "No dropout found"
        if not totals.sites
        else f"{counted(totals.sites, 'site')}: {in_count(totals.dropped)} elements dropped in a "
        f"training step, {in_bytes(totals.kept_bytes)} of masks saved for backward{time}"
    ]
    if totals.skipped:
        lines.append(f"{counted(totals.skipped, 'site')} skipped in this run, which runs only some of the layers")
    if backward_error is not None:
        lines.append(f"backward failed: {backward_error}")
    if other_random:
        count = len(other_random)
        named = ", ".join(
            f"{operation.operator} at {operation.place}" if operation.place is not None else operation.operator
            for operation in other_random[:_MAX_NAMED]
        )
        more = f" and {count - _MAX_NAMED} more" if count > _MAX_NAMED else ""
        lines.append(f"{counted(count, 'other random operation')}: {named}{more}")
    return lines
