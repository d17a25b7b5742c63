"""Every rule, by its own examples: the bad is found, on its lines alone and by no other rule; the good is clean."""

import re
import runpy
from pathlib import Path

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.engine.fixing import fix_text
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

# Some misuses only show in a run: tests/test_audit_rules.py has those.
READ = [rule for rule in RULES if rule.check_source is not None]
EXAMPLES = [(rule, example) for rule in READ for example in rule.examples]
IDS = [f"{rule.code}-{index}" for rule in READ for index, _ in enumerate(rule.examples)]
MARK = re.compile(r"[ ]*# (DRP\d{3})(?=\n)")
each = pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=IDS)


def found(source, rules=RULES):
    return check(read("example.py", Text(source.encode())), rules)


def marked(source):
    lines = enumerate(source.split("\n"), 1)
    return [(number, match[1]) for number, line in lines if (match := MARK.search(line + "\n"))]


@each
def test_the_bad_example_is_found_on_its_lines_and_by_no_other_rule(rule, example):
    findings = found(example.bad)

    assert [(finding.span.line, finding.code) for finding in findings] == marked(example.bad) != []


@each
def test_the_good_example_is_clean_under_all_rules(rule, example):
    assert found(example.good) == []


@each
def test_the_fix_turns_bad_into_good_and_then_does_nothing(rule, example):
    findings = found(example.bad)
    fixes = [finding.fix for finding in findings if finding.fix is not None]

    text, taken = fix_text("example.py", Text(example.bad.encode()), findings, RULES)

    assert bool(fixes) == bool(rule.fix)
    assert all(fix.safe == rule.fix_is_safe for fix in fixes)
    assert len(taken) == len(fixes)
    if fixes:
        assert MARK.sub("", text.utf8.decode()) == example.good
        again = found(text.utf8.decode())
        assert fix_text("example.py", text, again, RULES)[0].utf8 == text.utf8


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_explains_itself(rule):
    first, _, rest = rule.explanation.partition("\n")

    assert first.endswith(".")
    assert len(first) <= 80
    assert len(rest.split()) >= 20
    assert len(rule.message) < 60
    assert not rule.message.endswith(".")
    assert rule.examples


def test_codes_and_names_are_unique_and_in_order():
    codes = [rule.code for rule in RULES]

    assert codes == sorted(set(codes))
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_pages_are_those_of_the_rules():
    """`make pages` writes them."""
    folder = Path(__file__).parents[2] / "docs" / "rules"
    pages = runpy.run_path(str(folder / "write.py"))["pages"]()

    assert {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.md")} == pages
