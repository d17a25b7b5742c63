"""The linter's tests need no torch, so that whoever works on a rule waits for nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# None in `sys.modules` makes Python refuse the import, as if torch were not installed.
COLLECT = "import sys; sys.modules['torch'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def test_the_tests_of_the_linter_are_collected_without_torch():
    """No file of tests/lint and tests/rules, and no conftest.py above them, imports torch."""
    folders = ["tests/lint", "tests/rules"]

    collected = subprocess.run(
        [sys.executable, "-c", COLLECT, "--collect-only", "-qq", "-p", "no:cacheprovider", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert collected.returncode == 0, collected.stdout
