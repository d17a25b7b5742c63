"""Run all benchmarks, or those that are named, and print their tables."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from inspect import getdoc

import click
from record import BENCHMARKS, HEAD, cells, keep, title_and_explanation
from rich.console import Console
from rich.table import Table
from side_by_side import Row, machine


def as_table(title: str, rows: list[Row]) -> Table:
    table = Table(*HEAD, title=title, title_justify="left")
    for row in rows:
        table.add_row(*cells(row))
    return table


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
    measured: dict[str, list[Row]] = {}
    for name in names or BENCHMARKS:
        benchmark = importlib.import_module(name)
        measured[name] = benchmark.rows()
        console.print(as_table(title_and_explanation(getdoc(benchmark))[0], measured[name]))
    if record:
        keep(machine(), measured)


if __name__ == "__main__":
    main()
