"""The checker on other people's code: it never crashes, and what it mends still means the same elsewhere.

The files are those of the standard library and of what is installed beside dropkit: a part of them each time, all with
DROPKIT_EXAMPLES=all.
"""

import ast
import os
import random
import sysconfig
import warnings
from pathlib import Path

import pytest

from dropkit.check.config import Config
from dropkit.check.file import Unreadable, check, decode, mend, read
from dropkit.check.relations import account
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
    """Every rule, those that are off too, over every file; a file that does not parse says so."""
    for path in worth_it:
        try:
            module = read(str(path), decode(path.read_bytes()))
        except Unreadable:
            continue
        assert all(finding.span.line >= 1 for finding in check(module, RULES))
        account(module)


def changed(source):
    """The same code with the misuses that a fix can mend, put there by force."""
    source = source.replace("training=self.training", "training=True").replace("return self\n", "pass\n")
    return source.replace(", self.training)", ")")


def test_mended_files_parse_and_are_the_same_outside_of_the_edits(worth_it):
    mended = 0
    for path in worth_it:
        try:
            text = decode(changed(decode(path.read_bytes()).utf8.decode()).encode())
            module = read(str(path), text)
        except (Unreadable, UnicodeError):
            continue
        findings = check(module, RULES)
        after, taken = mend(str(path), text, findings, RULES)
        mended += len(taken)
        untouched = statements(text, {line for one in taken for line in lines(text, one.fix)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert untouched <= statements(after, set())
            assert len(check(read(str(path), after), RULES)) <= len(findings)
    assert mended or not EVERYTHING


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
