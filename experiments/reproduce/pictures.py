"""The pictures of docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

from dropkit.report.comparisons import Interval, Series, against, listed
from dropkit.report.panel import COLORS, INK, Panel
from dropkit.studies import Estimate, StudyResult
from dropkit.studies.rows import Row
from dropkit.studies.setting import BASELINE
from dropkit.studies.statistics import estimate
from reproduce.claims import errors, minus, row_of, time_ratios, units_of
from reproduce.experiments import ALL_SITES, FIGURES_10


def pictures(results: Mapping[str, StudyResult]) -> dict[str, tuple[Panel, ...]]:
    """Return the panels of each picture by its name."""
    fixed, active = results["figure 9a"], results["figure 9b"]
    return {
        "figure-9": (_rates(fixed, "9a: fixed units n"), _rates(active, "9b: fixed active units (1 - p) n")),
        "figure-10": tuple(panel for name in FIGURES_10 for panel in _digits(results[name], units_of(name))),
        "batchwise": _batchwise(results["batchwise"]),
    }


def _rates(result: StudyResult, title: str) -> Panel:
    rows = [row for row in result.rows if not row.setting.is_baseline]
    rates = tuple(row.setting.rates[0] for row in rows)
    series = [
        Series(part, rates, tuple(_scaled(row.metrics[f"{part}_error"], 100) for row in rows), color)
        for color, part in enumerate(("test", "training"))
    ]
    none = _scaled(row_of(result, BASELINE).metrics["test_error"], 100)
    return against(series, none, "test, no dropout", "rate p, dropped", "error, %", title, "")


def _digits(result: StudyResult, units: str) -> tuple[Panel, ...]:
    models = list(result.plan.settings)
    none, dropout = ([row_of(result, setting, model) for model in models] for setting in (BASELINE, ALL_SITES))
    gains = [estimate(minus(errors(a), errors(b))) for a, b in zip(none, dropout, strict=True)]

    def draw_errors(axes: Any) -> None:
        for number, (name, rows) in enumerate((("no dropout", none), ("dropout", dropout))):
            _points(axes, models, [_scaled(row.metrics["test_error"], 100) for row in rows], name, COLORS[number])
        axes.set_ylim(bottom=0)

    def draw_gains(axes: Any) -> None:
        axes.axhline(0, color=INK, linewidth=1, linestyle="--")
        _points(axes, models, [_scaled(gain, 1) for gain in gains], None, COLORS[1])

    return (
        Panel(draw_errors, "training digits", "test error, %", f"10: error, {units}", height=3.8),
        Panel(draw_gains, "training digits", "gain by dropout, points", f"10: paired gain, {units}", height=3.8),
    )


def _points(axes: Any, models: list[str], values: list[Interval], name: str | None, color: str) -> None:
    """Points with whiskers over a logarithmic axis."""
    digits, means = [int(model) for model in models], [value.mean for value in values]
    below, above = ([abs(v.mean - v.ends[end]) for v in values] for end in (0, 1))
    axes.errorbar(digits, means, (below, above), fmt="o-", color=color, markersize=5, capsize=2.5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(digits, models)
    axes.set_xticks([], minor=True)


def _batchwise(result: StudyResult) -> tuple[Panel, ...]:
    none = row_of(result, BASELINE)
    rows = [row for row in result.rows if row is not none]
    changes = [_scaled(row.changes["test_error"], 100) for row in rows]
    times = [_scaled(estimate([100 * ratio for ratio in time_ratios(row, none)]), 1) for row in rows]
    names = list(map(_name, rows))
    return (
        listed(names, changes, "change of the test error, points", "Error", ""),
        listed(
            ["no dropout", *names], [Interval(100, nan, nan), *times], "processor time per epoch, % of none", "Time", ""
        ),
    )


def _name(row: Row) -> str:
    kind = "by element" if row.setting.kind == "dropout" else row.setting.kind
    return f"{kind}, p = {row.setting.rates[0]:g}"


def _scaled(value: Estimate, factor: float) -> Interval:
    return Interval(factor * value.mean, factor * value.low, factor * value.high)
