"""Summaries of a prediction: for a terminal, for programs line by line, and as a page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

import dropkit
from dropkit.mc.metrics import ClassQuality, ValueQuality
from dropkit.mc.prediction import ClassPrediction, Prediction, ValuePrediction, said_samples
from dropkit.report import plots
from dropkit.report.console import console

# Of images and texts a line would be as long as the input.
MOST_NUMBERS = 1000

_MEASURES = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")
_WIDTH = 100

Quality = ClassQuality | ValueQuality


def quality(found: Prediction, truth: Tensor | None, tau: float | None) -> Quality | None:
    """How good it is where the truth is known; `tau` is fitted to this truth if it is None.

    Raises:
        ImportError: scipy is not installed, and `tau` is to be fitted.
        TypeError: the truth does not hold classes.
        ValueError: the truth has another shape, or `tau` is out of range.
    """
    if truth is None:
        return None
    if not found.mean.isfinite().all():
        raise ValueError("predictions must be finite numbers, got others")
    if isinstance(found, ValuePrediction):
        return found.report(truth, found.fit_tau(truth) if tau is None else tau)
    assert isinstance(found, ClassPrediction)
    return found.report(truth)


def noted(found: Prediction, fitted: bool) -> Prediction:
    """The prediction, and in its notes what a reader of its numbers should know.

    Args:
        fitted: tau comes from the truth that it is judged by.
    """
    notes = list(found.notes)
    unknown = int((~found.mean.isfinite()).reshape(len(found), -1).any(1).sum())
    if unknown:
        notes.append(f"the mean is not a finite number for {unknown} of {len(found)} inputs")
    if int(found.samples.min()) < 2:
        notes.append("one sample tells nothing of its error, which is nan")
    if fitted:
        notes.append(
            "tau was fitted to the same truth that the log-likelihood and the intervals are judged by, which flatters "
            "them; give --tau, fitted to other inputs"
        )
    return replace(found, notes=tuple(notes))


def text(found: Prediction, truth: Tensor | None, quality: Quality | None, top: int, color: bool) -> str:
    """The measures, the quality where the truth is known, and the least certain inputs."""
    screen = console(
        file=io.StringIO(),
        width=_WIDTH,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,  # whatever NO_COLOR says, which the caller has heard
    )
    screen.print(repr(found), style="bold", highlight=False)
    screen.print(_table(("measure", "mean over inputs", "standard error of one input"), _means(found)))
    if quality is not None:
        screen.print(quality.table(), highlight=False)
        screen.print()
    if top:
        screen.print(f"least certain, by {_least_certain_by(found)}", style="bold", highlight=False)
        screen.print(_table(*_least_certain(found, truth, top)))
    for note in found.notes:
        screen.print(f"note: {note}", style="yellow", highlight=False)
    file = screen.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def lines(found: Prediction, truth: Tensor | None) -> Iterator[dict[str, Any]]:
    """One record for each input, in order, with the notes on all; tensors as nested lists, None if not finite."""
    names = ["mean", "variance", *(_MEASURES if isinstance(found, ClassPrediction) else ())]
    for place in range(len(found)):
        record: dict[str, Any] = {"index": place, "samples": int(found.samples[place])}
        if isinstance(found, ClassPrediction):
            # argmax gives a class even of numbers that are none.
            record["label"] = _numbers(found.label[place]) if bool(found.mean[place].isfinite().all()) else None
        if truth is not None and len(truth) == len(found):
            record["truth"] = _numbers(truth[place])
        record |= {name: _numbers(getattr(found, name)[place]) for name in names}
        record["notes"] = list(found.notes)
        record["standard_error"] = {name: _numbers(error[place]) for name, error in found.standard_error.items()}
        yield record


def page(found: Prediction, truth: Tensor | None, quality: Quality | None, top: int, title: str) -> str:
    """A page that stands alone; with plots of the quality where the truth is known."""
    from dropkit.report.page import render  # needs jinja2, which the rest does not

    head, rows = _least_certain(found, truth, top)
    return render(
        "mc.html",
        title=title,
        found=found,
        inputs=len(found),
        samples=said_samples(found),
        means=_means(found),
        tiles=_tiles(found, quality),
        figures=[*_figures(found, quality)],
        by=_least_certain_by(found),
        head=head,
        rows=rows,
        version=dropkit.__version__,
        torch=torch.__version__,
    )


def _means(found: Prediction) -> list[tuple[str, str, str]]:
    names = _MEASURES if isinstance(found, ClassPrediction) else ("mean", "variance")
    return [
        (name.replace("_", " "), _short(getattr(found, name).mean()), _short(found.standard_error[name].mean()))
        for name in names
    ]


def _doubt(found: Prediction) -> Tensor:
    """What inputs are ordered by, (N,): of many labels or values of an input the mean."""
    measure = found.mutual_information if isinstance(found, ClassPrediction) else found.variance
    return measure.reshape(len(found), -1).mean(1)


def _least_certain_by(found: Prediction) -> str:
    return "mutual information" if isinstance(found, ClassPrediction) else "variance"


def _least_certain(found: Prediction, truth: Tensor | None, top: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of a table."""
    if isinstance(found, ClassPrediction):
        head: tuple[str, ...] = ("input", "label", "confidence", "entropy", "mutual information", "+-")
    else:
        head = ("input", "mean", "standard deviation")
    measure = _doubt(found)
    single = found.mean.dim() <= 2
    if truth is not None and single:
        head = (*head, "truth")
    rows: list[tuple[str, ...]] = []
    for place in _list(measure.nan_to_num(-math.inf).topk(min(top, len(found))).indices):
        rows.append(_row(found, place) + ((_said(truth[place]),) if truth is not None and single else ()))
    return head, rows


