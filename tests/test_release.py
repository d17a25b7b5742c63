"""What a release is made of: one version everywhere, a complete source distribution, and workflows that can be trusted.

The release workflow runs this file on a tag, without conftest.py and without dropkit.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PROJECT = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
)


def found(pattern: str, *path: str) -> list[str]:
    return re.findall(pattern, ROOT.joinpath(*path).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_change_log_begins_with_the_version():
    """The first section of CHANGELOG.md is that of the version in pyproject.toml."""
    assert found(r"^## (\S+)", "CHANGELOG.md")[0] == PROJECT["project"]["version"]


@pytest.mark.skipif(not (ROOT / "CITATION.cff").exists(), reason="there is no CITATION.cff")
def test_the_citation_names_the_version():
    """CITATION.cff cites the version in pyproject.toml."""
    assert found(r"^version: [\"']?([^\s\"']+)", "CITATION.cff") == [PROJECT["project"]["version"]]


@pytest.mark.skipif(os.environ.get("GITHUB_REF_TYPE") != "tag", reason="no tag is being released")
def test_the_tag_is_the_version():
    """A release is tagged v and the version in pyproject.toml."""
    assert os.environ["GITHUB_REF_NAME"] == "v" + PROJECT["project"]["version"]


def test_torch_releases_agree():
    """The oldest torch of the extra is the oldest that is tested and documented; the newest tested is documented."""
    oldest, newest = (
        release.rpartition(".")[0]
        for release in found(r"torch: \[\"(.*)\", \"(.*)\"\]", ".github", "workflows", "tests.yml")[0]
    )

    assert f"torch>={oldest}" in PROJECT["project"]["optional-dependencies"]["torch"]
    for path in ("README.md", "docs/install.md", "src/dropkit/torch_private/lookup.py"):
        assert f"{oldest} to {newest}" in (ROOT / path).read_text(encoding="utf-8"), path


def test_python_versions_agree():
    """The oldest Python is the first that is tested, and that of the limited API and of the type checker."""
    (tested,) = found(r"python: \[(.*)\]", ".github", "workflows", "tests.yml")
    oldest, *_, newest = re.findall(r"[\d.]+", tested)
    short = [f"cp{version.replace('.', '')}" for version in (oldest, newest)]

    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == oldest
    assert PROJECT["tool"]["distutils"]["bdist_wheel"]["py_limited_api"] == short[0]
    assert PROJECT["tool"]["cibuildwheel"]["build"] == [f"{python}-*" for python in short]


def test_the_source_distribution_has_every_file_of_the_repository(tmp_path):
    """MANIFEST.in leaves nothing out: who unpacks the source distribution can build, test and document it."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if not (ROOT / ".git").exists() or tracked.returncode:
        pytest.skip("this is no checkout of the repository")
    pytest.importorskip("setuptools", "77", reason="older ones cannot read pyproject.toml")

    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path], cwd=ROOT, check=True, capture_output=True
    )

    (sources,) = tmp_path.glob("*/SOURCES.txt")
    assert set(tracked.stdout.splitlines()) <= set(sources.read_text(encoding="utf-8").splitlines())


def test_the_source_distribution_has_its_metadata():
    """Without those, which setuptools adds by itself, `dropkit.__version__` is None beside the unpacked sources."""
    assert found("egg-info|PKG-INFO", "MANIFEST.in") == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile(workflow):
    """Each `make TARGET` of a workflow is in the Makefile."""
    wanted = re.findall(r"\bmake ([a-z]+)", workflow.read_text(encoding="utf-8"))

    assert set(wanted) <= set(found(r"^([a-z]+):", "Makefile"))


@pytest.mark.parametrize(
    "command", [["zizmor", "--offline", "--no-progress"], ["actionlint"]], ids=lambda words: words[0]
)
def test_workflows_are_clean(command):
    """zizmor finds no excessive permission, unpinned action, injection or leaked credential; actionlint no mistake."""
    program = shutil.which(command[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip(f"{command[0]} is not installed")

    done = subprocess.run([program, *command[1:], *WORKFLOWS], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
