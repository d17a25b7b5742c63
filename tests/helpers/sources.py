"""Python sources for tests of the semantic model: generated programs, and a program indexed."""

import ast

from hypothesis import strategies as st

from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.source_text import Text

ENDS = ("\n", "\r\n", "\r")

# Names and strings whose characters take one to four bytes; what str.splitlines would break at, Python does not.
ATOMS = st.sampled_from(
    [
        "x",
        "é",
        "变量",
        "self.p",
        "0.5",
        "'ö'",
        '"😀"',
        "'a\u2028b'",
        '"\x0c\x85"',
        '"""two\nlines é"""',
        "f(é, 1)",
        "(x)",
        "[]",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("drop({}, p={})".format, inner, inner),
        st.builds("({} +  {})".format, inner, inner),
        st.builds("f(  # é)\n  {},\n\x0c {})".format, inner, inner),
        st.builds("({} if é else {})".format, inner, inner),
    ),
    max_leaves=6,
)
STATEMENTS = st.one_of(
    st.builds("y = {}".format, EXPRESSIONS),
    st.builds("\x0cif {}:\n    变量 = {}  # é".format, EXPRESSIONS, EXPRESSIONS),
    st.builds("é = 1; {}".format, EXPRESSIONS),
)
SOURCES = st.builds(
    lambda statements, end: ("\n".join(statements) + "\n").replace("\n", end),
    st.lists(STATEMENTS, min_size=1, max_size=4),
    st.sampled_from(ENDS),
)


def index(source):
    text = Text(source.encode())
    return SourceFile("package/example.py", text, text.parse())


def call(module, name="f"):
    return module.calls[name][0]


def placed(module):
    return [node for node in ast.walk(module.tree) if isinstance(node, (ast.expr, ast.stmt, ast.keyword))]
