"""The flake8 plugin, by running flake8 itself on files of its own."""

import subprocess
import sys

import pytest

from dropkit.lint.engine.flake8 import Plugin
from dropkit.rules import RULES, Default, Rule

SOURCE = """import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def forward(self, x):
        y = "\N{SLIGHTLY SMILING FACE}"; x = F.dropout(x)
        return F.dropout(-x, .5), y
"""
FOUND = ["7:22: DRP101", "8:16: DRP101"]
OFF = [rule for rule in RULES if rule.default is not Default.ON and rule.code != "DRP101"]


def flake8(folder, *options, source=None):
    """The places and codes that flake8 prints, and what else it says."""
    command = [sys.executable, "-m", "flake8", "--isolated", *options]
    encoded = None if source is None else source.encode()
    done = subprocess.run(command, cwd=folder, input=encoded, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr.decode()
    return [" ".join(line.split(":", 1)[1].split()[:2]) for line in done.stdout.decode().splitlines()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_flake8_knows_the_plugin_and_its_version():
    done = subprocess.run([sys.executable, "-m", "flake8", "--version"], capture_output=True, text=True, check=True)

    assert "dropkit: " in done.stdout


def test_findings_are_shown_with_the_others(folder):
    """By default the findings of dropkit are among those of pycodestyle; columns count characters."""
    assert flake8(folder, "model.py") == ["7:16: E702", *FOUND]


def test_selecting_and_ignoring_is_up_to_flake8(folder):
    assert flake8(folder, "--select=DRP", "model.py") == FOUND
    assert flake8(folder, "--select=E", "model.py") == ["7:16: E702"]
    assert flake8(folder, "--select=DRP", "--extend-ignore=DRP1", "model.py") == []
    assert flake8(folder, "--select=DRP", "--per-file-ignores=model.py:DRP101", "model.py") == []


def test_settings_that_choose_rules_are_those_of_flake8(folder):
    """[tool.dropkit] ignores a rule; flake8 does not."""
    (folder / "pyproject.toml").write_text('[tool.dropkit]\nignore = ["DRP101"]\n')

    assert flake8(folder, "--select=DRP", "model.py") == FOUND


def test_noqa_silences_a_line(folder):
    (folder / "model.py").write_text(SOURCE.replace("F.dropout(x)\n", "F.dropout(x)  # noqa: DRP101\n"))

    assert flake8(folder, "--select=DRP", "model.py") == FOUND[1:]


def test_standard_input_is_checked(tmp_path):
    assert flake8(tmp_path, "--select=DRP", "-", source=SOURCE) == FOUND
    assert flake8(tmp_path, "--select=DRP", "--stdin-display-name=a.py", "-", source=SOURCE) == FOUND


@pytest.mark.skipif(not OFF, reason="every rule is on by default")
def test_rules_that_are_off_by_default_must_be_selected(tmp_path):
    rule = OFF[0]
    (tmp_path / "model.py").write_text(rule.examples[0].bad)

    assert not any(rule.code in line for line in flake8(tmp_path, "model.py"))
    assert any(rule.code in line for line in flake8(tmp_path, f"--select={rule.code}", "model.py"))


def test_the_plugin_needs_no_torch():
    code = "import sys, dropkit.lint.engine.flake8; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_rule_that_fails_is_reported(monkeypatch):
    """The file does not count as clean."""
    monkeypatch.setattr(Rule, "diagnostics", lambda self, module: 1 / 0 if self.code == "DRP301" else ())

    found = list(Plugin(None, "model.py", SOURCE.splitlines(keepends=True)).run())

    assert [(line, text) for line, _, text, _ in found] == [
        (1, "DRP000 not checked: DRP301 failed: ZeroDivisionError: division by zero")
    ]
