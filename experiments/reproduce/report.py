"""The page of the results, docs/reproduction.md, with its pictures and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dropkit import files
from dropkit.report.panel import png
from dropkit.studies import Estimate, Outcome, Plan, Setting, StudyResult
from dropkit.studies.rows import Row
from dropkit.studies.setting import BASELINE
from dropkit.studies.statistics import estimate
from reproduce.claims import VERDICTS, claims, row_of, time_ratios, units_of
from reproduce.experiments import ALL_SITES, EPOCHS, EXPERIMENTS, FIGURES_10
from reproduce.pictures import pictures

PAGE, DATA, PICTURES = "reproduction.md", "reproduction.json", "reproduction"
_BEGIN, _END = "<!-- results: written by `make reproduce` -->\n", "<!-- end of results -->\n"

Results = Mapping[str, StudyResult]


def write(docs: Path, results: Results) -> Path:
    """Write the results into the page, the pictures beside it, and the data that both follow from."""
    # Learning curves are not shown, and most of what there is.
    values = {
        name: {"plan": result.plan.to_dict(), "trials": [replace(o, curves={}).to_dict() for o in result.outcomes]}
        for name, result in results.items()
    }
    (docs / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, panels in pictures(results).items():
        files.write(docs / PICTURES / f"{name}.png", png(panels, 2))
    files.write(
        docs / DATA, (json.dumps(values, separators=(",", ":")).replace('{"trial":', '\n{"trial":') + "\n").encode()
    )
    results = read(docs)
    page = docs / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else _BEGIN + _END
    files.write(page, with_results(text, results).encode())
    return page


def read(docs: Path) -> dict[str, StudyResult]:
    """Read the data; empty if there is none."""
    path = docs / DATA
    values: dict[str, Any] = json.loads(files.read(path)) if path.exists() else {}
    return {
        name: StudyResult(Plan.from_dict(one["plan"]), tuple(map(Outcome.from_dict, one["trials"])))
        for name, one in values.items()
    }


def with_results(text: str, results: Results) -> str:
    """Return the text of the page with these results between its marks."""
    before, _, rest = text.partition(_BEGIN)
    parts = (_claims(results), _figure_9(results), _figure_10(results), _batchwise(results["batchwise"]))
    return before + _BEGIN + "\n" + "\n".join(parts) + "\n" + _END + rest.partition(_END)[2]


def _claims(results: Results) -> str:
    groups = claims(results)
    count = sum(map(len, groups.values()))
    summary, lines = list[str](), list[str]()
    for name, group in groups.items():
        verdicts = [claim.verdict(count) for claim in group]
        agreeing, unclear, disagreeing = map(verdicts.count, VERDICTS)
        counts = f"{agreeing} agree, {unclear} not shown, {disagreeing} disagree"
        summary.append(f"- {name}: of {len(group)} claims {counts}.")
        lines += [
            f"| {name}: {claim.paper} | {claim.compared} | {claim.expected.value} "
            f"| {_change(claim.estimate(count), 1)} | {verdict} |"
            for claim, verdict in zip(group, verdicts, strict=True)
        ]
    plan = results["figure 9a"].plan
    seconds = sum(outcome.seconds for result in results.values() for outcome in result.outcomes)
    trials = sum(len(result.outcomes) for result in results.values())
    failures = sum(len(result.failures) for result in results.values())
    made = (
        f"{plan.seeds} seeds, {trials} trials, {failures} failed; {seconds / 60:.1f} minutes of processor time with "
        f"torch {plan.description['torch']}, Python {plan.provenance['python']}, {plan.provenance['machine']}."
    )
    head = [
        "| claim | measured | expected | percentage points, or % of time (95 % interval) | the claim |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*summary, "", *head, *lines, "", made, ""])


def _figure_9(results: Results) -> str:
    lines = [
        "## Figure 9: error against the rate",
        "",
        f"![Test and training error against the rate]({PICTURES}/figure-9.png)",
        "",
        "| rate p | kept | 9a: units | training error | test error | change | 9b: units | training error | test error "
        "| change |",
        "|---" * 10 + "|",
    ]
    for setting in next(iter(results["figure 9a"].plan.settings.values())):
        p = setting.rates[0]
        cells = [f"{p:g}", f"{1 - p:g}"]
        for name in ("figure 9a", "figure 9b"):
            row = row_of(results[name], setting)
            cells += [units_of(name, setting), _error(row, "training"), _error(row), _row_change(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _figure_10(results: Results) -> str:
    columns = ["training error, dropout", "test error, none", "test error, dropout", "change"]
    heads = [f"{units_of(name)}: {columns[0]} | {' | '.join(columns[1:])}" for name in FIGURES_10]
    lines = [
        "## Figure 10: error against the number of digits",
        "",
        f"![Test error and gain against the number of digits]({PICTURES}/figure-10.png)",
        "",
        f"| digits | epochs | {' | '.join(heads)} |",
        "|---" * (2 + len(heads) * len(columns)) + "|",
    ]
    for model in results[FIGURES_10[0]].plan.settings:
        cells = [model, str(EPOCHS[int(model)])]
        for name in FIGURES_10:
            none, dropout = (row_of(results[name], setting, model) for setting in (BASELINE, ALL_SITES))
            cells += [_error(dropout, "training"), _error(none), _error(dropout), _row_change(dropout)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _batchwise(result: StudyResult) -> str:
    lines = [
        "## Batchwise dropout",
        "",
        f"![Change of the test error, and time per epoch]({PICTURES}/batchwise.png)",
        "",
        "| dropout | training error | test error | change | seconds per epoch | time, in % of none |",
        "|---" * 6 + "|",
    ]
    none = row_of(result, BASELINE)
    for row in result.rows:
        time = row.seconds / EXPERIMENTS["batchwise"].epochs(none.outcomes[0].trial)
        ratio = estimate([100 * ratio for ratio in time_ratios(row, none)])
        cells = [
            _name(row.setting), _error(row, "training"), _error(row), _row_change(row), f"{time:.3f}",
            "" if row is none else _interval(ratio, 0),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _name(setting: Setting) -> str:
    name = "by element" if setting.kind == "dropout" else setting.kind
    return "none" if setting.is_baseline else f"{name}, {setting.rates[0]:g}"


def _error(row: Row, part: str = "test") -> str:
    value = row.metrics[f"{part}_error"]
    return f"{100 * value.mean:.2f} ± {100 * (value.high - value.mean):.2f}"


def _row_change(row: Row) -> str:
    return "" if row.setting.is_baseline else _change(row.changes["test_error"], 100)


def _change(value: Estimate, factor: float) -> str:
    mean, low, high = (factor * number for number in (value.mean, value.low, value.high))
    return f"{mean:+.2f} ({low:+.2f}, {high:+.2f})"


def _interval(value: Estimate, decimals: int) -> str:
    return f"{value.mean:.{decimals}f} ({value.low:.{decimals}f}, {value.high:.{decimals}f})"
