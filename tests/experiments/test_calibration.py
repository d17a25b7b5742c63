"""experiments/calibration.py runs in small form and prints a table of finite numbers."""

import re
import runpy
from pathlib import Path

import pytest

from dropkit.studies import Data
from dropkit.studies.digits import load

SCRIPT = Path(__file__).parents[2] / "experiments" / "calibration.py"


@pytest.mark.slow
def test_the_table_compares_both_predictions_for_every_network_and_rate(capsys, torchvision):
    """Each of two networks at two rates has a row with and one without Monte Carlo dropout."""
    script = runpy.run_path(str(SCRIPT))
    whole = load()
    some = whole.targets.argsort()[::50]
    digits = Data(whole.inputs[some], whole.targets[some], whole.classes)
    # As few digits, epochs and samples as give every number.
    few = {"SEEDS": 2, "TRAINING": 20, "EPOCHS": 1, "SAMPLES": 2, "load": lambda: digits}
    script["main"].__globals__.update(few)

    script["main"]()

    rows = [re.findall(r"(\S+) \+- (\S+)", line) for line in capsys.readouterr().out.splitlines() if "p = " in line]
    assert [len(row) for row in rows] == [5] * 8
    assert all(0 <= float(error) <= 1 for (error, _), *_ in rows)
