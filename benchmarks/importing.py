"""How long does `import dropkit` take?

The ratio is the time in milliseconds, the median of seven processes.
"""

import statistics
import subprocess
import sys

from side_by_side import Row

CODE = "import time; {before}; begin = time.perf_counter(); import {what}; print(time.perf_counter() - begin)"


def rows() -> list[Row]:
    return [
        measured("import dropkit, without torch", "pass", "dropkit"),
        measured("import dropkit, after import torch", "import torch", "dropkit"),
        measured("import dropkit.nn, after import torch", "import torch", "dropkit.nn"),
    ]


def measured(case: str, before: str, what: str) -> Row:
    """Time an import; ratio and target are in milliseconds."""
    command = [sys.executable, "-c", CODE.format(before=before, what=what)]
    samples = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(7)]
    return Row(case, f"{statistics.median(samples) * 1e3:.3g} ms", "", statistics.median(samples) * 1e3, "<= 50")
