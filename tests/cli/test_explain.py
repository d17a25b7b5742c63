"""`dropkit explain`: every rule can be read about, in every form."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dropkit.cli.explain import command
from dropkit.rules import RULES


def called(*options):
    return CliRunner().invoke(command, options)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_page_says_what_why_and_how_to_silence(rule):
    text, markdown = called(rule.code).stdout, called(rule.code, "--format", "markdown").stdout

    for page in (text, markdown):
        assert page.lstrip("# ").startswith(f"{rule.code}: {rule.name}\n")
        assert (f"dropkit: ignore[{rule.code}]" in page) == ("check" in rule.found_by)
        assert (f"audit --ignore {rule.code}" in page) == ("audit" in rule.found_by)
        assert f"src/dropkit/rules/{rule.code.lower()}_" in page
    assert rule.explanation in markdown
    assert all(f"```python\n{source.strip()}\n```" in markdown for e in rule.examples for source in (e.bad, e.good))
    assert "\x1b" not in text


@pytest.mark.parametrize("spelling", [RULES[0].code.lower(), RULES[0].name, RULES[0].name.replace("-", "_").upper()])
def test_code_or_name_in_any_case(spelling):
    assert called(spelling).stdout == called(RULES[0].code).stdout


def test_without_a_rule_all_are_listed():
    """In a table, in Markdown and as JSON; names are never cut."""
    listed = json.loads(called("--format", "json").stdout)

    assert [rule["code"] for rule in listed] == [rule.code for rule in RULES]
    assert all(rule.name in called().stdout for rule in RULES)
    assert called("--format", "markdown").stdout.count("\n") == len(RULES) + 2


def test_json_of_one_rule_is_one_object():
    held = json.loads(called(RULES[0].code, "--format", "json").stdout)

    assert held["name"] == RULES[0].name
    assert held["explanation"] == RULES[0].explanation
    assert held["examples"][0]["bad"] == RULES[0].examples[0].bad


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("DRP1001", "did you mean DRP101?"),
        ("functional-dropout-ignores-mod", "did you mean functional-dropout-ignores-mode?"),
        ("xyzzy", "`dropkit explain` lists all rules."),
    ],
)
def test_an_unknown_rule_is_a_usage_error_with_the_nearest(typed, hint):
    result = called(typed)

    assert result.exit_code == 2
    assert f"must be the code or name of a rule, got {typed!r}; {hint}" in " ".join(result.stderr.split())


def test_explaining_needs_no_torch():
    code = (
        "import sys; from dropkit.cli import _group;"
        "_group.main(['explain', 'DRP101'], standalone_mode=False); print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False"
