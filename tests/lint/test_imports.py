"""What a check of one file imports and compiles: its time is that of its imports."""

import subprocess
import sys

import pytest
from helpers.lint import BAD, GOOD

# Each takes a hundredth of the time or more, and is for other options, formats, folders, notebooks or projects.
NEEDLESS = {
    *("torch", "numpy", "rich", "tomllib", "tomli", "secrets", "random", "tempfile"),
    *("multiprocessing", "concurrent.futures", "subprocess", "importlib.metadata", "email", "asyncio"),
    *("dropkit.cli.edits", "dropkit.cli.explain", "dropkit.report.console", "dropkit.auditor", "dropkit.nn"),
    *(f"dropkit.lint.engine.{name}" for name in ("baseline", "fixing", "gitignore", "notebook", "walk", "watch")),
}
RUN = """
import sys
import click  # which takes subprocess along, on Python 3.10
of_click = set(sys.modules)
from dropkit.cli import main
sys.argv = ["dropkit", "check", *sys.argv[1:]]
try:
    main()
finally:
    print(*sys.modules.keys() - of_click, file=sys.stderr)
"""
COMPILED = """
import re, sys
compile, callers = re.compile, []
def spy(*arguments, **options):
    callers.append(sys._getframe(1).f_globals["__name__"])
    return compile(*arguments, **options)
re.compile = spy
import dropkit.cli.check
print(*(name for name in callers if name.startswith("dropkit.lint")))
"""


@pytest.mark.parametrize("source", [GOOD, BAD], ids=["clean", "finding"])
@pytest.mark.parametrize("options", [(), ("--no-cache", "-f", "concise")], ids=["full", "concise"])
def test_a_check_of_one_file_imports_nothing_needless(tmp_path, source, options):
    """With the user's cache and without, with findings and without."""
    (tmp_path / "net.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'net'\n")
    command = [sys.executable, "-c", RUN, str(tmp_path / "net.py"), *options]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == (source == BAD)
    assert not NEEDLESS & set(done.stderr.split())


def test_importing_the_linter_compiles_none_of_its_expressions():
    """Each is compiled at its first use: a file needs few of them."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
