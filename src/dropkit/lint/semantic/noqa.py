"""Comments that silence a finding: `# noqa: DRP101`, and dropkit's own, which other linters leave alone.

`# dropkit: ignore[DRP101]` and `# noqa: DRP101` silence their line, without codes every rule; `# dropkit: ignore-file`
or `# dropkit: ignore-file[DRP101]` silences a whole file.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property

from dropkit.diagnostics import Diagnostic, Edit
from dropkit.lint.semantic.source_text import Text

_CODES = r"[A-Za-z]+[0-9]+(?:[,\s]+[A-Za-z]+[0-9]+)*"
_NOQA = re.compile(rf"#\s*noqa(?!\w)(?:\s*:\s*(?P<codes>{_CODES}))?", re.IGNORECASE)
_IGNORE = re.compile(rf"#\s*dropkit:\s*ignore(?!-)(?:\[\s*(?P<codes>{_CODES})\s*\])?", re.IGNORECASE)
_FILE = re.compile(rf"#\s*dropkit:\s*ignore-file(?:\[\s*(?P<codes>{_CODES})\s*\])?", re.IGNORECASE)
_STRINGS = ("STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE")
_ANY = re.compile(rb"#\s*(?:noqa|dropkit:\s*ignore)", re.IGNORECASE)


class Comments:
    """The comments of a file that silence findings. The file is tokenized only if it may have one."""

    def __init__(self, text: Text) -> None:
        self.text = text

    @cached_property
    def lines(self) -> Mapping[int, str]:
        """Comments by line."""
        if _ANY.search(self.text.utf8) is None:
            return {}
        return comments(self.text)

    @cached_property
    def for_file(self) -> list[set[str] | None]:
        """What each comment for the whole file silences: a set of codes, or None for all."""
        return [_codes(match) for line in self.lines.values() if (match := _FILE.search(line))]

    def is_silenced(self, finding: Diagnostic) -> bool:
        """Whether a comment on the first or last line of `finding`, or one for the file, silences it."""
        return self.silences(finding.code, {finding.span.line, finding.span.end_line})

    def silences(self, code: str, lines: Iterable[int]) -> bool:
        """Whether a comment on one of these lines, or one for the file, silences a rule."""
        silenced = list(self.for_file)
        for number in lines:
            comment = self.lines.get(number, "")
            silenced += [_codes(match) for pattern in (_NOQA, _IGNORE) if (match := pattern.search(comment))]
        return any(codes is None or code in codes for codes in silenced)


def comments(text: Text) -> dict[int, str]:
    """The comments of a file by line, without what looks like one in a string."""
    return _comments(_tokens(text))


def add_comments(text: Text, findings: Iterable[Diagnostic], marker: str) -> Text:
    """Silence `findings` by a comment at the end of their line: `marker` is "noqa" or "dropkit".

    Findings on lines that end in a backslash, or inside of a string, cannot be silenced.
    """
    codes_by_line: dict[int, set[str]] = {}
    for finding in findings:
        codes_by_line.setdefault(finding.span.end_line, set()).add(finding.code)
    tokens = _tokens(text)
    present = _comments(tokens)
    inside = _inside_strings(tokens)
    edits: list[Edit] = []
    for number, codes in codes_by_line.items():
        line = text.line(number)
        end = text.starts[number - 1] + len(line.encode())
        old = present.get(number)
        match = (_NOQA if marker == "noqa" else _IGNORE).search(old) if old is not None else None
        if line.endswith("\\") or (old is None and number in inside):
            continue
        if match is not None and old is not None:
            codes = codes | (_codes(match) or set())
            start = end - len(old.encode()) + len(old[: match.start()].encode())
            edits.append(Edit(start, start + len(match.group().encode()), _comment(codes, marker)))
        else:
            edits.append(Edit(end, end, f"  {_comment(codes, marker)}"))
    return text.edited(edits)


def _comment(codes: set[str], marker: str) -> str:
    joined = ", ".join(sorted(codes))
    return f"# noqa: {joined}" if marker == "noqa" else f"# dropkit: ignore[{joined}]"


def _codes(match: re.Match[str]) -> set[str] | None:
    codes = match["codes"]
    return None if codes is None else {code.upper() for code in re.split(r"[,\s]+", codes) if code}


def _tokens(text: Text) -> list[tokenize.TokenInfo]:
    tokens: list[tokenize.TokenInfo] = []
    with suppress(tokenize.TokenError, SyntaxError):
        # Lines end as for the parser: in universal newlines, and nowhere else.
        tokens.extend(tokenize.generate_tokens(io.StringIO(text.utf8.decode(), newline=None).readline))
    return tokens


def _comments(tokens: Iterable[tokenize.TokenInfo]) -> dict[int, str]:
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def _inside_strings(tokens: Iterable[tokenize.TokenInfo]) -> set[int]:
    """The lines that end inside of a string. Parts of f-strings are tokens of their own since Python 3.12."""
    strings = (token for token in tokens if tokenize.tok_name[token.type] in _STRINGS)
    return {line for token in strings for line in range(token.start[0], token.end[0])}
