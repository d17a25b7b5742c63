"""The hooks, run by pre-commit in a new repository.

Installing a hook's environment needs the network: the hooks are run as `local` ones in this environment, with all else
as .pre-commit-hooks.yaml says.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HOOKS = {
    hook["id"]: hook for hook in yaml.safe_load(Path(__file__, "../../../.pre-commit-hooks.yaml").resolve().read_text())
}
BAD = """import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""
GOOD = BAD.replace("0.5", "0.5, training=self.training")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


class Repository:
    """A git repository with one hook; nothing outside of it and of `home` is read or written."""

    def __init__(self, folder, home, hook):
        self.folder = folder
        self.environment = os.environ | {
            "HOME": str(home),
            "PRE_COMMIT_HOME": str(home / "pre-commit"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        command, _, rest = HOOKS[hook]["entry"].partition(" ")
        assert command == "dropkit"
        local = HOOKS[hook] | {"language": "system", "entry": f"{sys.executable} -m dropkit {rest}"}
        config = {"repos": [{"repo": "local", "hooks": [local]}]}
        (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
        self.git("init", "--quiet")

    def git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.folder, env=self.environment, check=True)

    def add(self, name, content):
        (self.folder / name).write_text(content)
        self.git("add", name)

    def run(self):
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color=never"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path, request):
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    return Repository(tmp_path / "work", tmp_path / "home", request.param)


either = pytest.mark.parametrize("repository", HOOKS, indirect=True)
checks = pytest.mark.parametrize("repository", ["dropkit-check"], indirect=True)
fixes = pytest.mark.parametrize("repository", ["dropkit-check-fix"], indirect=True)


def test_the_hooks_are_valid_and_install_from_this_repository():
    """By pre-commit's own reading of the file; installed from Python, not expected on the machine."""
    hooks = Path(__file__, "../../../.pre-commit-hooks.yaml").resolve()

    done = subprocess.run([sys.executable, "-m", "pre_commit", "validate-manifest", str(hooks)], check=False)

    assert done.returncode == 0
    assert list(HOOKS) == ["dropkit-check", "dropkit-check-fix"]
    assert {hook["language"] for hook in HOOKS.values()} == {"python"}


@either
def test_clean_files_pass(repository):
    repository.add("model.py", GOOD)

    code, printed = repository.run()

    assert code == 0, printed
    assert "Passed" in printed


@checks
def test_a_finding_stops_the_commit(repository):
    """It is shown, and the file is left as it is."""
    repository.add("model.py", BAD)

    code, printed = repository.run()

    assert code == 1
    assert "model.py:7:16: DRP101" in printed
    assert (repository.folder / "model.py").read_text() == BAD


@checks
def test_only_python_and_notebooks_are_given(repository):
    """Other files are not passed to the hook."""
    repository.add("model.txt", BAD)

    code, printed = repository.run()

    assert code == 0
    assert "no files to check" in printed


@fixes
def test_the_fix_is_made_and_stops_the_commit_once(repository):
    """So that it is looked at; the second run passes."""
    repository.add("model.py", BAD)

    first, printed = repository.run()
    repository.git("add", "model.py")
    second, _ = repository.run()

    assert first == 1
    assert "files were modified by this hook" in printed
    assert (repository.folder / "model.py").read_text() == GOOD
    assert second == 0
