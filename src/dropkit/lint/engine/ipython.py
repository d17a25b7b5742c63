"""Replace what only IPython understands in a cell (`%magic`, `!command`, `name?`) by Python of the same length.

Source: ipython.readthedocs.io, "Python vs IPython". Only the beginning of a statement is looked at: inside brackets,
strings and continued lines a percent sign is an operator, or text.
"""

from __future__ import annotations

import re

# Magics whose cell is Python, run here or elsewhere; that of any other is in another language, or text.
_PYTHON = frozenset({"capture", "debug", "ipytest", "memit", "prun", "pypy", "python", "python3", "time", "timeit"})
_CELL = re.compile(r"\s*%%(\w*)")
# %magic and !command; ,f x and ;f x and /f x, which call; ?name. No statement begins like this.
_LINE = re.compile(r"[%!?,;/]")
_ASSIGNED = re.compile(r"[\w.,\[\]\"'()* \t]+=\s*(?=[%!])")
_HELP = re.compile(r"(?:[\w.,\[\]\"'()* \t]+=\s*)?[\w.*\[\]\"']+\?{1,2}\s*$")
# Commands that IPython takes without a sign, with what begins their arguments: no Python is written like this.
_BARE = re.compile(
    r"(?:pip3?|conda|mamba|uv) +(?:install|uninstall|list|show|freeze|pip|add|update|create)\b|cd +[\w./~]"
)
# What changes whether a line end ends a statement: strings, comments, brackets, a backslash at the end of the line.
_TOKEN = re.compile(r"#.*|\\$|[\[({]|[\])}]|'''|\"\"\"|'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?")


def without_magic(source: str) -> str:
    """Return `source` without IPython syntax, with the same lines and the same number of bytes in each."""
    cell = _CELL.match(source)
    lines = re.split(r"(\r\n|\r|\n)", source)
    if cell is not None and cell[1] not in _PYTHON:
        lines[::2] = map(_comment, lines[::2])
        return "".join(lines)
    inside = _Inside()
    continued = False
    for index in range(0, len(lines), 2):
        line = lines[index]
        if continued:
            lines[index] = _comment(line)
        elif inside.nothing and (magic := _magic(line)) is not None:
            lines[index] = magic
        else:
            inside.read(line)
            continue
        continued = line.endswith("\\")
    return "".join(lines)


def _magic(line: str) -> str | None:
    """The line without its magic; None where it has none."""
    statement = line.lstrip(" \t")
    indent = line[: len(line) - len(statement)]
    if _LINE.match(statement) or _HELP.match(statement) or _BARE.match(statement):
        # An expression in its place keeps a block that holds nothing else.
        return indent + _filled("0", statement)
    assigned = _ASSIGNED.match(statement)
    if assigned is None:
        return None
    # A name of which nothing is known: what a command returns is no number.
    return indent + assigned[0] + _filled("_", statement[assigned.end() :])


def _comment(line: str) -> str:
    return _filled("", line)


def _filled(code: str, line: str) -> str:
    return code + "#" * (len(line.encode(errors="surrogatepass")) - len(code))


class _Inside:
    """What a line begins in: a string in three quotes, brackets, a line that a backslash continued, or nothing."""

    def __init__(self) -> None:
        self.quotes = ""
        self.depth = 0
        self.continued = False

    @property
    def nothing(self) -> bool:
        return not self.quotes and self.depth <= 0 and not self.continued

    def read(self, line: str) -> None:
        """Go on to the end of a line."""
        at = 0
        self.continued = False
        while at < len(line):
            if self.quotes:
                at = self._behind_string(line, at)
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                return
            at = token.end()
            if token[0] in ("'''", '"""'):
                self.quotes = token[0]
            elif token[0] == "\\":
                self.continued = True
            elif token[0] in "[({":
                self.depth += 1
            elif token[0] in "])}":
                self.depth -= 1

    def _behind_string(self, line: str, at: int) -> int:
        end = re.compile(rf"(?:\\.|(?!{self.quotes}|\\).)*{self.quotes}").match(line, at)
        if end is None:
            return len(line)
        self.quotes = ""
        return end.end()