def _row(found: Prediction, place: int) -> tuple[str, ...]:
    if isinstance(found, ClassPrediction):
        values = (found.confidence, found.entropy, found.mutual_information)
        error = found.standard_error["mutual_information"]
        label = _said(found.label[place]) if found.label.dim() == 1 else "-"
        return str(place), label, *(_short(one[place].mean()) for one in values), _short(error[place].mean())
    deviation = found.variance[place].sqrt()
    return str(place), _said(found.mean[place]), _said(deviation)


def _tiles(found: Prediction, quality: Quality | None) -> list[tuple[str, str]]:
    tiles = [(f"{len(found):,}", "inputs"), (said_samples(found), "samples of each")]
    if isinstance(quality, ClassQuality):
        tiles += [
            (f"{quality.error:.2%}", "error"),
            (_short(quality.nll), "negative log-likelihood, nats"),
            (f"{quality.ece:.3f}", f"calibration error, {'over' if quality.overconfidence > 0 else 'under'}confident"),
        ]
    elif quality is not None:
        tiles += [
            (_short(quality.rmse), "root mean squared error"),
            (_short(quality.log_likelihood), "log-likelihood, nats"),
            (_short(quality.tau), "precision of the noise"),
        ]
    return tiles


def _figures(found: Prediction, quality: Quality | None) -> Iterator[tuple[str, str, str]]:
    """(title, what it shows, SVG)."""
    # Less than none comes of rounding.
    doubt = _doubt(found).clamp(min=0)
    if isinstance(found, ClassPrediction):
        title, what, label = "Disagreement", "mutual information, in nats", "mutual information"
    else:
        title, what, label = "Spread", "standard deviation, that of the noise left out", "standard deviation"
        doubt = doubt.sqrt()
    yield title, f"How many inputs have how much {what}.", plots.histogram(_list(doubt), label)
    if isinstance(quality, ClassQuality):
        bins = [one for one in quality.reliability if one.count]
        reliability = plots.reliability(
            [(one.low, one.high) for one in bins], [one.accuracy for one in bins], [one.count for one in bins]
        )
        yield (
            "Reliability",
            "Accuracy by confidence: on the line where the model is as sure as it should be.",
            reliability,
        )
        risk = quality.risk_coverage
        curve = plots.curve(_list(risk.coverage), _list(risk.risk), "inputs kept", "error")
        yield "Risk and coverage", f"The error of the inputs that are kept, the surest by {risk.by} first.", curve
    elif quality is not None:
        levels = [0.0, *(one.level for one in quality.coverage), 1.0]
        held = [0.0, *(one.fraction for one in quality.coverage), 1.0]
        curve = plots.curve(levels, held, "level of the interval", "truths inside", diagonal=True)
        yield "Coverage", "How many truths lie in intervals of each level: on the line where as many as should.", curve


def _table(head: tuple[str, ...], rows: list[Any]) -> Table:
    table = Table(*head, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    return table


def _said(value: Tensor) -> str:
    """A number, or a few."""
    numbers = value.flatten()
    shown = ", ".join(_short(one) if one.is_floating_point() else str(int(one)) for one in numbers[:3])
    return shown + (", ..." if len(numbers) > 3 else "")


def _short(value: Tensor | float) -> str:
    return f"{float(value):.4g}"


def _numbers(value: Tensor) -> Any:
    return _finite(value.tolist()) if value.numel() <= MOST_NUMBERS else None


def _list(value: Tensor) -> list[Any]:
    return cast("list[Any]", value.tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
