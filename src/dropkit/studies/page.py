"""The result of a study as a self-contained HTML page: the answer, figures, tables, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from dropkit.report.columns import Column
from dropkit.report.units import counted
from dropkit.studies.columns import columns, verdict
from dropkit.studies.figures import Figure, figures
from dropkit.studies.recommendation import Recommendation
from dropkit.studies.result import StudyResult
from dropkit.studies.statistics import CONFIDENCE
from dropkit.studies.table import legend, notes

_METHOD = (
    "The setting is chosen on validation examples: the one with the least dropout whose result is within one standard "
    "error of the best one's. What it changes is measured on test examples. Intervals of changes are at "
    "{confidence:.0%}, for all settings of a model together; they say what other seeds would give, not other data."
)


def page(result: StudyResult, shown: list[Figure] | None = None) -> str:
    """Return the page.

    Args:
        result: of the study, which may be unfinished.
        shown: its figures, if the caller has them.

    Raises:
        ImportError: jinja2 or matplotlib is not installed.
    """
    from dropkit.report.page import render  # needs jinja2, which the table does not

    plan = result.plan
    groups = {model: [row for row in result.rows if row.model == model] for model in plan.settings}
    tables = [_table(result, model) for model, rows in groups.items() if rows]
    return render(
        "study.html",
        models=", ".join(groups),
        subtitle=_subtitle(result),
        answers=[(item.sentence, _verdict(item, result)) for item in result.recommendations],
        method=_METHOD.format(confidence=CONFIDENCE),
        notes=[(model, note) for model, rows in groups.items() for note in notes(plan, model, rows)],
        figures=figures(result) if shown is None else shown,
        legend=legend(plan, [column for _, shown, _ in tables for column in shown]),
        tables=tables,
        command=plan.provenance.get("command", ""),
        facts=[*_facts(plan.to_dict())],
    )


def _subtitle(result: StudyResult) -> str:
    plan = result.plan
    data = plan.description.get("data")
    settings = sum(map(len, plan.settings.values()))
    failed = sum(outcome.failed for outcome in result.outcomes)
    parts = [
        str(data) if data else "",
        f"{counted(settings, 'setting')} with {counted(plan.seeds, 'seed')} each",
        f"{len(result.outcomes)} of {counted(len(plan.trials), 'trial')} finished" if not result.is_finished else "",
        f"{counted(failed, 'trial')} failed" if failed else "",
    ]
    return ", ".join(filter(None, parts)) + "."


def _verdict(item: Recommendation, result: StudyResult) -> str:
    """The class of a sentence: better if dropout is recommended, warning if nothing could be concluded."""
    if item.setting is None and item.best is None:
        return "warning"
    is_better = item.change is not None and verdict(item.change, result.plan.metric) == "better"
    return "better" if is_better else "info"


def _table(result: StudyResult, model: str) -> tuple[str, list[Column], list[bool]]:
    rows = [row for row in result.rows if row.model == model]
    chosen = {item.model: item.setting for item in result.recommendations}.get(model)
    return model, columns(result.plan, rows), [row.setting == chosen for row in rows]


def _facts(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What outcomes depend on, and the environment, as names and values."""
    for name, value in plan.items():
        if name in ("settings", "metric", "chance", "command"):
            continue
        if isinstance(value, dict):
            for inner, text in _facts(cast("dict[str, Any]", value)):
                yield (inner if name in ("provenance", "recipe") else f"{name}: {inner}"), text
        else:
            yield name.replace("_", " "), "none" if value is None else str(value)
