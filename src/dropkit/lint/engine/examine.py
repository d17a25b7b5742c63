"""One file, from its bytes to a record: whatever is in it, and whatever fails on it, ends up there."""

from __future__ import annotations

from collections.abc import Iterable

from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.cache import Record
from dropkit.lint.engine.check_file import Unreadable, check, decode, has_words, read, worth_reading
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.notebook import NotANotebook, Notebook
from dropkit.lint.engine.project_index import account
from dropkit.lint.engine.result import Note
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noqa import Comments
from dropkit.rules import Rule


def examine(path: str, data: bytes, config: Config) -> Record:
    """Run the rules over one file and keep what is not silenced; questions to other files stay open.

    Whatever is in the file, and whatever fails on it, is noted and never raised.
    """
    try:
        return _examine(path, data, config) if worth_reading(path, data) else Record()
    except Unreadable as error:
        return Record(notes=(Note(path, str(error), line=error.line),))
    except NotANotebook as error:
        return Record(notes=(Note(path, str(error)),))
    except Exception as error:  # a fault of the checker's own on one file must not hide what it finds in others
        return Record(notes=(Note(path, _failed("the checker", error)),))


def _examine(path: str, data: bytes, config: Config) -> Record:
    notebook = Notebook.parse(data) if path.endswith(".ipynb") else None
    text = decode(data) if notebook is None else notebook.text
    unread = () if notebook is None else notebook.unread
    unread = tuple(Note(path, str(one), one.cell, one.line) for one in unread)
    if notebook is not None and not has_words(text.utf8):
        return Record(notes=unread)
    source = read(path, text, config.always_on_names)
    ignored = config.ignored_in(path)
    findings, notes = _check_each(source, [rule for rule in config.rules if rule.code not in ignored])
    comments = Comments(text)
    if config.respect_noqa:
        findings = [finding for finding in findings if not comments.silence(finding)]
    if notebook is not None:
        findings = [notebook.place(finding) for finding in findings]
    record = Record(tuple(findings), (*notes, *unread), account(source))
    source.forget()
    return record


def _check_each(source: SourceFile, rules: Iterable[Rule]) -> tuple[list[Diagnostic], list[Note]]:
    """What the rules find, in the order of the text, and which of them failed."""
    findings: list[Diagnostic] = []
    notes: list[Note] = []
    for rule in rules:
        try:
            findings += check(source, [rule])
        except Exception as error:  # as above
            notes.append(Note(source.path, _failed(rule.code, error)))
    return sorted(findings, key=lambda one: (one.span.line, one.span.column, one.code)), notes


def _failed(what: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested too deeply for {what}"
    return f"{what} failed: {type(error).__name__}: {error}"


def was_read(record: Record) -> bool:
    """Whether the file was read, all of it or all but some cells."""
    return all(note.cell is not None for note in record.notes)
