"""The outcomes of a study as CSV: one line for each trial, with all its metrics."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dropkit.studies.trial import Outcome


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """Return the lines; several rates or sites are separated by spaces, and a metric that was not measured is empty."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.metrics))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "kind", "p", "sites", "seed", *names, "seconds", "failure"])
    for outcome in outcomes:
        trial, setting = outcome.trial, outcome.trial.setting
        where = [" ".join(map(str, setting.rates)), " ".join(setting.sites or ())]
        values = [outcome.metrics.get(name, "") for name in names]
        writer.writerow(
            [trial.model, setting.kind, *where, trial.seed, *values, outcome.seconds, outcome.failure or ""]
        )
    return file.getvalue()
