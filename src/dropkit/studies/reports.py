"""Write all reports of a study into a folder: a page, figures, and tables for other programs."""

from __future__ import annotations

import json
from pathlib import Path

from dropkit import files
from dropkit.extras import needed_for
from dropkit.report.panel import png
from dropkit.studies.csv_output import as_csv
from dropkit.studies.figures import figures
from dropkit.studies.page import page
from dropkit.studies.result import StudyResult


def write_reports(result: StudyResult, folder: str | Path) -> list[Path]:
    """Write page.html, a PNG file for each figure, trials.csv and result.json; return their paths, the page's first.

    Each file is replaced as a whole, so that a reader never sees half of one.

    Args:
        result: of the study, which may be unfinished.
        folder: made if it does not exist.

    Raises:
        ImportError: jinja2 or matplotlib is not installed; the message says how to install them.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    with needed_for("a report", "study"):
        shown = figures(result)
        contents = {
            "page.html": page(result, shown).encode(),
            **{f"{figure.name}.png": png(figure.panels, figure.columns) for figure in shown},
            "trials.csv": as_csv(result.outcomes).encode(),
            "result.json": (json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n").encode(),
        }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.write(folder / name, content)
    return [folder / name for name in contents]
