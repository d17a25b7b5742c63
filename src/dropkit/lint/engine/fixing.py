"""Apply fixes to a file, and keep only those that do what they promise.

A fix is kept if the new text parses, every statement outside of the edits is unchanged, and the finding is gone.
"""

from __future__ import annotations

import ast
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from dropkit.diagnostics import Diagnostic, Edit
from dropkit.lint.engine.check_file import check_bytes
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.notebook import Notebook
from dropkit.lint.semantic.model import SourceFile, read
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.rules import Rule

# Most attempts to apply the fixes of a file, together or in parts; findings that are left then stay.
_MAX_ATTEMPTS = 64
# A fix can make room for another one; this many rounds at most.
_MAX_ROUNDS = 10


def fix_bytes(
    data: bytes, findings: Sequence[Diagnostic], config: Config, unsafe: bool
) -> tuple[bytes, list[Diagnostic]]:
    """Fix `findings` in a file with this content; return the new content and the findings that were fixed.

    Raises:
        UnicodeError: a fix needs a character that the file's encoding lacks. Nothing is changed then.
        UnknownLayout: the JSON of a notebook cannot be written back as it was. Nothing is changed then, either.
    """
    path = findings[0].path
    wanted = {_key(finding) for finding in findings}
    codes = {finding.code for finding in findings}
    unwanted: set[tuple[object, ...]] | None = None
    fixed: list[Diagnostic] = []
    for _ in range(_MAX_ROUNDS):
        found = check_bytes(path, data, config).findings
        if unwanted is None:
            unwanted = {_key(finding) for finding in found} - wanted
        # A fix can show another misuse of its rule: a literal True beside a call that now follows the mode.
        fixable = [
            finding
            for finding in found
            if finding.fix is not None
            and (unsafe or finding.fix.safe)
            and (_key(finding) in wanted or (finding.code in codes and _key(finding) not in unwanted))
        ]
        data, fixed_now = _fix_once(path, data, fixable, config)
        if not fixed_now:
            break
        fixed += fixed_now
    return data, fixed


def _key(finding: Diagnostic) -> tuple[object, ...]:
    """What stays of a finding while edits move it."""
    return finding.code, finding.message, finding.unless, finding.given


def _fix_once(path: str, data: bytes, findings: list[Diagnostic], config: Config) -> tuple[bytes, list[Diagnostic]]:
    if not findings:
        return data, []
    if path.endswith(".ipynb"):
        notebook = Notebook.parse(data)
        _, fixed = fix_text(path, notebook.text, [notebook.from_cell(finding) for finding in findings], config.rules)
        edits = [edit for finding in fixed for edit in _edits(finding)]
        return (notebook.edited(edits) if fixed else data), fixed
    text, fixed = fix_text(path, Text.decode(data), findings, config.rules)
    return text.encode(), fixed


def fix_text(
    path: str, text: Text, findings: Sequence[Diagnostic], rules: Sequence[Rule]
) -> tuple[Text, list[Diagnostic]]:
    """Apply the fixes of `findings` once; return the new text and the findings that were fixed.

    All fixes are tried at once; if the result is wrong, each half by itself. Of two fixes that overlap, the later one
    in the text is applied.
    """
    by_code = {rule.code: rule for rule in rules}
    disjoint = _disjoint([finding for finding in findings if _edits(finding)])
    return _apply(path, text, disjoint, by_code, iter(range(_MAX_ATTEMPTS)))


def _disjoint(findings: list[Diagnostic]) -> list[Diagnostic]:
    """Choose fixes that do not overlap, from the end of the text to its beginning."""
    first = sys.maxsize
    chosen: list[Diagnostic] = []
    for finding in sorted(findings, key=lambda finding: -_extent(finding)[1]):
        begin, end = _extent(finding)
        if end < first:
            first = begin
            chosen.append(finding)
    return chosen


def _apply(
    path: str, text: Text, findings: Sequence[Diagnostic], rules: Mapping[str, Rule], attempts: Iterator[int]
) -> tuple[Text, list[Diagnostic]]:
    """Apply fixes that do not overlap and are sorted from the end of the text to its beginning."""
    if not findings or next(attempts, None) is None:
        return text, []
    after = text.edited([edit for finding in findings for edit in _edits(finding)])
    if _is_correct(path, text, after, findings, rules):
        return after, list(findings)
    if len(findings) == 1:
        return text, []
    # The later half first: its edits do not move the text before them.
    middle = len(findings) // 2
    text, later = _apply(path, text, findings[:middle], rules, attempts)
    text, earlier = _apply(path, text, findings[middle:], rules, attempts)
    return text, [*later, *earlier]


def _edits(finding: Diagnostic) -> tuple[Edit, ...]:
    return finding.fix.edits if finding.fix is not None else ()


def _extent(finding: Diagnostic) -> tuple[int, int]:
    """The first and the last byte that a fix changes."""
    return min(edit.start for edit in _edits(finding)), max(edit.end for edit in _edits(finding))


def _is_correct(path: str, old: Text, new: Text, findings: Sequence[Diagnostic], rules: Mapping[str, Rule]) -> bool:
    """Whether the edits removed the findings and changed nothing else."""
    try:
        new.encode()
        before, after = read(path, old), read(path, new)
    except (Unreadable, UnicodeError):
        return False
    removed = Counter(_kind(finding) for finding in findings)
    codes = {finding.code for finding in findings}
    there = Counter(_kind(finding) for code in codes for finding in rules[code].diagnostics(before))
    left = Counter(_kind(finding) for code in codes for finding in rules[code].diagnostics(after))
    return all(left[kind] <= there[kind] - count for kind, count in removed.items()) and _is_same_outside(
        before, after, findings
    )


def _kind(finding: Diagnostic) -> tuple[str, str]:
    """A fix may show another misuse of the same rule, which has another message."""
    return finding.code, finding.message


def _is_same_outside(before: SourceFile, after: SourceFile, findings: Sequence[Diagnostic]) -> bool:
    """Whether every statement that no edit touches is still there."""
    edits = [edit for finding in findings for edit in _edits(finding)]
    lines = sorted({before.text.position(at)[0] for edit in edits for at in (edit.start, edit.end)})
    return _statements_outside(before, lines) <= _statements_outside(after, [])


def _statements_outside(source: SourceFile, lines: list[int]) -> set[bytes]:
    """The source of every statement, of a compound one its header, that contains none of the sorted `lines`."""
    utf8, start = source.text.utf8, source.text.start
    statements: set[bytes] = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.stmt) or isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        cases: list[ast.match_case] = getattr(node, "cases", [])
        body: list[ast.stmt] = cases[0].body if cases else getattr(node, "body", [])
        last = body[0].lineno if body else node.end_lineno or node.lineno
        nearest = bisect_left(lines, node.lineno)
        if nearest == len(lines) or lines[nearest] > last:
            statements.add(utf8[start(node) : start(body[0]) if body else source.text.end(node)])
    return statements
