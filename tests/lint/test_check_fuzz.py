"""The linter on foreign code: it never crashes, and a fix changes nothing outside of its edits.

Randomly damaged files, settings, patterns and caches do not crash it, either. The files are those of the standard
library and of installed packages: a sample of them, or all with DROPKIT_EXAMPLES=all.
"""

import ast
import json
import os
import random
import sysconfig
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkit.lint.engine import baseline
from dropkit.lint.engine.check_file import check
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.fixing import fix_bytes, fix_text
from dropkit.lint.engine.gitignore import Patterns, part_of_path
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.engine.project_index import summarize
from dropkit.lint.formats import FORMATS
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.rules import RULES

WORDS = (b"ropout", b"def train(", b"def eval(", b"torch")
EVERYTHING = os.environ.get("DROPKIT_EXAMPLES") == "all"


def files():
    places = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}
    return sorted({path for place in places for path in Path(place).rglob("*.py") if path.is_file()})


def sample(paths, count):
    return paths if EVERYTHING else random.Random(0).sample(paths, min(count, len(paths)))


@pytest.fixture(scope="module")
def worth_it():
    """Files with a word that some rule looks for, and a few without."""
    paths = sample(files(), 1500)
    likely = [path for path in paths if any(word in path.read_bytes() for word in WORDS)]
    return [*sample(likely, 50), *sample([path for path in paths if path not in set(likely)], 15)]


def test_no_file_crashes_a_rule(worth_it):
    """All rules run on every file that can be parsed, those that are off by default, too."""
    for path in worth_it:
        try:
            module = read(str(path), Text.decode(path.read_bytes()))
        except Unreadable:
            continue
        assert all(finding.span.line >= 1 for finding in check(module, RULES))
        summarize(module)


def changed(source):
    """The same code with misuse that a fix removes."""
    source = source.replace("training=self.training", "training=True").replace("return self\n", "pass\n")
    return source.replace(", self.training)", ")")


def test_fixed_files_parse_and_are_the_same_outside_of_the_edits(worth_it):
    count = 0
    for path in worth_it:
        try:
            text = Text.decode(changed(Text.decode(path.read_bytes()).utf8.decode()).encode())
            module = read(str(path), text)
        except (Unreadable, UnicodeError):
            continue
        findings = check(module, RULES)
        after, taken = fix_text(str(path), text, findings, RULES)
        count += len(taken)
        untouched = statements(text, {line for finding in taken for line in lines(text, finding.fix)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert untouched <= statements(after, set())
            assert len(check(read(str(path), after), RULES)) <= len(findings)
    assert count or not EVERYTHING


def lines(text, fix):
    for edit in fix.edits:
        yield from range(text.position(edit.start)[0], text.position(edit.end)[0] + 1)


def statements(text, touched):
    """The simple statements on no touched line, as trees."""
    return {
        ast.dump(node)
        for node in ast.walk(text.parse())
        if isinstance(node, (ast.Assign, ast.Expr, ast.Return, ast.AugAssign, ast.Import, ast.Raise))
        and touched.isdisjoint(range(node.lineno, node.end_lineno + 1))
    }


def test_settings_do_not_change_what_a_rule_sees():
    assert {rule.code for rule in Config(select=("ALL",)).rules} == {rule.code for rule in RULES}


# Damaged files: some bytes are replaced by others.

GREAT = [b"[" * 2000, b"9" * 5000, b"1e999", b"*" * 30, b"\\ud800", b"null", b"{}", b"[]", b'"', b"\xff", b"\0"]
NOISE = st.one_of(st.binary(max_size=4), st.sampled_from(GREAT))
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), NOISE), max_size=4)
quick = settings(max_examples=1000 if EVERYTHING else 60, deadline=None, derandomize=not EVERYTHING, database=None)

MODULE = "import torch.nn.functional as F\nfrom torch import nn\nclass A(nn.Module):\n    def forward(self, x):\n"
MODULE += "        return F.dropout(x, 0.5)\n"
NOTEBOOK = json.dumps({
    "cells": [{"cell_type": "code", "metadata": {}, "source": part} for part in ("!ls\nx = %time 3\ny?", MODULE)],
    "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5,
}, indent=1).encode()  # fmt: skip
SETTINGS = b"""[tool.dropkit]
select = ["DRP1"]
exclude = ["a*", "b/**"]
severity = "info"
preview = true
[tool.dropkit.per-file-ignores]
"tests/*" = ["DRP101"]
"""
IGNORE = b"*.pyc\n!keep.py\n/build/\na/**/b\n[!a-c]x?\n**/c\n\\#d\n"


def damaged(data, damage):
    """Replace bytes of `data`: at a place (a fraction of it), a number of bytes, by noise."""
    for place, length, noise in damage:
        at = int(place * len(data))
        data = data[:at] + noise + data[at + length :]
    return data


def shown(result):
    """Every format can show the result, as UTF-8."""
    for render in FORMATS.values():
        render(result, False).encode()


@quick
@given(DAMAGE, st.sampled_from(["a.py", "a.ipynb"]))
def test_no_damage_of_a_file_is_raised(damage, path):
    """A damaged file is checked or noted, and so is its fixed form."""
    data = damaged(NOTEBOOK if path.endswith("ipynb") else MODULE.encode(), damage)

    result = check_source(path, data, Config())

    shown(result)
    if result.findings:
        try:
            fixed, done = fix_bytes(data, result.findings, Config(), unsafe=True)
        except UnicodeError:
            return
        assert (fixed != data) == bool(done)
        shown(check_source(path, fixed, Config()))


@quick
@given(DAMAGE)
def test_damaged_settings_raise_bad_config_only(damage):
    """Settings that can be read can be used; others raise BadConfig."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_bytes(damaged(SETTINGS, damage))
        try:
            config = Config.load(Path(folder))
        except BadConfig:
            return
        shown(check_source(os.path.join(folder, "a.py"), MODULE.encode(), config))
        config.matches(os.path.join(folder, "tests", "a.py"), "tests/*")


@quick
@given(DAMAGE, st.text(alphabet="abcx#!.py /*[]\\\xe9\udcff", min_size=1, max_size=12))
def test_no_damage_of_patterns_is_raised(damage, name):
    patterns, parts = Patterns().with_file(damaged(IGNORE, damage), 0), [*map(part_of_path, name.split("/"))]

    assert patterns.ignores(parts, is_folder=False) in (True, False, None)


@quick
@given(DAMAGE)
def test_no_damage_of_a_cache_is_raised(damage):
    """A damaged cache is ignored; a damaged baseline raises BadConfig."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.py").write_text(MODULE)
        config, cache, known = Config(root=Path(folder)), Path(folder, "kept"), Path(folder, "known.json")
        result = check_paths([folder], config, cache)
        baseline.write(known, result, Path(folder))
        for path in (*cache.glob("*.json"), known):
            path.write_bytes(damaged(path.read_bytes(), damage))

        shown(check_paths([folder], config, cache))
        with suppress(BadConfig):
            baseline.new_findings(known, result, Path(folder))
