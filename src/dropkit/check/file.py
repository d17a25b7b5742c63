"""One file: read, parse, run the rules, mend.

A fix is taken only when what it leaves parses, says outside of the edit what it said before, and no longer holds the
finding; otherwise the file is left as it was.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

from dropkit.facts.finding import Finding, Fix
from dropkit.facts.module import Module
from dropkit.facts.reading import Unreadable, read
from dropkit.facts.text import Text, Undecodable
from dropkit.rules import Rule

__all__ = ["Unreadable", "check", "decode", "mend", "read", "worth_reading"]

# What a file must contain for any rule to have something to say: a word, and torch or what may bring it along.
_WORDS = re.compile(
    rb"ropout|drop_out|DropPath|drop_path|def (?:train|eval)\(|\.training\s*=(?!=)|\.eval\b|bernoulli|rand_like"
)
_ORIGINS = (b"torch", b"dropkit", b"mmengine", b"import *")


def worth_reading(data: bytes) -> bool:
    """Whether any rule could find something in a file with this content."""
    return any(origin in data for origin in _ORIGINS) and (b"ropout" in data or _WORDS.search(data) is not None)


def decode(data: bytes) -> Text:
    """Decode a file.

    Raises:
        Unreadable: it is not text in the encoding that it names.
    """
    try:
        return Text.decode(data)
    except Undecodable as error:
        raise Unreadable(str(error)) from error


def check(module: Module, rules: Iterable[Rule]) -> list[Finding]:
    """All that `rules` find, in the order of the text."""
    findings = [finding for rule in rules for finding in rule.findings(module)]
    return sorted(findings, key=lambda one: (one.span.line, one.span.column, one.code))


def mend(path: str, text: Text, findings: Sequence[Finding], rules: Sequence[Rule]) -> tuple[Text, list[Finding]]:
    """Apply the fixes of `findings`; return the new text and the findings that are mended.

    From the end of the text to its beginning, each tried on what the ones before it left. Of two fixes that meet, the
    later one in the text is taken and the other waits for another run.
    """
    by_code = {rule.code: rule for rule in rules}
    first = len(text.utf8) + 1
    taken: list[Finding] = []
    fixable = [(finding, finding.fix) for finding in findings if finding.fix is not None and finding.fix.edits]
    for finding, fix in sorted(fixable, key=lambda pair: -_reach(pair[1])[1]):
        begin, end = _reach(fix)
        if end >= first:
            continue
        after = text.edited(fix.edits)
        if _holds(path, text, after, fix, by_code[finding.code]):
            text, first = after, begin
            taken.append(finding)
    return text, taken


def _reach(fix: Fix) -> tuple[int, int]:
    """The first and the last byte that a fix touches."""
    return min(edit.start for edit in fix.edits), max(edit.end for edit in fix.edits)


def _holds(path: str, before: Text, after: Text, fix: Fix, rule: Rule) -> bool:
    """Whether the edit did what it was to do, and nothing else."""
    try:
        after.encode()
        was, now = read(path, before), read(path, after)
    except (Unreadable, Undecodable):
        return False
    return len(list(rule.findings(now))) < len(list(rule.findings(was))) and _same_outside(was, now, fix)


def _same_outside(was: Module, now: Module, fix: Fix) -> bool:
    """Whether every statement that no edit touches is the same tree before and after."""
    touched = {was.text.position(edit.start)[0] for edit in fix.edits} | {
        was.text.position(edit.end)[0] for edit in fix.edits
    }
    return _untouched(was, touched) <= _untouched(now, set())


def _untouched(module: Module, touched: set[int]) -> set[str]:
    return {
        ast.dump(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.stmt)
        and not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and touched.isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    }
