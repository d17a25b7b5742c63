"""Write comments that silence findings, and remove those that silence nothing."""

from __future__ import annotations

import tokenize
from collections.abc import Collection, Iterable

from dropkit.diagnostics import Diagnostic, Edit, Fix
from dropkit.lint.semantic.noqa import IGNORE, NOQA, Noqa, codes_of, comments_in, tokens_of
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.source_text import Text

_STRINGS = ("STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE")
_SEPARATOR = pattern(r"[,\s]+")


def add_comments(text: Text, findings: Iterable[Diagnostic], marker: str) -> Text:
    """Silence `findings` by a comment at the end of their line: `marker` is "noqa" or "dropkit".

    Findings on lines that end in a backslash, or inside of a string, cannot be silenced.
    """
    codes_by_line: dict[int, set[str]] = {}
    for finding in findings:
        codes_by_line.setdefault(finding.span.end_line, set()).add(finding.code)
    tokens = tokens_of(text)
    present = comments_in(tokens)
    inside = _inside_strings(tokens)
    edits: list[Edit] = []
    for number, codes in codes_by_line.items():
        line = text.line(number)
        end = text.starts[number - 1] + len(line.encode())
        old = present.get(number)
        match = (NOQA if marker == "noqa" else IGNORE).search(old) if old is not None else None
        if line.endswith("\\") or (old is None and number in inside):
            continue
        if match is not None and old is not None:
            if match["codes"] is None:
                continue  # it silences every rule, of other linters too
            start = end - len(old.encode()) + len(old[: match.start()].encode())
            comment = _comment(codes.union(codes_of(match) or ()), marker)
            edits.append(Edit(start, start + len(match.group().encode()), comment))
        else:
            edits.append(Edit(end, end, f"  {_comment(codes, marker)}"))
    return text.edited(edits)


def _comment(codes: Iterable[str], marker: str) -> str:
    joined = ", ".join(sorted(codes))
    return f"# noqa: {joined}" if marker == "noqa" else f"# dropkit: ignore[{joined}]"


def _inside_strings(tokens: Iterable[tokenize.TokenInfo]) -> set[int]:
    """The lines that end inside of a string. Parts of f-strings are tokens of their own since Python 3.12."""
    strings = (token for token in tokens if tokenize.tok_name[token.type] in _STRINGS)
    return {line for token in strings for line in range(token.start[0], token.end[0])}


def remove_codes(text: Text, noqa: Noqa, unused: Collection[str]) -> Fix:
    """Remove codes from a `noqa` comment; the whole comment if no code is left and it says nothing else."""
    head, _, codes = text.utf8[noqa.start : noqa.end].decode().rpartition(":")
    kept = [code for code in _SEPARATOR.split(codes.strip()) if code.upper() not in unused]
    if kept:
        space = codes[: len(codes) - len(codes.lstrip())]
        return Fix("Remove the unused codes", (Edit(noqa.start, noqa.end, f"{head}:{space}{', '.join(kept)}"),))
    before = text.utf8[noqa.begin : noqa.start].decode().rstrip()
    after = text.utf8[noqa.end : noqa.stop].decode().strip(" \t\f,.;:-")
    if after and not after.startswith("#"):
        after = f"# {after}"
    return Fix("Remove the unused comment", (_replace_comment(text, noqa, "  ".join(filter(None, (before, after)))),))


def _replace_comment(text: Text, noqa: Noqa, comment: str) -> Edit:
    """Replace the comment that a `noqa` stands in; if nothing is left, also the white space before it, or its line."""
    if comment:
        return Edit(noqa.begin, noqa.stop, comment)
    start = text.starts[noqa.line - 1]
    code = text.utf8[start : noqa.begin].rstrip(b" \t\f")
    if code:
        return Edit(start + len(code), noqa.stop, "")
    return Edit(start, text.starts[noqa.line] if noqa.line < len(text.starts) else noqa.stop, "")
