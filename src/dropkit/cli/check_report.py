"""What `dropkit check` prints: the report, statistics, warnings and notes; and its exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from dropkit import files
from dropkit.cli.check_options import CheckOptions
from dropkit.cli.options import CLEAN, FAILED, FOUND
from dropkit.lint.engine.result import UNREAD, CheckResult
from dropkit.lint.formats import FORMATS
from dropkit.lint.formats.escape import printable


def report(result: CheckResult, options: CheckOptions) -> int:
    """Print the result, or write it to the output file; return the exit code."""
    if options.statistics:
        text = _statistics(result, options.output_format)
    else:
        text = FORMATS[options.output_format](result, options.color)
    if options.output_file is not None:
        files.write(options.output_file, text.encode())
    else:
        click.echo(text, nl=not text.endswith("\n") and bool(text), color=options.color)
    _warn(result.warnings)
    return _exit_code(result, options)


def finish(result: CheckResult, options: CheckOptions) -> int:
    """Print warnings and notes to standard error, where no report is printed; return the exit code."""
    _warn(result.warnings)
    for line in _notes(result):
        click.echo(line, err=True)
    return _exit_code(result, options)


def fail(reason: str) -> int:
    """Print an error to standard error; return the exit code."""
    click.echo(f"Error: {printable(reason)}", err=True)
    return FAILED


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {printable(warning)}", err=True)


def _notes(result: CheckResult) -> Iterator[str]:
    return (f"{printable(note.path)}: {note.kind}: {printable(note.message)}" for note in result.notes)


def _exit_code(result: CheckResult, options: CheckOptions) -> int:
    if options.exit_zero:
        return CLEAN
    if any(note.kind != UNREAD or not options.config.allow_unread for note in result.notes):
        return FAILED
    return FOUND if result.fails else CLEAN


def _statistics(result: CheckResult, output_format: str) -> str:
    """The number of findings of each rule, the most frequent first."""
    import json
    from collections import Counter

    from dropkit.rules import RULES

    counts = Counter(finding.code for finding in result.findings)
    rules = sorted((rule for rule in RULES if counts[rule.code]), key=lambda rule: -counts[rule.code])
    if output_format in ("json", "jsonl"):
        entries = [{"code": rule.code, "name": rule.name, "count": counts[rule.code]} for rule in rules]
        notes = Counter(note.kind for note in result.notes)
        entries += [{"code": None, "name": kind.replace(" ", "-"), "count": n} for kind, n in notes.items()]
        return json.dumps(entries, indent=2) + "\n"
    width = len(str(counts[rules[0].code])) if rules else 1
    lines = (f"{counts[r.code]:>{width}}  {r.code}  {r.name}{'  [fix]' if r.fix else ''}" for r in rules)
    return "".join(f"{line}\n" for line in (*lines, *_notes(result)))
