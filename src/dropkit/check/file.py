"""One file: read, parse, run the rules, mend.

A fix is taken only when what it leaves parses, says outside of the edit what it said before, and no longer holds the
finding; otherwise the file is left as it was.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence

from dropkit.facts.finding import Finding, Fix
from dropkit.facts.module import Module
from dropkit.facts.text import Text, Undecodable
from dropkit.rules import Rule

# What a file must contain for any rule to have something to say.
WORTH_READING = re.compile(
    rb"ropout|drop_out|DropPath|drop_path|def (?:train|eval)\(|\.training\b|dropout_p|\.eval\b|LogSoftmax|log_softmax"
    rb"|preserve_rng_state|bernoulli"
)


class Unreadable(ValueError):
    """A file that cannot be decoded or parsed; the message says why and where."""


def read(path: str, text: Text) -> Module:
    """Parse and index `text`.

    Raises:
        Unreadable: it is not Python of a grammar this interpreter knows.
    """
    with warnings.catch_warnings():
        # Invalid escapes and the like are the file's own affair.
        warnings.simplefilter("ignore")
        try:
            return Module(path, text, text.parse())
        except SyntaxError as error:
            raise Unreadable(f"line {error.lineno}: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise Unreadable(str(error) or type(error).__name__) from error


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
    """Apply the fixes of `findings` one by one; return the new text and the findings that are mended.

    Each is tried alone on what the ones before it left. Fixes that overlap an edit made already wait for another run.
    """
    by_code = {rule.code: rule for rule in rules}
    edits: list[tuple[int, int]] = []
    taken: list[Finding] = []
    for finding in sorted(findings, key=lambda one: -min((e.start for e in one.fix.edits), default=0) if one.fix else 0):
        if finding.fix is None or not finding.fix.edits:
            continue
        if any(edit.start <= end and start <= edit.end for edit in finding.fix.edits for start, end in edits):
            continue
        if any(end > min((start for start, _ in edits), default=1 << 62) for end in (e.end for e in finding.fix.edits)):
            continue  # edits are made from the end of the file: offsets before the last one made still hold
        after = text.edited(finding.fix.edits)
        if not _holds(path, text, after, finding.fix, by_code[finding.code]):
            continue
        text = after
        edits.extend((edit.start, edit.end) for edit in finding.fix.edits)
        taken.append(finding)
    return text, taken


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
    def clear(node: ast.AST) -> bool:
        first, last = node.lineno, node.end_lineno or node.lineno  # pyright: ignore
        return not any(first <= line <= last for line in touched)

    return {
        ast.dump(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.stmt) and not isinstance(node, (ast.ClassDef, ast.FunctionDef)) and clear(node)
    }
