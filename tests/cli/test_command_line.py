"""The command line, and what importing costs."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from rich.table import Table
from torch import nn

from dropkit import torch_private
from dropkit.auditor import Auditor
from dropkit.cli import COMMANDS, _group
from dropkit.kernels import KERNELS
from dropkit.report.console import console, progress_columns

# What rich takes for a style, in a name that a file or a layer may have.
MARKUP = "[bold]x[/bold]"
WITH_MARKUP = {
    "audit": [f"{MARKUP}.py:make", "--input", "3"],
    "check": [MARKUP],
    "explain": [MARKUP],
    "kernels": [MARKUP],
    "mc": [f"{MARKUP}.py:make", "--data", "x.npy"],
    "run": [MARKUP],
    "server": [MARKUP],
    "study": ["--kinds", MARKUP],
    "tune": ["--sampler", MARKUP],
    "worker": ["--storage", MARKUP],
}


def fresh(code: str) -> str:
    """What a new Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_dropkit_imports_nothing_heavy():
    """`import dropkit` takes neither torch nor NumPy, nor what the command line needs."""
    loaded = fresh("import sys, dropkit; dir(dropkit); print(*sorted(sys.modules))").split()

    assert not {"torch", "numpy", "click", "rich", "scipy", "mlxtend"} & set(loaded)


def test_help_needs_no_torch():
    """`dropkit --help` answers at once."""
    loaded = fresh("import sys; from dropkit.cli import _group; _group.main(['--help'], standalone_mode=False);"
                   "print(*sorted(sys.modules))")  # fmt: skip

    assert "torch" not in loaded.splitlines()[-1].split()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    """Each listed command exists, and explains itself."""
    result = CliRunner().invoke(_group, [name, "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.slow
def test_the_public_names_are_there():
    """Everything that dropkit lists can be had from it, in any order."""
    assert fresh("import dropkit; print(all(getattr(dropkit, name) for name in reversed(dir(dropkit))))") == "True"


def test_an_unknown_name_is_an_attribute_error():
    """As from any module."""
    import dropkit

    with pytest.raises(AttributeError, match="module 'dropkit' has no attribute 'dropuot'"):
        _ = dropkit.dropuot


def test_kernels_says_what_is_missing(monkeypatch):
    """Both forms name kernels that cannot run, and names that this torch lacks, with the reasons."""
    use = torch_private.Use("dropkit.audit", is_found=False, otherwise=None)
    monkeypatch.setitem(torch_private.NAMES, "torch._C:_gone", use)
    missing = replace(KERNELS[0], missing="the compiled extension is missing [here]")
    monkeypatch.setattr("dropkit.cli.actions.kernels.KERNELS", (missing, *KERNELS[1:]))

    table = " ".join(CliRunner().invoke(_group, ["kernels"]).output.split())
    held = json.loads(CliRunner().invoke(_group, ["kernels", "--json"]).output)

    lacks = f"torch {torch.__version__} has no torch._C._gone: dropkit.audit is refused."
    assert "Not available: cpu, because the compiled extension is missing [here]." in table
    assert lacks in table
    assert held["not_available"]["cpu"] == "the compiled extension is missing [here]"
    assert lacks in held["torch_lacks"]


def test_kernels_says_which_kernel_serves():
    """A table for people, one JSON object for scripts."""
    table = CliRunner().invoke(_group, ["kernels"])
    served = json.loads(CliRunner().invoke(_group, ["kernels", "--json"]).output)

    assert "cpu" in table.output
    assert served["devices"]["cpu"]["kernel"] == "cpu"
    assert served["devices"]["cpu"]["why_slow"] is None
    assert set(served["devices"]["cpu"]["dtypes"]) == {"bfloat16", "float16", "float32", "float64"}


def test_an_unknown_command_is_a_usage_error():
    """Exit code 2, and the name that was typed."""
    done = subprocess.run([sys.executable, "-m", "dropkit", "kernel"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "kernel" in done.stderr


def test_a_command_without_torch_says_what_to_install(tmp_path):
    """One line and exit code 2 from each that needs torch, no traceback."""
    (tmp_path / "net.py").write_text("")
    commands = {
        "audit": ["net.py:make", "--input", "3"],
        "kernels": [],
        "mc": ["net.py:make", "--data", "x.npy"],
        "run": ["net.py"],
        "study": [],
        "tune": [],
        "worker": ["--storage", "journal:file"],
    }
    code = f"""
import sys
from dropkit.cli import main
sys.modules["torch"] = None
for name, arguments in {commands}.items():
    sys.argv[1:] = [name, *arguments]
    try:
        main()
    except SystemExit as end:
        print(end.code)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)

    wanted = [f'Error: dropkit {name} needs torch: pip install "dropkit[torch]"' for name in commands]
    assert done.stderr.splitlines() == wanted
    assert done.stdout.split() == ["2"] * len(commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_brackets_in_an_argument_are_shown_as_they_are(name):
    """Messages show an argument literally."""
    result = CliRunner().invoke(_group, [name, *WITH_MARKUP[name]])

    assert MARKUP in result.output


def test_brackets_are_text_wherever_a_console_prints():
    """Lines, table cells and progress bars print brackets and `:words:` literally."""
    screen = console(file=io.StringIO(), width=80)
    table = Table(MARKUP)
    table.add_row(f"{MARKUP} :smiley:")

    screen.print(MARKUP, table)

    assert screen.file.getvalue().count(MARKUP) == 3
    assert ":smiley:" in screen.file.getvalue()
    assert progress_columns()[0].markup is False


def test_a_missing_kernel_names_the_extra_to_install(monkeypatch):
    """`dropkit[gpu]` is not a style named gpu."""
    from dropkit.cli.actions import kernels

    absent = [replace(one, missing="it is absent (pip install dropkit[gpu])") for one in kernels.KERNELS]
    monkeypatch.setattr(kernels, "KERNELS", absent)

    assert "dropkit[gpu]" in "".join(CliRunner().invoke(_group, ["kernels"]).output.split("\n"))


def test_a_site_is_named_as_the_model_names_it():
    """In the table of an audit, too."""
    model = nn.Sequential()
    model.add_module(MARKUP, nn.Dropout())

    assert MARKUP in Auditor().audit(model, torch.ones(2, 3)).table(width=200)
