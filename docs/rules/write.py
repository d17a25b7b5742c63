"""Write the pages of the rules: one each, and the table that lists them."""

from pathlib import Path

from dropkit.lint.engine.rule_docs import fix, page
from dropkit.rules import RULES

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """What each file of this folder holds."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.message} | {', '.join(rule.found_by)} "
        f"| {rule.default.value} | {fix(rule)} |"
        for rule in RULES
    ]
    head = ["# Rules", "", "| code | name | what is wrong | found by | default | fix |", "|---|---|---|---|---|---|"]
    return {"README.md": "\n".join([*head, *rows]) + "\n", **{f"{rule.code}.md": page(rule) for rule in RULES}}


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
