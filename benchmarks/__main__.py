"""Run all benchmarks, or those that are named, and print their tables."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from inspect import getdoc
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from side_by_side import Row, machine

BENCHMARKS = (
    "forward",
    "forward_backward",
    "against_copy",
    "kept_memory",
    "small",
    "transforms",
    "sharded",
    "layouts",
    "fused",
    "drop_path",
    "noise",
    "sparse",
    "structured",
    "layers",
    "recurrent",
    "transformer",
    "batchwise",
    "feed_forward_blocks",
    "mc_loop",
    "mc_memory",
    "moments",
    "compiled",
    "importing",
    "checking",
    "auditing",
)
DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
HEAD = ("case", "dropkit", "compared with", "ratio", "target", "met")
PREFACE = """# Benchmarks

Measured by `make bench` on {machine}.

Each section answers one question, and says what dropkit is compared with. The two sides of a row are timed alternately
in one process, and each time is a median, so that a ratio compares like with like. A target is the smallest (`>=`) or
the largest (`<=`, `<`) acceptable ratio; "NO" marks the targets that are missed. The targets of the first two sections
are half as high on processors without AVX-512. Rows without a target are there for information.

Run them on your machine:

```sh
make bench                           # all of them
make bench NAMES="forward small"     # some of them, by the names of the files in benchmarks/
make bench NAMES="--record small"    # and keep the rows in benchmarks.json, from which this page is written
.venv/bin/python benchmarks/gpu      # on a machine with a GPU; these have not been measured yet
make peers                           # Monte Carlo dropout beside other packages; the results are in monte-carlo.md
```
"""


def cells(row: Row) -> tuple[str, ...]:
    return row.case, row.ours, row.theirs, f"{row.ratio:.3g}", row.target, row.met


def as_table(title: str, rows: list[Row]) -> Table:
    table = Table(*HEAD, title=title, title_justify="left")
    for row in rows:
        table.add_row(*cells(row))
    return table


def as_section(title: str, explanation: str, rows: list[Row]) -> str:
    """Return one section of docs/benchmarks.md."""
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return f"## {title}\n\n{explanation}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page(kept: dict[str, Any]) -> str:
    """Return docs/benchmarks.md, from the rows of each benchmark and the machine that measured them."""
    machines = dict.fromkeys(kept[name]["machine"] for name in BENCHMARKS)
    sections = [PREFACE.format(machine="; and on ".join(machines))]
    for name in BENCHMARKS:
        title, explanation = title_and_explanation(importlib.import_module(name))
        where = "" if len(machines) == 1 else f"\n\nOn {kept[name]['machine']}:"
        sections.append(as_section(title, explanation + where, [Row(**row) for row in kept[name]["rows"]]))
        if note := kept[name].get("note"):  # written by hand, until the rows are measured again
            sections.append(note + "\n")
    return "\n".join(sections)


def title_and_explanation(benchmark: ModuleType) -> tuple[str, str]:
    """Split the docstring of a benchmark: its first line is the question, the rest says what is compared."""
    title, _, explanation = (getdoc(benchmark) or "").partition("\n\n")
    return title, explanation


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS))
@click.option("--record", is_flag=True, help="Keep the rows in docs/benchmarks.json, and write docs/benchmarks.md.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of all rows, and nothing else.")
def main(names: tuple[str, ...], record: bool, as_json: bool) -> None:
    """Run the named benchmarks, or all of them."""
    if as_json:
        rows = [row for name in names or BENCHMARKS for row in importlib.import_module(name).rows()]
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    console = Console()
    console.print(machine())
    kept = json.loads(RECORD.read_text())
    for name in names or BENCHMARKS:
        benchmark = importlib.import_module(name)
        rows = benchmark.rows()
        console.print(as_table(title_and_explanation(benchmark)[0], rows))
        kept[name] = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    if record:
        RECORD.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()
