"""experiments/batchwise.py runs in small form and prints a table of finite numbers."""

import re
import runpy
from pathlib import Path

import pytest

from dropkit.studies import Data
from dropkit.studies.digits import load

SCRIPT = Path(__file__).parents[2] / "experiments" / "batchwise.py"


@pytest.mark.slow
def test_the_table_compares_three_kinds_of_dropout_in_each_setting(capsys):
    """Each setting has a row without dropout, whose change is 0, and one for each kind of dropout."""
    script = runpy.run_path(str(SCRIPT))
    main, settings = script["main"], [setting._replace(epochs=1) for setting in script["SETTINGS"][::4]]
    whole = load()
    some = whole.targets.argsort()[::50]
    digits = Data(whole.inputs[some], whole.targets[some], whole.classes)
    few = {"SEEDS": 2, "TRAINING": 20, "SETTINGS": settings, "SIZES": (784, 32, 32, 10)}
    main.__globals__.update(few, load=lambda: digits)

    main()

    rows = re.findall(
        r"(none|by element|batchwise|batchwise, clipped) +│ (\S+) +│ (\S+) \+- (\S+)", capsys.readouterr().out
    )
    assert [kind for kind, *_ in rows] == ["none", "by element", "batchwise", "batchwise, clipped"] * 2
    assert all(float(change) == 0 for kind, _, change, _ in rows if kind == "none")
