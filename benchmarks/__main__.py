"""Runs the benchmarks: all, or those named. `--markdown FILE` writes the tables that it prints to a file, too."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path

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
    "layouts",
    "fused",
    "transformer",
    "compiled",
    "importing",
    "checking",
    "auditing",
)
HEAD = ("case", "ours", "theirs", "ratio", "target", "met")


def cells(row: Row) -> tuple[str, ...]:
    return row.case, row.ours, row.theirs, f"{row.ratio:.3g}", row.target, row.met


def as_table(title: str, rows: list[Row]) -> Table:
    table = Table(*HEAD, title=title, title_justify="left")
    for row in rows:
        table.add_row(*cells(row))
    return table


def as_markdown(title: str, rows: list[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS))
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables here, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of all rows, and nothing else.")
def main(names: tuple[str, ...], markdown: Path | None, as_json: bool) -> None:
    """Every benchmark is a question; the answer is a ratio of two medians, taken in turn in this one run."""
    if as_json:
        rows = [row for name in names or BENCHMARKS for row in importlib.import_module(name).rows()]
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    console = Console()
    console.print(machine())
    pages = [f"# Benchmarks\n\nMeasured by `make bench` on {machine()}.\n"]
    for name in names or BENCHMARKS:
        file = importlib.import_module(name)
        rows = file.rows()
        console.print(as_table(file.__doc__, rows))
        pages.append(as_markdown(file.__doc__, rows))
    if markdown is not None:
        markdown.write_text("\n".join(pages))


main()
