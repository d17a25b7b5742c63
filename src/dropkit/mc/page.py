"""The summary of a prediction as a self-contained HTML page with plots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

import dropkit
from dropkit.arguments import check
from dropkit.mc import columns, maps
from dropkit.mc.measures import MultilabelMeasures, Prediction, ValueMeasures, count_of_samples, least_samples
from dropkit.mc.metrics import ClassificationReport, RegressionReport
from dropkit.mc.per_class import per_class
from dropkit.mc.summary import Summary, as_list
from dropkit.mc.thumbnails import thumbnails
from dropkit.report import plots
from dropkit.report.columns import Column


def page(summary: Summary, title: str) -> str:
    """Return the page, with plots of the report if the truth is known.

    Raises:
        ImportError: jinja2 or matplotlib is not installed.
        ValueError: there are more or fewer names of classes than classes.
    """
    from dropkit.report.page import render  # needs jinja2, which the table does not

    prediction = summary.prediction
    must_name_every_class(summary)
    return render(
        "mc.html",
        title=title,
        warnings=summary.warnings,
        answers=[*_answers(summary)],
        notes=prediction.notes,
        inputs=len(prediction),
        samples=count_of_samples(prediction),
        tiles=[
            (f"{len(prediction):,}", "inputs"),
            (count_of_samples(prediction), "samples of each"),
            *_tiles(summary.report),
        ],
        figures=[*_figures(summary)],
        tables=[table for table in _tables(summary) if table[2]],
        version=dropkit.__version__,
        torch=torch.__version__,
    )


def must_name_every_class(summary: Summary) -> None:
    """Raise a ValueError if there are more or fewer names of classes than classes or labels."""
    if summary.classes is not None:
        count = count_of_classes(summary.prediction)
        check("classes", len(summary.classes) == count, f"{count} names", len(summary.classes))


def count_of_classes(prediction: Prediction) -> int:
    """Return how many classes or labels a prediction has; 0 for values."""
    return 0 if isinstance(prediction, ValueMeasures) else prediction.mean.shape[-1]


def _answers(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield sentences on the plain pass, each with its verdict."""
    if summary.changed():
        yield _sentence(summary.changed()), "info"
    comparison = None if summary.report is None else summary.report.comparison
    if comparison is not None:
        verdicts = {item.verdict for item in comparison.differences.values()}
        verdict = next((name for name in ("worse", "better") if name in verdicts), "info")
        yield _sentence(comparison.sentence), {"worse": "warning"}.get(verdict, verdict)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _tiles(report: ClassificationReport | RegressionReport | None) -> list[tuple[str, str]]:
    """The headline numbers of a report, each as (number, what it is)."""
    if isinstance(report, ClassificationReport):
        return [
            (f"{report.error:.2%}", "error"),
            (columns.in_short(report.nll), "negative log-likelihood, nats"),
            (f"{report.ece:.3f}", f"calibration error, {'over' if report.overconfidence > 0 else 'under'}confident"),
        ]
    if report is not None:
        return [
            (columns.in_short(report.rmse), "root mean squared error"),
            (columns.in_short(report.log_likelihood), "log-likelihood, nats"),
            (columns.in_short(report.tau), "precision of the noise"),
        ]
    return []


def _tables(summary: Summary) -> Iterator[tuple[str, str, list[Column]]]:
    """Yield the tables, each as (title, what the numbers are, columns)."""
    yield (
        "Samples and plain pass",
        "The mean of the samples beside a single pass without dropout, on the same inputs. The difference is samples "
        "less plain pass, with its 95 % interval over inputs.",
        columns.comparison(summary),
    )
    is_multilabel = isinstance(summary.prediction, MultilabelMeasures)
    yield (
        "Labels" if is_multilabel else "Classes",
        "Errors in percent"
        + (" of the inputs of each class" * (not is_multilabel))
        + "; ± half the 95 % interval (Agresti and Coull). Confidence and measures are means over these inputs.",
        per_class(summary),
    )
    yield "Measures", f"Means over all inputs. {_errors(summary)}", columns.measures(summary)
    if summary.top:
        yield _sentence(summary.least_certain_title()).rstrip("."), _errors(summary), _with_pictures(summary)


def _errors(summary: Summary) -> str:
    """What ± is."""
    if least_samples(summary.prediction) < 2:
        return "A single sample has no standard errors."
    if not summary.prediction.standard_error:
        return "Standard errors were not computed."
    return (
        "± is the Monte Carlo standard error, by which a number would differ with other masks: the number ± 1.96 "
        "errors is its 95 % interval. More samples make it smaller."
    )


def _with_pictures(summary: Summary) -> list[Column]:
    """The least certain inputs, with a picture of each that is an image."""
    first, *others = columns.least_certain(summary)
    pictures = {} if summary.inputs is None else thumbnails(summary.inputs, summary.least_certain_indices())
    cells = tuple(replace(cell, image=pictures.get(int(cell.value), "")) for cell in first.cells)
    return [replace(first, cells=cells), *others]


def _figures(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Yield the plots, each as (title, caption, SVG)."""
    uncertainty, order = summary.uncertainty(), summary.order
    if uncertainty is not None and order is not None:
        # Rounding may give a little less than 0.
        uncertainty, label, unit = uncertainty.clamp(min=0), order.label, str(order.unit)
        if unit == "y^2":
            uncertainty, label, unit = uncertainty.sqrt(), label.replace("variance", "standard deviation"), "y"
        caption = f"Histogram of the inputs' {label}, in {'the unit of the values' if unit == 'y' else unit}."
        yield label.capitalize(), caption, plots.histogram(as_list(uncertainty), label)
    yield from maps.figures(summary)
    if isinstance(summary.report, ClassificationReport):
        yield from _classification_figures(summary.report)
    elif summary.report is not None and summary.report.coverage:
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
