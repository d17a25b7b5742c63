"""The columns of a study's tables, for terminals and pages: what each setting is, and what it measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from statistics import median

from dropkit.report.columns import Cell, Column, Verdict
from dropkit.studies.evaluation import Metric
from dropkit.studies.plan import Plan
from dropkit.studies.rows import Row
from dropkit.studies.setting import Setting
from dropkit.studies.statistics import Estimate

# Headings that are shorter than the labels of metrics.
_SHORT = {"error": "error", "nll": "NLL", "ece": "ECE", "rmse": "RMSE", "mae": "MAE"}
# Shown as the sign of the calibration error.
_SIGN_OF_ECE = "overconfidence"


@dataclass(frozen=True, slots=True)
class Format:
    """How the numbers of a column are written.

    Attributes:
        factor: 100 for percent.
        decimals: None for an exponent.
    """

    factor: float = 1.0
    decimals: int | None = 2

    @classmethod
    def of(cls, values: Iterable[float], digits: int = 2) -> Format:
        """Return a format in which a usual number below 1 has so many digits, and a larger one has three."""
        sizes = [abs(value) for value in values if isfinite(value) and value]
        if not sizes:
            return cls()
        usual = median(sizes)
        if not 1e-4 <= usual < 1e6:
            return cls(decimals=None)
        return cls(decimals=max(0, (2 if usual >= 1 else digits - 1) - floor(log10(usual))))

    def __call__(self, value: float, sign: str = "") -> str:
        """Write a number; one that is not finite is a word."""
        if not isfinite(value):
            return "unknown"
        return f"{self.factor * value:{sign}.{'2e' if self.decimals is None else f'{self.decimals}f'}}"

    def mean(self, estimate: Estimate) -> str:
        """Write a mean with half the width of its interval."""
        half = estimate.high - estimate.mean
        return self(estimate.mean) + (f" ±{self(half)}" if isfinite(half) else "")

    def change(self, estimate: Estimate) -> str:
        """Write a change with its interval."""
        text = self(estimate.mean, "+")
        if not isfinite(estimate.error):
            return text
        return f"{text} ({self(estimate.low, '+')}, {self(estimate.high, '+')})"


# One decimal, for calibration errors and for errors beside others with a wide interval.
_PERCENT = Format(100.0, 1)


def format_of(metric: Metric, rows: Sequence[Row]) -> Format:
    """Return how a metric on test examples is written in rows."""
    values = [row.metrics[name] for row in rows if (name := f"test_{metric.name}") in row.metrics]
    if not metric.is_fraction:
        return Format.of((value.mean for value in values), 3)
    widths = [value.high - value.mean for value in values if isfinite(value.error)]
    # A second decimal says something only where intervals are narrow, in fractions here.
    return _PERCENT if not widths or median(widths) > 0.002 else Format(100.0, 2)


def short_name(metric: Metric) -> str:
    """Return a metric's name in headings."""
    return _SHORT.get(metric.name, metric.label)


def verdict(change: Estimate, metric: Metric) -> Verdict:
    """Return whether a change is shown to be for the better, for the worse, or neither."""
    if not change.excludes_zero:
        return ""
    return "better" if (change.mean > 0) == metric.is_higher_better else "worse"


