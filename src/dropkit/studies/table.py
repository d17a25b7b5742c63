"""The result of a study as text for a terminal: a table for each model, and what to use."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.report.columns import Column
from dropkit.report.console import console
from dropkit.report.units import counted
from dropkit.studies.columns import columns, short_name, sites_of
from dropkit.studies.plan import Plan
from dropkit.studies.recommendation import Recommendation
from dropkit.studies.rows import Row
from dropkit.studies.statistics import CONFIDENCE

_WIDTH = 80
# Longer names are folded.
_TEXT_WIDTH = 24
# More failed trials than this are counted, not listed.
_MAX_NOTES = 5
_STYLES = {"": "", "better": "green", "worse": "red", "failed": "red"}


def table(plan: Plan, rows: Sequence[Row], recommendations: Sequence[Recommendation], color: bool = False) -> str:
    """Return a table for each model, how to read it, and the recommendations; lines have at most 80 characters.

    Args:
        plan: of the study.
        rows: its results.
        recommendations: what they show.
        color: whether to use escape codes for a terminal.
    """
    output = io.StringIO()
    system = "standard" if color else None
    screen = console(file=output, width=_WIDTH, force_terminal=color, color_system=system, no_color=not color)
    chosen = {item.model: item.setting for item in recommendations}
    explained: list[Column] = []
    for model in plan.settings:
        group = [row for row in rows if row.model == model]
        screen.print(model, style="bold", highlight=False)
        for line in _legend_of_sites(group):
            screen.print(line, highlight=False, style="dim")
        if group:
            shown = _that_fit(columns(plan, group, _numbers(group)))
            explained += shown
            screen.print(_table(shown, group, chosen.get(model)))
        for note in notes(plan, model, group):
            screen.print(fill(note, _WIDTH), highlight=False, style="yellow")
    screen.print(fill(legend(plan, explained), _WIDTH), highlight=False, style="dim")
    for item in recommendations:
        screen.print()
        screen.print(fill(item.sentence, _WIDTH), highlight=False, style="bold")
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip("\n").split("\n"))


def legend(plan: Plan, shown: Iterable[Column]) -> str:
    """Say how to read the numbers of these columns."""
    headings = {column.heading for column in shown}
    parts = [
        f"Means over {counted(plan.seeds, 'seed')}, ± their {CONFIDENCE:.0%} interval.",
        f"change: of the test {short_name(plan.metric)} from no dropout, in pairs with equal split, initial weights "
        f"and batches; the intervals hold together for all settings of a model.",
    ]
    if any("ECE" in heading for heading in headings):
        parts.append("ECE: expected calibration error, + where the model is overconfident, - where underconfident.")
    if any(heading.startswith("MC ") for heading in headings):
        parts.append("MC: mean prediction of Monte Carlo dropout.")
    if "seconds" in headings:
        parts.append("s: seconds of training in one trial.")
    return " ".join(parts)


def notes(plan: Plan, model: str, rows: Sequence[Row]) -> list[str]:
    """Return what went wrong with a model: trials that failed, and trials that are missing."""
    failed: dict[tuple[str, str], list[str]] = {}
    for outcome in (outcome for row in rows for outcome in row.failures):
        trial, reason = outcome.trial, str(outcome.failure)
        failed.setdefault((str(trial.setting), reason), []).append(str(trial.seed))
    texts = [
        f"failed: {setting}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}: {reason}"
        for (setting, reason), seeds in failed.items()
    ]
    if len(texts) > _MAX_NOTES:
        texts = [*texts[:_MAX_NOTES], f"failed: {len(texts) - _MAX_NOTES} more"]
    total = plan.seeds * len(plan.settings[model])
    missing = total - sum(len(row.outcomes) for row in rows)
    if missing:
        texts.append(f"missing: {missing} of {counted(total, 'trial')}")
    return texts


def _legend_of_sites(rows: Sequence[Row]) -> Iterable[str]:
    """Names of modules are too long for cells, so that they have numbers."""
    if len({row.setting.sites for row in rows if not row.setting.is_baseline}) > 1:
        for site, number in _numbers(rows).items():
            yield f"site {number}: {site}"


def _numbers(rows: Sequence[Row]) -> dict[str, str]:
    return {site: str(number) for number, site in enumerate(sites_of(rows), start=1)}


def _table(shown: Sequence[Column], rows: Sequence[Row], chosen: object) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in shown:
        justify, is_short = "right" if column.is_number else "left", _width(column) <= _TEXT_WIDTH
        table.add_column(_heading(column), justify=justify, no_wrap=is_short, overflow="fold")
    for number, row in enumerate(rows):
        cells = [column.cells[number] for column in shown]
        style = "bold" if row.setting == chosen else None
        table.add_row(*(Text(cell.text, _STYLES[cell.verdict]) for cell in cells), style=style)
    return table


def _that_fit(all_columns: list[Column]) -> list[Column]:
    """Leave out the least important columns until the others fit."""
    shown = list(all_columns)
    while sum(min(_TEXT_WIDTH, _width(column)) + 1 for column in shown) - 1 > _WIDTH:
        least = max(shown, key=lambda column: column.priority)
        if least.priority == 0:
            break
        shown.remove(least)
    return shown


def _heading(column: Column) -> str:
    """A heading of two lines."""
    text = column.short or column.heading
    if column.unit:
        return f"{text.replace(' ', chr(10))} {column.unit}" if " " in text else f"{text}\n{column.unit}"
    return text.replace(" ", "\n")


def _width(column: Column) -> int:
    return max(map(len, [*_heading(column).split("\n"), *(cell.text for cell in column.cells)]))
