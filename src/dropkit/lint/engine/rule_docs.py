"""The page of a rule in Markdown: the misuse, its effect and reason, examples, how to silence it, and its source."""

from __future__ import annotations

from dropkit.rules import Default, Rule

_DEFAULTS = {
    Default.ON: "on",
    Default.PREVIEW: "off; on with --preview",
    Default.OFF: "off; on when selected",
}


def page(rule: Rule) -> str:
    """The page of `rule`, for `dropkit explain`, the documentation, editors and SARIF."""
    parts = [f"# {rule.code}: {rule.name}", rule.explanation, facts(rule)]
    for number, example in enumerate(rule.examples, 1):
        suffix = f" {number}" if len(rule.examples) > 1 else ""
        parts += [f"## Bad{suffix}", _code(example.bad), f"## Good{suffix}", _code(example.good)]
    return "\n\n".join([*parts, "## Silence it", _silence(rule)]) + "\n"


def facts(rule: Rule) -> str:
    """A list of what finds the rule, whether it is on by default, its severity and its fix."""
    lines = [f"- Found by: {' and '.join(f'`dropkit {command}`' for command in rule.found_by)}"]
    if rule.check_source is not None:
        lines.append(f"- In `dropkit check` by default: {_DEFAULTS[rule.default]}")
    lines += [f"- Severity: {rule.severity.value}", f"- Fix: {fix(rule) or 'none'}"]
    return "\n".join([*lines, f"- Source of the rule: `{source_file(rule)}`"])


def fix(rule: Rule) -> str:
    """What `--fix` does and whether that is safe; empty if there is no fix."""
    return f"{rule.fix} ({'safe' if rule.fix_is_safe else 'unsafe'})" if rule.fix else ""


def source_file(rule: Rule) -> str:
    """The file with the rule's checks and examples, relative to the root of the repository."""
    return f"src/{rule.module.replace('.', '/')}.py"


def _code(source: str) -> str:
    return f"```python\n{source.strip(chr(10))}\n```"


def _silence(rule: Rule) -> str:
    code = rule.code
    lines: list[str] = []
    if rule.check_source is not None:
        lines += [
            f"- One line: end it with `# dropkit: ignore[{code}]` or `# noqa: {code}`.",
            f"- One file: `# dropkit: ignore-file[{code}]` on a line of its own.",
            f'- Everywhere: `ignore = ["{code}"]` under `[tool.dropkit]` in pyproject.toml, or '
            f"`dropkit check --ignore {code}`.",
        ]
    if rule.check_trace is not None:
        lines.append(f'- In an audit: `dropkit audit --ignore {code}`, `assert_dropout_ok(..., ignore=["{code}"])`.')
    return "\n".join(lines)
