"""One file: read, parse, run the rules, mend.

A fix is taken only when what it leaves parses, says outside of the edit what it said before, and no longer holds the
finding; otherwise the file is left as it was.
"""

from __future__ import annotations

import ast
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dropkit.diagnostics import Diagnostic, Edit
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.parsing import Unreadable, read
from dropkit.lint.semantic.source_text import Text, Undecodable
from dropkit.rules import Rule

__all__ = ["Unreadable", "check", "decode", "has_words", "mend", "read", "worth_reading"]

# What a file must contain for any rule to have something to say: a word, and torch or what may bring it along.
_WORDS = re.compile(
    rb"ropout|drop_out|DropPath|drop_path|def (?:train|eval)\(|\.training\s*=(?!=)|\.eval\b|bernoulli|rand_like"
)
_ORIGINS = (b"torch", b"dropkit", b"mmengine", b"import *")
# A comment on one of the first two lines names an encoding that is not UTF-8.
_OTHER_ENCODING = re.compile(rb"(?:[^\r\n]*[\r\n]+)?[^\r\n]*coding[:=](?![ \t]*utf[-_]?8)", re.IGNORECASE)
# So often the fixes of a file are tried together or in parts; what is then left stays a finding.
_MOST_TRIES = 64


def worth_reading(path: str, data: bytes) -> bool:
    """Whether a file with this content must be parsed: a rule could find something in it, or it may not be readable.

    A notebook always is, to see whether it is one. So is a file whose bytes may spell their words in another encoding.
    """
    return path.endswith(".ipynb") or has_words(data) or not _is_plain(data)


def has_words(data: bytes) -> bool:
    """Whether any rule could find something in source of these bytes."""
    return any(origin in data for origin in _ORIGINS) and (b"ropout" in data or _WORDS.search(data) is not None)


def _is_plain(data: bytes) -> bool:
    """Whether these bytes are UTF-8 and do not say that they are something else."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data and _OTHER_ENCODING.match(data) is None


def decode(data: bytes) -> Text:
    """Decode a file.

    Raises:
        Unreadable: it is not text in the encoding that it names.
    """
    try:
        return Text.decode(data)
    except Undecodable as error:
        raise Unreadable(str(error)) from error


def check(source: SourceFile, rules: Iterable[Rule]) -> list[Diagnostic]:
    """All that `rules` find, in the order of the text."""
    findings = [finding for rule in rules for finding in rule.diagnostics(source)]
    return sorted(findings, key=lambda one: (one.span.line, one.span.column, one.code))


def mend(path: str, text: Text, findings: Sequence[Diagnostic], rules: Sequence[Rule]) -> tuple[Text, list[Diagnostic]]:
    """Apply the fixes of `findings`; return the new text and the findings that are mended.

    All at once; if something is then not as it should be, each half by itself. Of two fixes that meet, the later one
    in the text is taken and the other waits for another run.
    """
    by_code = {rule.code: rule for rule in rules}
    apart = _apart([finding for finding in findings if finding.fix is not None and finding.fix.edits])
    return _mend(path, text, apart, by_code, iter(range(_MOST_TRIES)))


def _apart(findings: list[Diagnostic]) -> list[Diagnostic]:
    """Those whose fixes do not meet, from the end of the text to its beginning."""
    first = sys.maxsize
    chosen: list[Diagnostic] = []
    for finding in sorted(findings, key=lambda one: -_reach(one)[1]):
        begin, end = _reach(finding)
        if end < first:
            first = begin
            chosen.append(finding)
    return chosen


def _mend(
    path: str, text: Text, findings: Sequence[Diagnostic], rules: Mapping[str, Rule], tries: Iterator[int]
) -> tuple[Text, list[Diagnostic]]:
    """Apply fixes that do not meet, the last in the text first."""
    if not findings or next(tries, None) is None:
        return text, []
    after = text.edited([edit for finding in findings for edit in _edits(finding)])
    if _holds(path, text, after, findings, rules):
        return after, list(findings)
    if len(findings) == 1:
        return text, []
    # What is done at the end of the text moves nothing before it.
    middle = len(findings) // 2
    text, last = _mend(path, text, findings[:middle], rules, tries)
    text, first = _mend(path, text, findings[middle:], rules, tries)
    return text, [*last, *first]


def _edits(finding: Diagnostic) -> tuple[Edit, ...]:
    return finding.fix.edits if finding.fix is not None else ()


def _reach(finding: Diagnostic) -> tuple[int, int]:
    """The first and the last byte that a fix touches."""
    return min(edit.start for edit in _edits(finding)), max(edit.end for edit in _edits(finding))


def _holds(path: str, before: Text, after: Text, findings: Sequence[Diagnostic], rules: Mapping[str, Rule]) -> bool:
    """Whether the edits did what they were to do, and nothing else."""
    try:
        after.encode()
        was, now = read(path, before), read(path, after)
    except (Unreadable, Undecodable):
        return False
    fixed = Counter(finding.code for finding in findings)
    return all(
        len(list(rules[code].diagnostics(now))) <= len(list(rules[code].diagnostics(was))) - count
        for code, count in fixed.items()
    ) and _same_outside(was, now, findings)


def _same_outside(was: SourceFile, now: SourceFile, findings: Sequence[Diagnostic]) -> bool:
    """Whether every statement that no edit touches is the same tree before and after."""
    edits = [edit for finding in findings for edit in _edits(finding)]
    touched = sorted({was.text.position(at)[0] for edit in edits for at in (edit.start, edit.end)})
    return _untouched(was, touched) <= _untouched(now, [])


def _untouched(source: SourceFile, touched: list[int]) -> set[bytes]:
    """The source of every statement, of a compound one its head, that has none of the lines `touched`, in order."""
    utf8, start = source.text.utf8, source.text.start
    found: set[bytes] = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.stmt) or isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        cases: list[ast.match_case] = getattr(node, "cases", [])
        inner: list[ast.stmt] = cases[0].body if cases else getattr(node, "body", [])
        last = inner[0].lineno if inner else node.end_lineno or node.lineno
        nearest = bisect_left(touched, node.lineno)
        if nearest == len(touched) or touched[nearest] > last:
            found.add(utf8[start(node) : start(inner[0]) if inner else source.text.end(node)])
    return found
