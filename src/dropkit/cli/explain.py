"""`dropkit explain`: explain one rule, with examples, or list all rules."""

from __future__ import annotations

import json
from typing import Any

import click

from dropkit.arguments import did_you_mean
from dropkit.cli.options import Command, complete_codes
from dropkit.lint.engine.rule_docs import fix, page
from dropkit.rules import RULES, Rule


@click.command("explain", cls=Command)
@click.argument("rule", required=False, shell_complete=complete_codes)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="Output format.",
)
def command(rule: str | None, form: str) -> None:
    """Explain RULE, given by code (DRP101) or name (functional-dropout-ignores-mode).

    Without RULE, list all rules.
    """
    rules = RULES if rule is None else (_find(rule),)
    if form == "json":
        records = [_record(entry) for entry in rules]
        click.echo(json.dumps(records if rule is None else records[0], indent=2))
    elif form == "markdown":
        click.echo(_list() if rule is None else page(rules[0]), nl=False)
    elif rule is None:
        _print_table()
    else:
        _print_page(rules[0])


def _find(wanted: str) -> Rule:
    rules = {key: rule for rule in RULES for key in (rule.code, rule.name)}
    rule = rules.get(wanted.upper()) or rules.get(wanted.lower().replace("_", "-"))
    if rule is None:
        hint = did_you_mean(wanted.upper(), rules) or did_you_mean(wanted.lower(), rules)
        hint = hint or "; `dropkit explain` lists all rules."
        raise click.BadParameter(f"must be the code or name of a rule, got {wanted!r}{hint}", param_hint="RULE")
    return rule


def _record(rule: Rule) -> dict[str, Any]:
    return {
        "code": rule.code,
        "name": rule.name,
        "message": rule.message,
        "found_by": list(rule.found_by),
        "default": rule.default.value,
        "severity": rule.severity.value,
        "fix": rule.fix or None,
        "fix_is_safe": rule.fix_is_safe if rule.fix else None,
        "explanation": rule.explanation,
        "examples": [{"bad": example.bad, "good": example.good} for example in rule.examples],
    }


def _list() -> str:
    rows = ["| code | name | found by | default | severity | fix |", "| --- | --- | --- | --- | --- | --- |"]
    rows += [
        f"| {r.code} | {r.name} | {', '.join(r.found_by)} | {r.default.value} | {r.severity.value} | {fix(r)} |"
        for r in RULES
    ]
    return "\n".join(rows) + "\n"


def _print_table() -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from dropkit.report.console import console

    table = Table(
        "code",
        Column("name", overflow="fold"),
        "found by",
        "default",
        "severity",
        "fix",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for rule in RULES:
        kind = ("safe" if rule.fix_is_safe else "unsafe") if rule.fix else ""
        by = rule.found_by[0] if len(rule.found_by) == 1 else "both"
        table.add_row(rule.code, rule.name, by, rule.default.value, rule.severity.value, kind)
    console().print(table)


def _print_page(rule: Rule) -> None:
    from rich.markdown import Markdown

    from dropkit.report.console import console

    title, _, rest = page(rule).partition("\n")
    screen = console()
    screen.print(title.removeprefix("# "), style="bold", highlight=False)
    screen.print(Markdown(rest, code_theme="ansi_dark"))
