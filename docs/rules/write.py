"""Write the documentation of the rules: one page each, and a table of all."""

from pathlib import Path

from dropkit.lint.engine.rule_docs import fix, page, source_file
from dropkit.rules import RULES, Rule

HERE = Path(__file__).parent
INTRODUCTION = (
    "The rules of `dropkit check` (it reads source) and `dropkit audit` (it runs a model). Each rule is one file in",
    "[`src/dropkit/rules`](../../src/dropkit/rules); its page links to it. `python docs/rules/write.py` writes these",
    "pages from the rules.",
)
SILENCE = "\nSeveral codes, prefixes and whole files: [`noqa` and other comments](../check.md#silence-findings).\n"


def pages() -> dict[str, str]:
    """The content of each generated file in this folder, by name."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.message} | {', '.join(rule.found_by)} "
        f"| {rule.default.value} | {fix(rule)} |"
        for rule in RULES
    ]
    head = [
        "# Rules",
        "",
        *INTRODUCTION,
        "",
        "| code | name | what is wrong | found by | default | fix |",
        "|---|---|---|---|---|---|",
    ]
    return {"README.md": "\n".join([*head, *rows]) + "\n", **{f"{rule.code}.md": linked_page(rule) for rule in RULES}}


def linked_page(rule: Rule) -> str:
    """The page of a rule, with links to its source file and to all ways to silence findings."""
    name = source_file(rule)
    text = page(rule).replace(f"`{name}`", f"[`{name}`](../../{name})")
    return text if rule.check_source is None else text + SILENCE


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
