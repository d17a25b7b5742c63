"""Evaluation in training mode (DRP107) over the files of small projects: some are wrong, and some are right.

Each file in `eval_mode_projects` is one project, its files one after the other; `# DRP107` marks what is to be found.
"""

import json
import re
from pathlib import Path

import pytest

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths

PROJECTS = Path(__file__).parent / "eval_mode_projects"


def projects(kind):
    files = sorted((PROJECTS / kind).glob("*.txt"))
    return pytest.mark.parametrize("project", files, ids=[file.stem for file in files])


def write(project, folder):
    """Write the files of a project; return the file and line of each mark."""
    parts = re.split(r"^=== (.+)\n", project.read_text(), flags=re.MULTILINE)[1:]
    marks = set()
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook(text) if path.suffix == ".ipynb" else text)
        marks |= {(name, number) for number, line in enumerate(text.splitlines(), 1) if "# DRP107" in line}
    (folder / "pyproject.toml").write_text("")
    return marks


def notebook(code):
    cell = {"cell_type": "code", "source": code, "metadata": {}, "outputs": [], "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def found(folder):
    findings = check_paths([str(folder)], Config(root=folder)).findings
    return {
        (Path(finding.path).relative_to(folder).as_posix(), finding.span.line)
        for finding in findings
        if finding.code == "DRP107"
    }


@projects("wrong")
def test_evaluation_in_training_mode_is_found_over_files(project, tmp_path):
    """The model, its training, its evaluation and what drives them are in different files."""
    marks = write(project, tmp_path)

    assert marks
    assert found(tmp_path) == marks


@projects("right")
def test_what_may_be_right_over_files_is_not_reported(project, tmp_path):
    """Another file switches the mode, or the model has none, or it is to be random."""
    assert write(project, tmp_path) == set()

    assert found(tmp_path) == set()
