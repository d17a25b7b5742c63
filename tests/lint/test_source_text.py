"""The text of a file: decoded as Python would, edited in place and encoded again as it was."""

import ast
import codecs

import pytest
from helpers.sources import ENDS, SOURCES, call, index, placed
from hypothesis import given

from dropkit.diagnostics import Edit
from dropkit.lint.semantic import edits
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.source_text import Text, Unreadable

ENCODINGS = {
    "utf-8": ("", "utf-8"),
    "utf-8 cookie": ("# -*- coding: utf-8 -*-\n", "utf-8"),
    "utf-8 with a mark": ("", "utf-8-sig"),
    "utf-8 with a mark and a cookie": ("# coding=utf-8\n", "utf-8-sig"),
    "latin-1": ("# -*- coding: latin-1 -*-\n", "latin-1"),
    "cp1252, in line two": ("#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\n", "cp1252"),
    "Japanese": ("# coding: euc-jp\n", "euc-jp"),
}


@pytest.mark.parametrize(("cookie", "encoding"), ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_file_is_written_as_it_was_read(cookie, encoding, end):
    """Byte order mark, encoding and line ends are unchanged by decoding and encoding."""
    letter = "あ" if encoding == "euc-jp" else "é"
    data = f"{cookie}x = '{letter}'\n\x0cy = f(x)\n".replace("\n", end).encode(encoding)

    text = Text.decode(data)

    assert text.encode() == data
    assert text.bom == data.startswith(codecs.BOM_UTF8)
    assert letter in text.utf8.decode()
    assert not text.utf8.startswith(codecs.BOM_UTF8)


@pytest.mark.parametrize(("cookie", "encoding"), ENCODINGS.values(), ids=ENCODINGS)
def test_a_decoded_file_parses_to_what_python_reads(cookie, encoding):
    """Strings have the values that Python reads from the bytes; positions are those of the decoded text."""
    letter = "あ" if encoding == "euc-jp" else "é"
    data = f"{cookie}x = '{letter}', f(1)\n".encode(encoding)
    space = {}
    exec(compile(data.replace(b"f(1)", b"1"), "example.py", "exec"), space)

    text = Text.decode(data)
    module = SourceFile("example.py", text, text.parse())

    assert module.tree.body[0].value.elts[0].value == space["x"][0] == letter
    assert text.of(call(module)) == "f(1)"


@pytest.mark.parametrize(
    "data",
    [b"# coding: no-such\n", b"x = '\xe9'\n", codecs.BOM_UTF8 + b"# coding: latin-1\n", b"# coding: ascii\n'\xe9'\n",
     b"# coding: rot13\nk\n"],
)  # fmt: skip
def test_undecodable_bytes_are_rejected(data):
    """An unknown encoding, a wrong one, and two that disagree raise the same error."""
    with pytest.raises(Unreadable):
        Text.decode(data)


def test_an_edit_with_a_character_that_the_encoding_lacks_is_rejected():
    """A character that latin-1 lacks cannot be written to a latin-1 file."""
    text = Text.decode(b"# coding: latin-1\nx = 1\n").edited([Edit(18, 19, "变")])

    with pytest.raises(UnicodeError):
        text.encode()


@given(SOURCES)
def test_the_source_of_a_node_is_pythons(source):
    """`Text.of` says what `ast.get_source_segment` says, for every node and every end of line."""
    module = index(source)

    for node in placed(module):
        assert module.text.of(node) == ast.get_source_segment(source, node)


@given(SOURCES)
def test_spans_count_characters(source):
    """The source between the lines and columns of a span, counted in the decoded text, is that of the node."""
    module = index(source)
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    for node in placed(module):
        span = module.text.span(node)
        cut = lines[span.line - 1 : span.end_line]
        cut[-1] = cut[-1][: span.end_column - 1]
        cut[0] = cut[0][span.column - 1 :]
        assert "\n".join(cut) == module.text.of(node).replace("\r\n", "\n").replace("\r", "\n")


@given(SOURCES)
def test_positions_and_offsets_are_inverse(source):
    """The line of `position` is ast's, and every line begins where the one before it ended."""
    text = index(source).text

    for node in placed(index(source)):
        assert text.position(text.start(node))[0] == node.lineno
    assert [text.position(start) for start in text.starts] == [(n + 1, 1) for n in range(len(text.starts))]
    assert "".join(text.line(n + 1) for n in range(len(text.starts))) == source.replace("\r", "").replace("\n", "")


@given(SOURCES)
def test_replacing_every_call_by_itself_changes_nothing(source):
    """An edit that inserts the replaced text changes no byte."""
    module = index(source)
    outer = [one for calls in module.calls.values() for one in calls if isinstance(module.parent(one), ast.Expr)]

    replaced = [edits.replace(module, one, module.text.of(one)) for one in outer]

    assert module.text.edited(replaced).utf8 == source.encode()
