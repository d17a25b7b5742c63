"""The rows that are kept with the machine that measured them, and the page of the documentation made from them."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from inspect import getdoc
from pathlib import Path
from typing import Any

from side_by_side import Row

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
# Before the names of the parts of benchmarks/gpu.
GPU = "gpu."
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
.venv/bin/python benchmarks/gpu      # on a machine with a GPU{unmeasured}
make peers                           # Monte Carlo dropout beside other packages; the results are in monte-carlo.md
```
"""


def keep(machine: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Replace the kept rows of some benchmarks, and write the page."""
    kept = json.loads(RECORD.read_text())
    kept |= {name: {"machine": machine, "rows": [asdict(row) for row in table]} for name, table in rows.items()}
    RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


def page(kept: dict[str, Any]) -> str:
    """Return docs/benchmarks.md, from the rows of each benchmark and the machine that measured them."""
    machines = dict.fromkeys(kept[name]["machine"] for name in BENCHMARKS)
    on_gpu = [(name, docstring) for name, docstring in gpu_docstrings() if name in kept]
    unmeasured = "" if on_gpu else "; these have not been measured yet"
    sections = [PREFACE.format(machine="; and on ".join(machines), unmeasured=unmeasured)]
    for name in BENCHMARKS:
        # Not imported, since some need packages that a machine with a GPU may lack.
        module = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        title, explanation = title_and_explanation(ast.get_docstring(module) or "")
        sections += section(title, explanation, kept[name], len(machines) > 1)
    for name, docstring in on_gpu:
        title, explanation = title_and_explanation(docstring)
        sections += section(f"On a GPU: {title[0].lower()}{title[1:]}", explanation, kept[name], True)
    return "\n".join(sections)


def gpu_docstrings() -> Iterator[tuple[str, str]]:
    """The name in the record and the docstring of each part of benchmarks/gpu."""
    for part in importlib.import_module("gpu.parts").PARTS:
        yield GPU + part.name, getdoc(part.rows)


def title_and_explanation(docstring: str) -> tuple[str, str]:
    """Split the docstring of a benchmark: its first line is the question, the rest says what is compared."""
    title, _, explanation = docstring.partition("\n\n")
    return title, explanation


def section(title: str, explanation: str, kept: dict[str, Any], says_where: bool) -> list[str]:
    """Return one section of the page, and the note on it if someone wrote one, which lasts until the next rows."""
    where = f"\n\nOn {kept['machine']}:" if says_where else ""
    rows = [HEAD, ("---",) * len(HEAD), *(cells(Row(**row)) for row in kept["rows"])]
    table = "\n".join(map(line, rows))
    notes = [kept["note"] + "\n"] if kept.get("note") else []
    return [f"## {title}\n\n{explanation}{where}\n\n{table}\n", *notes]


def cells(row: Row) -> tuple[str, ...]:
    return row.case, row.ours, row.theirs, f"{row.ratio:.3g}", row.target, row.met


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
