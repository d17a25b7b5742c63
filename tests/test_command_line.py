"""The command line, and what importing costs."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dropkit.cli import COMMANDS, _group


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


def test_the_public_names_are_there():
    """Everything that dropkit lists can be had from it, in any order."""
    assert fresh("import dropkit; print(all(getattr(dropkit, name) for name in reversed(dir(dropkit))))") == "True"


def test_an_unknown_name_is_an_attribute_error():
    """As from any module."""
    import dropkit

    with pytest.raises(AttributeError, match="module 'dropkit' has no attribute 'dropuot'"):
        _ = dropkit.dropuot


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


def test_a_command_without_torch_says_what_to_install():
    """One line and exit code 1, no traceback."""
    code = "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['kernels']; from dropkit.cli import main; main()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == 'Error: this command needs torch: pip install "dropkit[torch]"\n'