def sites_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the names of all sites in rows, where they are given."""
    longest = max((row.setting.sites or () for row in rows), key=len, default=())
    others = (site for row in rows for site in row.setting.sites or ())
    return tuple(dict.fromkeys([*longest, *others]))


def where(setting: Setting, sites: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    """Return which of the sites have dropout, in words.

    Args:
        setting: the setting.
        sites: all sites of the model.
        names: what to call each site; None for its own name.
    """
    if setting.is_baseline:
        return ""
    here = setting.sites
    if here is None or set(here) == set(sites):
        return "all"
    names = names or {}
    without = [names.get(site, site) for site in sites if site not in here]
    with_ = [names.get(site, site) for site in here]
    if len(with_) == 1:
        return f"only {with_[0]}"
    return f"all but {without[0]}" if len(without) == 1 else ", ".join(with_)


def columns(plan: Plan, rows: Sequence[Row], names: Mapping[str, str] | None = None) -> list[Column]:
    """Return the columns of one model.

    Args:
        plan: of the study.
        rows: of the model.
        names: what to call each site; None for its own name.
    """
    metric, sites = plan.metric, sites_of(rows)
    found = list(_settings(rows, sites, names))
    number, name = format_of(metric, rows), f"test_{metric.name}"
    heading, unit = short_name(metric), "%" if metric.is_fraction else ""
    found.append(Column(f"test {heading}", unit, tuple(_main(row, name, number) for row in rows)))
    found += _of_metric(rows, f"mc_{name}", f"MC {heading}", number, unit, "MC", 5)
    found += _of_metric(rows, f"training_{metric.name}", f"train {heading}", number, unit, "train", 4)
    points = "points" if metric.is_fraction else ""
    found.append(Column("change", points, tuple(_change(row, name, number, metric) for row in rows)))
    for place, other in enumerate(_other_metrics(rows, metric)):
        test = [row.metrics[f"test_{other}"].mean for row in rows if f"test_{other}" in row.metrics]
        is_percent, short = other in ("error", "ece"), _SHORT.get(other, other)
        plain, its_unit = (_PERCENT, "%") if is_percent else (Format.of(test), "")
        priority, of_samples = (3, 6) if other in _SHORT else (10 + place, 50 + place)
        found += _of_metric(rows, f"test_{other}", short, plain, its_unit, short, priority)
        found += _of_metric(rows, f"mc_test_{other}", f"MC {short}", plain, its_unit, "MC", of_samples)
    all_seconds = [row.seconds for row in rows]
    seconds = Format(decimals=1) if max(all_seconds) >= 0.5 else Format.of(all_seconds)
    cells = tuple(Cell(seconds(row.seconds), row.seconds) for row in rows)
    found.append(Column("seconds", "", cells, "s", 7))
    return found


def _settings(rows: Sequence[Row], sites: Sequence[str], names: Mapping[str, str] | None) -> Iterable[Column]:
    """The columns that say what a setting is; where it is only if that differs."""
    settings = [row.setting for row in rows]
    yield Column("kind", "", tuple(Cell(s.kind) for s in settings), is_number=False)
    rates = tuple(
        Cell() if s.is_baseline else Cell(" ".join(f"{p:.3g}" for p in s.rates), max(s.rates)) for s in settings
    )
    yield Column("p", "", rates)
    if len({s.sites for s in settings if not s.is_baseline}) > 1:
        yield Column("sites", "", tuple(Cell(where(s, sites, names)) for s in settings), is_number=False)


def _main(row: Row, name: str, number: Format) -> Cell:
    if row.failures:
        return Cell(f"{len(row.failures)} failed", verdict="failed")
    if name not in row.metrics:
        return Cell("unknown")
    return Cell(number.mean(row.metrics[name]), row.metrics[name].mean)


def _change(row: Row, name: str, number: Format, metric: Metric) -> Cell:
    change = row.changes.get(name)
    if change is None or row.failures:
        return Cell()
    return Cell(number.change(change), change.mean, verdict(change, metric))


def _of_metric(
    rows: Sequence[Row], name: str, heading: str, number: Format, unit: str, short: str, priority: int
) -> Iterable[Column]:
    """The column of one metric, if it was measured. A calibration error has the sign of the overconfidence."""
    if not any(name in row.metrics for row in rows):
        return
    is_ece = name.endswith("test_ece")
    value: Callable[[Row], float] = (
        (lambda row: signed_ece(row, name)) if is_ece else lambda row: row.metrics[name].mean
    )
    sign = "+" if is_ece else ""
    shown = [row if name in row.metrics and not row.failures else None for row in rows]
    cells = tuple(Cell() if row is None else Cell(number(value(row), sign), value(row)) for row in shown)
    yield Column(heading, unit, cells, short, priority)


def signed_ece(row: Row, name: str) -> float:
    """Return the mean calibration error, negative where the model is underconfident."""
    over = row.metrics.get(name.removesuffix("ece") + _SIGN_OF_ECE)
    return row.metrics[name].mean * (-1 if over is not None and over.mean < 0 else 1)


def _other_metrics(rows: Sequence[Row], metric: Metric) -> list[str]:
    """Names of all other metrics on test examples, the known ones first."""
    names = dict.fromkeys(
        name.removeprefix("test_") for row in rows for name in row.metrics if name.startswith("test_")
    )
    others = [name for name in names if name not in (metric.name, _SIGN_OF_ECE)]
    return sorted(others, key=lambda name: name not in _SHORT)
