"""The figures of a study: what each one shows, and how to read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from dropkit.report.comparisons import Curve, Interval, Series, against, curves, listed, pairs
from dropkit.report.panel import Panel
from dropkit.studies.columns import Format, format_of, signed_ece, sites_of, where
from dropkit.studies.result import StudyResult
from dropkit.studies.rows import Row
from dropkit.studies.setting import Setting
from dropkit.studies.statistics import Estimate

_NONE = Estimate(nan, nan, nan, nan)
# Longer names of settings would leave no space for the plot.
_MAX_LABEL = 34
_OF_CLASSES = (
    "Negative log-likelihood: lower is better. Expected calibration error: 0 is calibrated, right of it the model is "
    "overconfident, left of it underconfident."
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that are read alike, in general one for each model.

    Attributes:
        name: of its PNG file.
        title: its heading.
        caption: how to read it.
        panels: the plots.
        columns: how many panels are side by side in the PNG file.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 2


def figures(result: StudyResult) -> list[Figure]:
    """Return the figures that the outcomes allow."""
    groups = [group for model in result.plan.settings if (group := [row for row in result.rows if row.model == model])]
    found = [_error(result, groups), _changes(result, groups)]
    others = [_calibration(groups), _curves(result, groups)]
    # What decides comes first: in a study of sites that is what each contributes.
    sites = _sites(result, groups)
    found = [*found, *others, sites] if any(figure.panels for figure in found) else [sites, *others]
    return [figure for figure in found if figure.panels]


def _error(result: StudyResult, groups: Sequence[Sequence[Row]]) -> Figure:
    caption = (
        "Means over the seeds; whiskers are 95% intervals of each mean by itself. The band is no dropout: mean, and "
        "95% interval. Seeds differ in split and initial weights, which makes these intervals wide; the changes below "
        "compare equal seeds. Whiskers may leave the plot. A cross at the top: failed trials."
    )
    name = f"test_{result.plan.metric.name}"
    panels = [_against(result, group, name, f"test {result.plan.metric.label}") for group in groups]
    title = f"{result.plan.metric.label.capitalize()} against p"
    return Figure("error", title, caption, tuple(filter(None, panels)))


def _changes(result: StudyResult, groups: Sequence[Sequence[Row]]) -> Figure:
    caption = (
        "Change of the test result from no dropout, by pairs of equal seeds. A setting whose whiskers do not reach the "
        "dashed line differs from no dropout; all intervals of a panel hold together, at 95%. Better is "
        f"{'above' if result.plan.metric.is_higher_better else 'below'} the line."
    )
    name = f"test_{result.plan.metric.name}"
    panels = [
        _against(result, group, name, f"change of test {result.plan.metric.label}", is_change=True) for group in groups
    ]
    return Figure("change", "Change from no dropout", caption, tuple(filter(None, panels)))


def _against(result: StudyResult, group: Sequence[Row], name: str, label: str, is_change: bool = False) -> Panel | None:
    """The panel of one model, if its settings have one rate each, at the same sites."""
    settings = [row.setting for row in group if not row.setting.is_baseline]
    if len({setting.sites for setting in settings}) > 1 or any(isinstance(s.p, tuple) for s in settings):
        return None
    base = next((row for row in group if row.setting.is_baseline), None)
    if base is None or not settings:
        return None
    metric = result.plan.metric
    factor, number = 100.0 if metric.is_fraction else 1.0, format_of(metric, group)
    unit = ("points" if is_change else "%") if metric.is_fraction else ""

    def value(row: Row) -> Estimate:
        return _NONE if row.failures else (row.changes if is_change else row.metrics).get(name, _NONE)

    # In the order of the whole study, so that a kind has the same colour in every panel.
    colors = list(dict.fromkeys(s.kind for group in result.plan.settings.values() for s in group if not s.is_baseline))
    series: list[Series] = []
    for kind in dict.fromkeys(setting.kind for setting in settings):
        of_kind = sorted((row for row in group if row.setting.kind == kind), key=lambda row: max(row.setting.rates))
        rates = tuple(max(row.setting.rates) for row in of_kind)
        series.append(Series(kind, rates, tuple(_scaled(value(row), factor) for row in of_kind), colors.index(kind)))
    level = Interval(0, 0, 0) if is_change else _scaled(value(base), factor)
    alt = f"{group[0].model}, {label} against p. " + _described(group, [value(row) for row in group], number)
    y_label = f"{label}, {unit}" if unit else label
    return against(series, level, "no dropout", "dropout rate p", y_label, group[0].model, alt)


def _calibration(groups: Sequence[Sequence[Row]]) -> Figure:
    panels: list[Panel] = []
    is_classification = any("test_nll" in row.metrics for group in groups for row in group)
    title = "Calibration, plain and Monte Carlo" if is_classification else "Plain and Monte Carlo predictions"
    caption = "Each line is a setting: plain evaluation, and the mean of Monte Carlo samples with dropout active. "
    caption += _OF_CLASSES if is_classification else "Lower is better."
    for group in groups:
        for metric, label, factor in (
            ("nll", "negative log-likelihood", 1.0),
            ("ece", "calibration error, %", 100.0),
            ("rmse", "root mean squared error", 1.0),
        ):
            plain, sampled = (
                [factor * signed_ece(row, name) if name in row.metrics and not row.failures else nan for row in group]
                for name in (f"test_{metric}", f"mc_test_{metric}")
            )
            if not any(map(isfinite, sampled)):
                continue
            labels = _labels(group)
            alt = f"{group[0].model}, {label}, plain and Monte Carlo. " + "; ".join(
                f"{setting} {a:.3g}" + (f" and {b:.3g}" if isfinite(b) else "")
                for setting, a, b in zip(labels, plain, sampled, strict=True)
                if isfinite(a)
            )
            name = f"{group[0].model}: {label}"
            panels.append(pairs(labels, plain, sampled, ("plain", "Monte Carlo"), label, name, alt, metric == "ece"))
    return Figure("calibration", title, caption, tuple(panels))


def _curves(result: StudyResult, groups: Sequence[Sequence[Row]]) -> Figure:
    caption = (
        "Solid: validation loss; dashed: training loss, with the dropout of training. Thick lines are means, pale ones "
        "the seeds. Where the validation loss rises while the training loss falls, the model overfits."
    )
    panels: list[Panel] = []
    recommended = {item.model: item.best for item in result.recommendations}
    for group in groups:
        shown = [Setting(), recommended.get(group[0].model) or _best(result, group)]
        items = [
            curve
            for row in group
            if row.setting in shown
            for part in ("validation", "training")
            for curve in _curve(row, part)
        ]
        if items:
            alt = f"{group[0].model}, loss by epoch. " + "; ".join(
                f"{item.name} ends at {sum(run[-1] for run in item.runs) / len(item.runs):.3g}" for item in items
            )
            panels.append(curves(items, "epoch", "loss", group[0].model, alt))
    return Figure("curves", "Learning curves", caption, tuple(panels))


def _curve(row: Row, part: str) -> Iterable[Curve]:
    """The curve of a row, up to the epoch that all seeds reached."""
    of_seeds = [outcome.curves for outcome in row.outcomes if f"{part}_loss" in outcome.curves and not outcome.failed]
    length = min((len(values["epoch"]) for values in of_seeds), default=0)
    if length > 1:
        runs = tuple(values[f"{part}_loss"][:length] for values in of_seeds)
        color = None if row.setting.is_baseline else 0
        yield Curve(f"{row.setting}, {part}", of_seeds[0]["epoch"][:length], runs, color, part == "training")


def _best(result: StudyResult, group: Sequence[Row]) -> Setting:
    """The setting with dropout that is best in validation, where there is no recommendation."""
    metric = result.plan.metric
    name, sign = f"validation_{metric.name}", -1 if metric.is_higher_better else 1
    rows = [row for row in group if not row.setting.is_baseline and not row.failures and name in row.metrics]
    return min(rows, key=lambda row: sign * row.metrics[name].mean).setting if rows else Setting()


def _sites(result: StudyResult, groups: Sequence[Sequence[Row]]) -> Figure:
    metric = result.plan.metric
    caption = (
        f"Change of the test {metric.label} from no dropout, by pairs of equal seeds, with intervals that hold "
        "together at 95%: with dropout at all sites, at one only, and at all but one."
    )
    panels: list[Panel] = []
    for group in groups:
        rows = [row for row in group if not row.setting.is_baseline]
        if len({row.setting.sites for row in rows}) < 2 and not any(isinstance(r.setting.p, tuple) for r in rows):
            continue
        changes = [_NONE if row.failures else row.changes.get(f"test_{metric.name}", _NONE) for row in rows]
        factor, unit = (100.0, ", points") if metric.is_fraction else (1.0, "")
        label = f"change of test {metric.label}{unit}"
        alt = f"{group[0].model}, {label}. " + _described(rows, changes, format_of(metric, group))
        scaled = [_scaled(change, factor) for change in changes]
        panels.append(listed(_labels(rows), scaled, label, group[0].model, alt))
    return Figure("sites", "What each site contributes", caption, tuple(panels), columns=1)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Name settings as shortly as their differences allow."""
    sites, settings = sites_of(rows), [row.setting for row in rows]
    with_dropout = [setting for setting in settings if not setting.is_baseline]
    has_sites = len({setting.sites for setting in with_dropout}) > 1
    has_kinds = not has_sites or len({(setting.kind, setting.p) for setting in with_dropout}) > 1

    def label(setting: Setting) -> str:
        if setting.is_baseline:
            return "no dropout"
        what = f"{setting.kind} {' '.join(f'{p:.2g}' for p in setting.rates)}" if has_kinds else ""
        text = f"{what} {where(setting, sites) if has_sites else ''}".strip()
        # The end of a module's name tells more than its beginning.
        return text if len(text) <= _MAX_LABEL else f"{text[:12]}…{text[13 - _MAX_LABEL :]}"

    return list(map(label, settings))


def _scaled(value: Estimate, factor: float) -> Interval:
    return Interval(factor * value.mean, factor * value.low, factor * value.high)


def _described(rows: Sequence[Row], values: Sequence[Estimate], number: Format) -> str:
    unit = " %" if number.factor != 1 else ""
    texts = [
        f"{label}: {number(value.mean)}{unit}"
        for label, value in zip(_labels(rows), values, strict=True)
        if isfinite(value.mean)
    ]
    return "; ".join(texts) + "."
