"""What `dropkit check` writes into source files: fixes, and the comments that silence."""

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
from dropkit.lint.engine.project import mended
from dropkit.lint.engine.result import UNFIXED, UNSILENCED, Note, Outcome
from dropkit.lint.formats.escape import seen


def apply_fixes(outcome: Outcome, config: Config, unsafe: bool, diff: bool) -> tuple[list[Diagnostic], list[Note]]:
    """Apply fixes, or if `diff` show what they would change; what was fixed, and the files that could not be."""
    done: list[Diagnostic] = []
    notes: list[Note] = []
    for path, mine in _by_path(outcome.findings).items():
        if not any(one.fix is not None and (unsafe or one.fix.safe) for one in mine):
            continue
        try:
            _must_be_editable(path)
            data = files.read(path)
            fixed, taken = mended(data, mine, config, unsafe)
            if fixed != data and not diff:
                files.write(path, fixed)
        except Exception as error:  # one file that cannot be fixed is left as it is, and the others are fixed
            notes.append(unfixed(path, error))
            continue
        done += taken
        if diff:
            print_diff(path, data, fixed)
    return done, notes


def silence(outcome: Outcome, marker: str) -> tuple[int, list[Note]]:
    """Silence findings by comments; how many, and those that could not be."""
    from dropkit.lint.engine.check_file import decode
    from dropkit.lint.semantic.noqa import Comments, add_comments

    silenced = 0
    notes: list[Note] = []
    for path, mine in _by_path(outcome.findings).items():
        if path.endswith(".ipynb"):
            notes += [_unsilenced(finding, "no comment is written into a notebook") for finding in mine]
            continue
        try:
            _must_be_editable(path)
            text = decode(files.read(path))
            after = add_comments(text, mine, marker)
            if after.utf8 != text.utf8:
                files.write(path, after.encode())
        except Exception as error:  # as where fixes are applied
            notes.append(unfixed(path, error))
            continue
        comments = Comments(after)
        left = [finding for finding in mine if not comments.silence(finding)]
        silenced += len(mine) - len(left)
        notes += [_unsilenced(finding, "no comment can stand there") for finding in left]
    return silenced, notes


def _by_path(findings: Iterable[Diagnostic]) -> dict[str, list[Diagnostic]]:
    by_path: dict[str, list[Diagnostic]] = {}
    for finding in findings:
        by_path.setdefault(finding.path, []).append(finding)
    return by_path


def _unsilenced(finding: Diagnostic, why: str) -> Note:
    line = f"line {finding.span.line}"
    where = line if finding.cell is None else f"cell {finding.cell}, {line}"
    return Note(finding.path, f"{finding.code} in {where}: {why}", finding.cell, finding.span.line, UNSILENCED)


def _must_be_editable(path: str) -> None:
    why = files.why_not_edited(path)
    if why is not None:
        raise OSError(f"it {why}")


def unfixed(path: str, error: Exception) -> Note:
    """A note of a file that was left as it was."""
    why = files.reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__
    return Note(path, why, what=UNFIXED)


def print_diff(path: str, before: bytes, after: bytes) -> None:
    """Print what `patch` takes, byte by byte; on a terminal, what it can show of it."""
    text = _diff(path, before, after)
    if not is_terminal(sys.stdout):
        click.echo(text.encode(errors="surrogateescape"), nl=False)
        return
    for line in io.StringIO(text, newline="\n"):
        click.echo("\t".join(map(seen, line.rstrip("\r\n").split("\t"))))


def _diff(path: str, before: bytes, after: bytes) -> str:
    from difflib import unified_diff

    # Lines end at line feeds alone: a form feed stands within one.
    old, new = (list(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="\n")) for data in (before, after))
    a, b = (f"{side}/{path}" if path.isprintable() else json.dumps(f"{side}/{path}") for side in "ab")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in unified_diff(old, new, a, b)
    )
