"""Where an optional package is missing, the error says how to install it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each use of an optional package, and the package.
USES = [
    ("dropkit.mc.MCClassifier()", "sklearn"),
    ("dropkit.mc.MCRegressor()", "numpy"),
    ("from dropkit.mc.sklearn import MCClassifier", "sklearn"),
    ("r.to_html()", "jinja2"),
    ("r.to_html()", "matplotlib"),
    ("r.plot()", "matplotlib"),
    ("r.ood(r)", "torchmetrics"),
    ("v.fit_tau(v.mean)", "scipy"),
]
PROGRAM = """
import sys, torch, dropkit
sys.modules[{package!r}] = None
p = torch.full((2, 3, 2), 0.5)
r = dropkit.mc.from_samples(p)
model = torch.nn.Sequential(torch.nn.Dropout())
v = dropkit.mc.predict(model, torch.ones(2, 3), 2, "regression", keep_samples=True, seed=0)
try:
    {use}
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("use", "package"), USES)
def test_the_error_says_the_command(use: str, package: str) -> None:
    """'<what> needs <package>: pip install "dropkit[mc]"', instead of a bare traceback."""
    program = PROGRAM.format(use=use, package=package)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    name = {"sklearn": "scikit-learn"}.get(package, package)
    assert done.stdout.strip().endswith(f'needs {name}: pip install "dropkit[mc]"'), done.stderr
