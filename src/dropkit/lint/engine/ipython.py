"""Replace IPython syntax in a notebook cell (`%magic`, `!command`, `name?`) by Python of the same length.

Source: ipython.readthedocs.io, "Python vs IPython". Only the beginnings of statements are replaced: inside brackets,
strings and continued lines a percent sign is an operator or text.
"""

from __future__ import annotations

import re

# Magics with a cell of Python; cells of all other magics are in another language, or text.
_PYTHON = frozenset({"capture", "debug", "ipytest", "memit", "prun", "pypy", "python", "python3", "time", "timeit"})
_CELL = re.compile(r"\s*%%(\w*)")
# %magic, !command, ?name, and calls: `,f x`, `;f x`, `/f x`. No Python statement begins with these characters.
_LINE = re.compile(r"[%!?,;/]")
_ASSIGNED = re.compile(r"[\w.,\[\]\"'()* \t]+=\s*(?=[%!])")
_HELP = re.compile(r"(?:[\w.,\[\]\"'()* \t]+=\s*)?[\w.*\[\]\"']+\?{1,2}\s*$")
# Commands that need no `%` or `!`, with the beginning of their arguments, so that no valid Python matches.
_BARE = re.compile(
    r"(?:pip3?|conda|mamba|uv) +(?:install|uninstall|list|show|freeze|pip|add|update|create)\b|cd +[\w./~]"
)
# Tokens that decide whether a line end ends a statement: strings, comments, brackets, a backslash before it.
_TOKEN = re.compile(r"#.*|\\$|[\[({]|[\])}]|'''|\"\"\"|'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?")


def without_magic(source: str) -> str:
    """Return `source` without IPython syntax; every line keeps its number of bytes."""
    cell = _CELL.match(source)
    lines = re.split(r"(\r\n|\r|\n)", source)
    if cell is not None and cell[1] not in _PYTHON:
        lines[::2] = map(_comment, lines[::2])
        return "".join(lines)
    state = _LineState()
    is_continued_magic = False
    for index in range(0, len(lines), 2):
        line = lines[index]
        if is_continued_magic:
            lines[index] = _comment(line)
        elif state.is_statement_start and (magic := _magic(line)) is not None:
            lines[index] = magic
        else:
            state.read(line)
            continue
        is_continued_magic = line.endswith("\\")
    return "".join(lines)


def _magic(line: str) -> str | None:
    """The line without its magic; None if it has none."""
    statement = line.lstrip(" \t")
    indent = line[: len(line) - len(statement)]
    if _LINE.match(statement) or _HELP.match(statement) or _BARE.match(statement):
        # An expression, so that a block with no other statement stays valid.
        return indent + _padded("0", statement)
    assigned = _ASSIGNED.match(statement)
    if assigned is None:
        return None
    # An unknown name: the result of a command is not a number.
    return indent + assigned[0] + _padded("_", statement[assigned.end() :])


def _comment(line: str) -> str:
    return _padded("", line)


def _padded(code: str, line: str) -> str:
    return code + "#" * (len(line.encode(errors="surrogatepass")) - len(code))


class _LineState:
    """Where a line begins: in a triple-quoted string, in brackets, after a backslash, or at a statement."""

    def __init__(self) -> None:
        self.quotes = ""
        self.depth = 0
        self.is_continued = False

    @property
    def is_statement_start(self) -> bool:
        return not self.quotes and self.depth <= 0 and not self.is_continued

    def read(self, line: str) -> None:
        """Read a line up to its end."""
        at = 0
        self.is_continued = False
        while at < len(line):
            if self.quotes:
                at = self._after_string(line, at)
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                return
            at = token.end()
            if token[0] in ("'''", '"""'):
                self.quotes = token[0]
            elif token[0] == "\\":
                self.is_continued = True
            elif token[0] in "[({":
                self.depth += 1
            elif token[0] in "])}":
                self.depth -= 1

    def _after_string(self, line: str, at: int) -> int:
        end = re.compile(rf"(?:\\.|(?!{self.quotes}|\\).)*{self.quotes}").match(line, at)
        if end is None:
            return len(line)
        self.quotes = ""
        return end.end()
