"""The text of a file: decoded as Python does, edited, and encoded again in the same way.

Positions of `ast` are UTF-8 bytes of the decoded text (PEP 263 says which decoding); lines end at line feeds, carriage
returns and the two together, and at nothing else: a form feed is white space.
"""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property

from dropkit.diagnostics import Edit, Span
from dropkit.lint.semantic.pattern import pattern

_LINE = pattern(rb"\r\n|\r|\n")


class Unreadable(ValueError):
    """A file that cannot be decoded or parsed; `reason` says why, `line` where, and the message both."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


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
            Unreadable: there is no such encoding, or the bytes are not in it.
        """
        bom = data.startswith(codecs.BOM_UTF8)
        try:
            # Python's lines also end at a lone carriage return; those of a file's `readline` do not.
            lines = (line + b"\n" for line in _LINE.split(data, maxsplit=2)[:2])
            encoding, _ = tokenize.detect_encoding(lines.__next__)
            body = data[3:] if bom else data
            name = "utf-8" if encoding == "utf-8-sig" else encoding
            utf8 = body.decode(name).encode()
        except (SyntaxError, ValueError, LookupError, ArithmeticError) as error:
            # Some codecs that a comment can name raise other errors than they should.
            raise Unreadable(str(error)) from error
        return cls(utf8, name, bom)

    def encode(self) -> bytes:
        """The bytes of the file.

        Raises:
            UnicodeError: an edit inserts a character that the file's encoding lacks.
        """
        body = self.utf8 if self.encoding == "utf-8" else self.utf8.decode().encode(self.encoding)
        return (codecs.BOM_UTF8 if self.bom else b"") + body

    def parse(self) -> ast.Module:
        """Parse with the grammar of the running Python.

        Raises:
            Unreadable: it is not Python of that grammar.
        """
        with warnings.catch_warnings():
            # Warnings of invalid escapes and the like are not for the user of the linter.
            warnings.simplefilter("ignore")
            try:
                # Not the bytes: Python would decode them by the coding comment, which is about the original.
                return ast.parse(self.utf8.decode())
            except SyntaxError as error:
                raise Unreadable(error.msg, error.lineno) from error
            except (ValueError, RecursionError, MemoryError) as error:
                raise Unreadable(str(error) or type(error).__name__) from error

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
        return self.node(self.start(node), name.end() if name is not None else self.start(node) + len("def"))

    def node(self, start: int, end: int) -> ast.expr:
        """A node that has the bytes from `start` to `end` as its source: the place of a finding about no other node."""
        first, last = bisect_right(self.starts, start), bisect_right(self.starts, end)
        begins = start - self.starts[first - 1], end - self.starts[last - 1]
        return ast.Name("", lineno=first, col_offset=begins[0], end_lineno=last, end_col_offset=begins[1])

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


def encode(source: str) -> bytes:
    """Encode source that an editor holds as its coding comment says; as UTF-8 if there is none, or if that fails."""
    utf8 = source.encode(errors="replace")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(utf8).readline)
        return utf8 if encoding in ("utf-8", "utf-8-sig") else source.encode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        return utf8
