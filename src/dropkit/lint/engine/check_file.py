"""Check one file: decode and parse it, run the rules, and leave out what comments silence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project_index import summarize
from dropkit.lint.engine.result import FileResult, Note
from dropkit.lint.semantic.dropout_names import may_match
from dropkit.lint.semantic.model import SourceFile, read
from dropkit.lint.semantic.noqa import UNUSED, Comments, names_own_codes
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.rules import Rule

if TYPE_CHECKING:
    from dropkit.lint.engine.notebook import Notebook

# A comment on one of the first two lines that names another encoding than UTF-8.
_OTHER_ENCODING = pattern(rb"(?:[^\r\n]*[\r\n]+)?[^\r\n]*coding[:=](?![ \t]*utf[-_]?8)", re.IGNORECASE)


def must_be_parsed(path: str, data: bytes) -> bool:
    """Whether a file with this content must be parsed, because a rule may match in it or it may be unreadable.

    Every notebook must, since it may not be one; so must a file whose encoding may hide the words.
    """
    return path.endswith(".ipynb") or _may_match(data) or not _is_plain_utf8(data)


def _may_match(data: bytes) -> bool:
    """Whether any rule could match in this source code."""
    return may_match(data) or names_own_codes(data)


def _is_plain_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data and _OTHER_ENCODING.match(data) is None


def open_notebook(path: str, data: bytes) -> Notebook | None:
    """The notebook in a file of this name and content; None if the name is not that of a notebook.

    Raises:
        NotANotebook: it should be one, and is not.
    """
    if not path.endswith(".ipynb"):
        return None
    from dropkit.lint.engine.notebook import Notebook  # imported here: most files are none

    return Notebook.parse(data)


def check(source: SourceFile, rules: Iterable[Rule]) -> list[Diagnostic]:
    """Return the findings of `rules` in a file, in the order of the text."""
    return _in_order(finding for rule in rules for finding in rule.diagnostics(source))


def _in_order(findings: Iterable[Diagnostic]) -> list[Diagnostic]:
    return sorted(findings, key=lambda finding: (finding.span.line, finding.span.column, finding.code))


def check_bytes(path: str, data: bytes, config: Config) -> FileResult:
    """Check one file with this content. Conditions on other files are left open.

    Every failure becomes a note: this raises nothing.
    """
    try:
        return _check_bytes(path, data, config) if must_be_parsed(path, data) else FileResult()
    except Unreadable as error:
        return FileResult(notes=(Note(path, str(error), line=error.line),))
    except Exception as error:  # a bug that one file triggers must not hide findings in others
        return FileResult(notes=(Note(path, _failure("the checker", error)),))


def _check_bytes(path: str, data: bytes, config: Config) -> FileResult:
    notebook = open_notebook(path, data)
    text = Text.decode(data) if notebook is None else notebook.text
    unread_cells = () if notebook is None else notebook.unread
    unread = tuple(Note(path, str(cell), cell.cell, cell.line) for cell in unread_cells)
    if notebook is not None and not _may_match(text.utf8):
        return FileResult(notes=unread)
    source = read(path, text, config.always_on_names)
    # What a cell that could not be read says may be what a comment elsewhere is for.
    ignored = config.ignored_in(path) | ({UNUSED} if unread else set[str]())
    findings, notes = _run_each(source, [rule for rule in config.rules if rule.code not in ignored])
    if config.respect_noqa:
        comments = Comments(text)
        findings = [finding for finding in findings if not comments.is_silenced(finding)]
    if notebook is not None:
        findings = [notebook.to_cell(finding) for finding in findings]
    result = FileResult(tuple(findings), (*notes, *unread), summarize(source))
    source.break_cycles()
    return result


def _run_each(source: SourceFile, rules: Iterable[Rule]) -> tuple[list[Diagnostic], list[Note]]:
    """Run the rules; return what they find, and a note for each rule that failed."""
    findings: list[Diagnostic] = []
    notes: list[Note] = []
    for rule in rules:
        try:
            findings += check(source, [rule])
        except Exception as error:  # a bug of one rule must not hide what the others find
            notes.append(Note(source.path, _failure(rule.code, error)))
    return _in_order(findings), notes


def _failure(name: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested too deeply for {name}"
    return f"{name} failed: {type(error).__name__}: {error}"
