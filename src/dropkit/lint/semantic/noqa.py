"""Comments that silence findings: `# noqa: DRP101`, and dropkit's own, which other linters leave alone.

`# dropkit: ignore[DRP101]` and `# noqa: DRP101` silence their line, without codes every rule. `# dropkit: ignore-file`,
`# dropkit: ignore-file[DRP101]` and, on lines of their own, `# ruff: noqa`, `# ruff: noqa: DRP101` and `# flake8: noqa`
silence a whole file. A code is also the prefix of others: `DRP1` and `DRP` stand for all rules that begin so.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from dropkit.diagnostics import Diagnostic
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.source_text import Text

# The only code that may have no digits. Others are words to linters too, and ruff's `D` are the rules of pydocstyle.
OWN = "DRP"
# The rule that reports comments without effect. No prefix stands for it: `DRP` would hide that it has none itself.
UNUSED = "DRP001"
_CODE = rf"(?:[A-Za-z]+[0-9]+|{OWN}\b)"
_CODES = rf"{_CODE}(?:[,\s]+{_CODE})*"
NOQA = pattern(rf"#\s*noqa(?!\w)(?:\s*:\s*(?P<codes>{_CODES}))?", re.IGNORECASE)
IGNORE = pattern(rf"#\s*dropkit:\s*ignore(?!-)(?:\[\s*(?P<codes>{_CODES})\s*\])?", re.IGNORECASE)
_FILE = pattern(rf"#\s*dropkit:\s*ignore-file(?:\[\s*(?P<codes>{_CODES})\s*\])?", re.IGNORECASE)
# Without codes only if there is no colon either: what follows a colon is meant as codes.
_NOQA_FILE = pattern(rf"#\s*(?:ruff|flake8)\s*[:=]\s*noqa(?!\w)(?:\s*:\s*(?P<codes>{_CODES})|(?!\s*:))", re.IGNORECASE)
_ANY = pattern(rb"#\s*(?:noqa|(?:ruff|flake8)\s*[:=]\s*noqa|dropkit:\s*ignore)", re.IGNORECASE)
_OWN_NOQA = pattern(rb"noqa[^\r\n]*:[^\r\n]*drp", re.IGNORECASE)


def names_own_codes(utf8: bytes) -> bool:
    """Whether a file may have a `noqa` comment with codes of dropkit."""
    return (b"DRP" in utf8 or b"drp" in utf8) and _OWN_NOQA.search(utf8) is not None


class Noqa(NamedTuple):
    """A `# noqa` comment with codes, of a line or of the file.

    `start` and `end` are bytes of the text, and those of the comment that it stands in `begin` and `stop`.
    """

    line: int
    codes: tuple[str, ...]
    is_for_file: bool
    begin: int
    start: int
    end: int
    stop: int


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
    def for_file(self) -> list[tuple[str, ...] | None]:
        """What each comment for the whole file silences: codes, or None for all."""
        return [
            codes_of(match)
            for number, comment in self.lines.items()
            for match in (*_FILE.finditer(comment), *self._noqa_of_file(number, comment))
        ]

    def is_silenced(self, finding: Diagnostic) -> bool:
        """Whether a comment on the first or last line of `finding`, or one for the file, silences it."""
        return self.silences(finding.code, {finding.span.line, finding.span.end_line})

    def silences(self, code: str, lines: Iterable[int]) -> bool:
        """Whether a comment on one of these lines, or one for the file, silences a rule."""
        silenced = list(self.for_file)
        for number in lines:
            comment = self.lines.get(number, "")
            silenced += [codes_of(match) for pattern in (NOQA, IGNORE) for match in pattern.finditer(comment)]
        return any(stands_for(codes, code) for codes in silenced)

    def noqa(self) -> Iterator[Noqa]:
        """The `noqa` comments with codes, in the order of the text."""
        for number, comment in self.lines.items():
            stop = self.text.starts[number - 1] + len(self.text.line(number).encode())
            begin = stop - len(comment.encode())
            of_file = [(match, True) for match in self._noqa_of_file(number, comment)]
            for match, is_for_file in (*of_file, *((match, False) for match in NOQA.finditer(comment))):
                codes = codes_of(match)
                if codes is not None:
                    start = begin + len(comment[: match.start()].encode())
                    yield Noqa(number, codes, is_for_file, begin, start, start + len(match.group().encode()), stop)

    def _noqa_of_file(self, number: int, comment: str) -> Iterator[re.Match[str]]:
        """ruff's and flake8's comments for the whole file, which need a line of their own."""
        is_alone = self.text.line(number).lstrip(" \t\f").startswith("#")
        return _NOQA_FILE.finditer(comment) if is_alone else iter(())


def stands_for(codes: tuple[str, ...] | None, code: str) -> bool:
    """Whether one of `codes` is a code or a prefix of it; None stands for all.

    Example:
        >>> stands_for(("DRP1",), "DRP101"), stands_for(("E501", "DRP"), "DRP101"), stands_for(("DRP2",), "DRP101")
        (True, True, False)
    """
    if codes is None or code in codes:
        return True
    return code != UNUSED and any(code.startswith(other) for other in codes)


def comments(text: Text) -> dict[int, str]:
    """The comments of a file by line, without what looks like one in a string."""
    return comments_in(tokens_of(text))


def codes_of(match: re.Match[str]) -> tuple[str, ...] | None:
    """The codes of a comment in capitals; None if it has none, which stands for all."""
    codes = match["codes"]
    return None if codes is None else tuple(code.upper() for code in re.split(r"[,\s]+", codes) if code)


def tokens_of(text: Text) -> list[tokenize.TokenInfo]:
    """The tokens of a file, up to one that cannot be read."""
    tokens: list[tokenize.TokenInfo] = []
    with suppress(tokenize.TokenError, SyntaxError):
        # Lines end as for the parser: in universal newlines, and nowhere else.
        tokens.extend(tokenize.generate_tokens(io.StringIO(text.utf8.decode(), newline=None).readline))
    return tokens


def comments_in(tokens: Iterable[tokenize.TokenInfo]) -> dict[int, str]:
    """The comments among tokens, by line."""
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
