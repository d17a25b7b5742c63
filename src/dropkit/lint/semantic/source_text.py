"""The text of a file: decoded as Python does, edited, and encoded again in the same way.

Positions of `ast` are UTF-8 bytes of the decoded text (PEP 263 says which decoding); lines end at line feeds, carriage
returns and the two together, and at nothing else: a form feed is white space.
"""

from __future__ import annotations

import ast
import codecs
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property

from dropkit.diagnostics import Edit, Span

_LINE = re.compile(rb"\r\n|\r|\n")


class Undecodable(ValueError):
    """The bytes are not text in the encoding that the file names."""


class Text:
    """Decoded text of one file, as UTF-8 bytes without byte order mark."""

    def __init__(self, utf8: bytes, encoding: str = "utf-8", bom: bool = False) -> None:
        self.utf8 = utf8
        self.encoding = encoding
        self.bom = bom

    @classmethod
    def decode(cls, data: bytes) -> Text:
        """Read `data` by its byte order mark or its coding comment.

        Raises:
            Undecodable: no such encoding, or the bytes are not in it.
        """
        bom = data.startswith(codecs.BOM_UTF8)
        try:
            # In lines that end as Python's do, at a lone carriage return too: `readline` of a file knows no such.
            lines = (line + b"\n" for line in _LINE.split(data, maxsplit=2)[:2])
            encoding, _ = tokenize.detect_encoding(lines.__next__)
            body = data[3:] if bom else data
            name = "utf-8" if encoding == "utf-8-sig" else encoding
            utf8 = body.decode(name).encode()
        except (SyntaxError, ValueError, LookupError, ArithmeticError) as error:
            # Some codecs that a comment can name raise other errors than they should.
            raise Undecodable(str(error)) from error
        return cls(utf8, name, bom)

    def encode(self) -> bytes:
        """The bytes of the file.

        Raises:
            Undecodable: an edit inserts a character that the file's encoding lacks.
        """
        try:
            body = self.utf8 if self.encoding == "utf-8" else self.utf8.decode().encode(self.encoding)
        except UnicodeError as error:
            raise Undecodable(str(error)) from error
        return (codecs.BOM_UTF8 if self.bom else b"") + body

    def parse(self) -> ast.Module:
        """Parse with the grammar of the running Python.

        Raises:
            SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
        """
        # Not the bytes: Python would decode them by the coding comment, which is about the original.
        return ast.parse(self.utf8.decode())

    @cached_property
    def starts(self) -> list[int]:
        """Where each line begins, in bytes."""
        return [0, *(match.end() for match in _LINE.finditer(self.utf8))]

    def offset(self, line: int, column: int) -> int:
        """The byte of `ast`'s line (from 1) and column (bytes, from 0)."""
        return self.starts[line - 1] + column

    def start(self, node: ast.AST) -> int:
        """The byte where `node` begins."""
        return self.offset(getattr(node, "lineno", 1), getattr(node, "col_offset", 0))

    def end(self, node: ast.AST) -> int:
        """The byte after `node`."""
        return self.offset(getattr(node, "end_lineno", 1), getattr(node, "end_col_offset", 0))

    def of(self, node: ast.AST) -> str:
        """The source of `node`."""
        return self.utf8[self.start(node) : self.end(node)].decode()

    def line(self, number: int) -> str:
        """Line `number` from 1, without its end; nothing where the text has fewer lines."""
        if not 0 < number <= len(self.starts):
            return ""
        begin = self.starts[number - 1]
        end = self.starts[number] if number < len(self.starts) else len(self.utf8)
        return self.utf8[begin:end].decode(errors="replace").rstrip("\r\n")

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a byte, both from 1, the column in characters."""
        line = bisect_right(self.starts, offset)
        return line, len(self.utf8[self.starts[line - 1] : offset].decode(errors="replace")) + 1

    def head(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.expr:
        """The `def name` of a definition as a node: the place of a finding about the whole definition."""
        name = re.compile(rb"\s" + re.escape(node.name.encode()) + rb"\b").search(self.utf8, self.start(node))
        end = name.end() if name is not None else self.start(node) + len("def")
        line = bisect_right(self.starts, end)
        return ast.Name(
            node.name,
            lineno=node.lineno,
            col_offset=node.col_offset,
            end_lineno=line,
            end_col_offset=end - self.starts[line - 1],
        )

    def span(self, node: ast.AST) -> Span:
        """The range of `node`."""
        return Span(*self.position(self.start(node)), *self.position(self.end(node)))

    def edited(self, edits: Iterable[Edit]) -> Text:
        """The text after `edits`, which must not overlap."""
        parts: list[bytes] = []
        at = 0
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
            parts += [self.utf8[at : edit.start], edit.text.encode()]
            at = edit.end
        return Text(b"".join([*parts, self.utf8[at:]]), self.encoding, self.bom)
