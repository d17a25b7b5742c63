"""Edits of source files by `dropkit check`: fixes, and comments that silence findings."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable

import click

from dropkit import files
from dropkit.cli.options import is_terminal
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.engine.result import UNFIXED, UNSILENCED, CheckResult, Note
from dropkit.lint.formats.escape import printable


def apply_fixes(result: CheckResult, config: Config, unsafe: bool, diff: bool) -> tuple[list[Diagnostic], list[Note]]:
    """Apply fixes, or print them if `diff`; return the fixed findings, and notes on files that could not be fixed."""
    fixed: list[Diagnostic] = []
    notes: list[Note] = []
    for path, findings in _by_path(result.findings).items():
        if not any(finding.fix is not None and (unsafe or finding.fix.safe) for finding in findings):
            continue
        try:
            _must_be_editable(path)
            data = files.read(path)
            new, fixed_here = fix_bytes(data, findings, config, unsafe)
            if new != data and not diff:
                files.write(path, new)
        except Exception as error:  # whatever the reason, the file stays as it is and the others are fixed
            notes.append(unfixed(path, error))
            continue
        fixed += fixed_here
        if diff:
            print_diff(path, data, new)
    return fixed, notes


def silence(result: CheckResult, marker: str) -> tuple[int, list[Note]]:
    """Silence findings with comments; return their number, and notes on those that could not be silenced."""
    from dropkit.lint.semantic.noqa import UNUSED, Comments
    from dropkit.lint.semantic.noqa_edits import add_comments
    from dropkit.lint.semantic.source_text import Text

    silenced = 0
    notes: list[Note] = []
    for path, findings in _by_path(result.findings).items():
        if path.endswith(".ipynb"):
            notes += [_unsilenced(finding, "comments are not written into notebooks") for finding in findings]
            continue
        try:
            _must_be_editable(path)
            text = Text.decode(files.read(path))
            # A comment about an unused comment would be the wrong answer.
            needless = [finding for finding in findings if finding.code == UNUSED]
            findings = [finding for finding in findings if finding.code != UNUSED]
            after = add_comments(text, findings, marker)
            if after.utf8 != text.utf8:
                files.write(path, after.encode())
        except Exception as error:  # as in apply_fixes
            notes.append(unfixed(path, error))
            continue
        comments = Comments(after)
        left = [finding for finding in findings if not comments.is_silenced(finding)]
        silenced += len(findings) - len(left)
        notes += [_unsilenced(finding, "this line cannot hold a comment") for finding in left]
        notes += [_unsilenced(finding, "--fix removes the unused comment") for finding in needless]
    return silenced, notes


def _by_path(findings: Iterable[Diagnostic]) -> dict[str, list[Diagnostic]]:
    by_path: dict[str, list[Diagnostic]] = {}
    for finding in findings:
        by_path.setdefault(finding.path, []).append(finding)
    return by_path


def _unsilenced(finding: Diagnostic, reason: str) -> Note:
    line = f"line {finding.span.line}"
    where = line if finding.cell is None else f"cell {finding.cell}, {line}"
    return Note(finding.path, f"{finding.code} in {where}: {reason}", finding.cell, finding.span.line, UNSILENCED)


def _must_be_editable(path: str) -> None:
    reason = files.why_not_edited(path)
    if reason is not None:
        raise OSError(f"it {reason}")


def unfixed(path: str, error: Exception) -> Note:
    """A note on a file that was not changed."""
    reason = files.reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__
    return Note(path, reason, kind=UNFIXED)


def print_diff(path: str, before: bytes, after: bytes) -> None:
    """Print a diff for `patch`, byte by byte; on a terminal, its printable form."""
    text = _diff(path, before, after)
    if not is_terminal(sys.stdout):
        click.echo(text.encode(errors="surrogateescape"), nl=False)
        return
    for line in io.StringIO(text, newline="\n"):
        click.echo("\t".join(map(printable, line.rstrip("\r\n").split("\t"))))


def _diff(path: str, before: bytes, after: bytes) -> str:
    from difflib import unified_diff

    # Lines of a diff end at line feeds only, not at form feeds.
    old, new = (list(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="\n")) for data in (before, after))
    a, b = (f"{side}/{path}" if path.isprintable() else json.dumps(f"{side}/{path}") for side in "ab")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in unified_diff(old, new, a, b)
    )
