"""The summary of a prediction as a self-contained HTML page with plots."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import dropkit
from dropkit.mc.measures import ClassMeasures, count_of_samples
from dropkit.mc.metrics import ClassificationReport, RegressionReport
from dropkit.mc.summary import Summary, as_list, in_short
from dropkit.report import plots


def page(summary: Summary, title: str) -> str:
    """Return the page, with plots of the report if the truth is known."""
    from dropkit.report.page import render  # needs jinja2, which the table does not

    prediction = summary.prediction
    head, rows = summary.least_certain()
    return render(
        "mc.html",
        title=title,
        notes=prediction.notes,
        inputs=len(prediction),
        samples=count_of_samples(prediction),
        measures=summary.measures(),
        tiles=[
            (f"{len(prediction):,}", "inputs"),
            (count_of_samples(prediction), "samples of each"),
            *_tiles(summary.report),
        ],
        figures=[*_figures(summary)],
        ordered_by=summary.ordered_by,
        head=head,
        rows=rows,
        version=dropkit.__version__,
        torch=torch.__version__,
    )


def _tiles(report: ClassificationReport | RegressionReport | None) -> list[tuple[str, str]]:
    """The headline numbers of a report, each as (number, what it is)."""
    if isinstance(report, ClassificationReport):
        return [
            (f"{report.error:.2%}", "error"),
            (in_short(report.nll), "negative log-likelihood, nats"),
            (f"{report.ece:.3f}", f"calibration error, {'over' if report.overconfidence > 0 else 'under'}confident"),
        ]
    if report is not None:
        return [
            (in_short(report.rmse), "root mean squared error"),
            (in_short(report.log_likelihood), "log-likelihood, nats"),
            (in_short(report.tau), "precision of the noise"),
        ]
    return []


def _figures(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Yield the plots, each as (title, caption, SVG)."""
    # Rounding may give a little less than 0.
    uncertainty = summary.uncertainty().clamp(min=0)
    if isinstance(summary.prediction, ClassMeasures):
        title, description, label = "Disagreement", "mutual information, in nats", "mutual information"
    else:
        title, description, label = "Spread", "standard deviation, without that of the noise", "standard deviation"
        uncertainty = uncertainty.sqrt()
    yield title, f"Histogram of the inputs' {description}.", plots.histogram(as_list(uncertainty), label)
    if isinstance(summary.report, ClassificationReport):
        yield from _classification_figures(summary.report)
    elif summary.report is not None:
        levels = [0.0, *(item.level for item in summary.report.coverage), 1.0]
        fractions = [0.0, *(item.fraction for item in summary.report.coverage), 1.0]
        curve = plots.curve(levels, fractions, "level of the interval", "true values inside", diagonal=True)
        caption = "Fraction of the true values inside intervals of each level: on the line if calibrated."
        yield "Coverage", caption, curve


def _classification_figures(report: ClassificationReport) -> Iterator[tuple[str, str, str]]:
    bins = [item for item in report.reliability if item.count]
    reliability = plots.reliability(
        [(item.low, item.high) for item in bins], [item.accuracy for item in bins], [item.count for item in bins]
    )
    yield "Reliability", "Accuracy by confidence: on the line if calibrated.", reliability
    risk = report.risk_coverage
    curve = plots.curve(as_list(risk.coverage), as_list(risk.risk), "inputs kept", "error")
    yield "Risk and coverage", f"Error of the inputs that are kept, the least uncertain by {risk.by} first.", curve
