"""experiments/moments.py runs in small form and prints a table of finite numbers."""

import re
import runpy
from pathlib import Path

import pytest

from dropkit.studies import Data
from dropkit.studies.digits import load

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.mark.slow
def test_the_table_compares_one_pass_with_samples(capsys, torchvision, monkeypatch):
    """One network has a row for samples and one for one pass."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script = runpy.run_path(str(FOLDER / "moments.py"))
    whole = load()
    some = whole.targets.argsort()[::50]
    digits = Data(whole.inputs[some], whole.targets[some], whole.classes)
    few = {"SEEDS": 2, "TRAINING": 20, "TESTED": 20, "SAMPLES": 5, "REFERENCE": 5, "load": lambda: digits}
    script["main"].__globals__.update(few, NETWORKS=script["NETWORKS"][:1])

    script["main"]()

    rows = [re.findall(r"(\S+) \+- (\S+)", line) for line in capsys.readouterr().out.splitlines() if "p = " in line]
    assert [len(row) for row in rows] == [6] * 2
