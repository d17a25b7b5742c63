"""The text of a file, what its names stand for, which conditions hold in it, and edits that keep its form."""

import ast
import codecs
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropkit.diagnostics import Edit
from dropkit.lint.semantic import edits, training_flag
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.source_text import Text, Undecodable

ENCODINGS = {
    "utf-8": ("", "utf-8"),
    "utf-8 cookie": ("# -*- coding: utf-8 -*-\n", "utf-8"),
    "utf-8 with a mark": ("", "utf-8-sig"),
    "utf-8 with a mark and a cookie": ("# coding=utf-8\n", "utf-8-sig"),
    "latin-1": ("# -*- coding: latin-1 -*-\n", "latin-1"),
    "cp1252, in line two": ("#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\n", "cp1252"),
    "Japanese": ("# coding: euc-jp\n", "euc-jp"),
}
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


# Text


@pytest.mark.parametrize(("cookie", "encoding"), ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_file_is_written_as_it_was_read(cookie, encoding, end):
    """Mark, coding and ends of lines outlive decoding and encoding."""
    letter = "あ" if encoding == "euc-jp" else "é"
    data = f"{cookie}x = '{letter}'\n\x0cy = f(x)\n".replace("\n", end).encode(encoding)

    text = Text.decode(data)

    assert text.encode() == data
    assert text.bom == data.startswith(codecs.BOM_UTF8)
    assert letter in text.utf8.decode()
    assert not text.utf8.startswith(codecs.BOM_UTF8)


@pytest.mark.parametrize(("cookie", "encoding"), ENCODINGS.values(), ids=ENCODINGS)
def test_a_decoded_file_parses_to_what_python_reads(cookie, encoding):
    """Values of strings are those that Python finds in the bytes, and places those of the decoded text."""
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
def test_bytes_that_are_no_text_are_refused(data):
    """One error for an unknown coding, a wrong one, and two that disagree."""
    with pytest.raises(Undecodable):
        Text.decode(data)


def test_an_edit_that_the_coding_lacks_is_refused():
    """A character that latin-1 has not cannot be written to a latin-1 file."""
    text = Text.decode(b"# coding: latin-1\nx = 1\n").edited([Edit(18, 19, "变")])

    with pytest.raises(Undecodable):
        text.encode()


@given(SOURCES)
def test_the_source_of_a_node_is_pythons(source):
    """`Text.of` says what `ast.get_source_segment` says, for every node and every end of line."""
    module = index(source)

    for node in placed(module):
        assert module.text.of(node) == ast.get_source_segment(source, node)


@given(SOURCES)
def test_spans_count_characters(source):
    """From one span's lines and columns, counted by hand in the decoded text, comes the node's source."""
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
    """An edit with the text that is there leaves every byte."""
    module = index(source)
    outer = [one for calls in module.calls.values() for one in calls if isinstance(module.parent(one), ast.Expr)]

    replaced = [edits.replace(module, one, module.text.of(one)) for one in outer]

    assert module.text.edited(replaced).utf8 == source.encode()


# Names

IMPORTS = {
    "import torch": "torch.nn.functional.dropout",
    "import torch as t": "t.nn.functional.dropout",
    "import torch.nn": "torch.nn.functional.dropout",
    "import torch.nn as nn": "nn.functional.dropout",
    "from torch import nn": "nn.functional.dropout",
    "import torch.nn.functional as F": "F.dropout",
    "from torch.nn import functional as F": "F.dropout",
    "from torch.nn import functional": "functional.dropout",
    "from torch.nn.functional import dropout": "dropout",
    "from torch.nn.functional import dropout as drop": "drop",
    "from torch.nn.functional import *": "dropout",
    "from torch import *": "nn.functional.dropout",
    "from .common import *": "F.dropout",
    "try:\n    import torch.nn.functional as F\nexcept ImportError:\n    import chainer.functional as F": "F.dropout",
    "try:\n    import fast.functional as F\nexcept ImportError:\n    import torch.nn.functional as F": "F.dropout",
    "import dropkit.functional as F": "F.dropout",
    "import torch.nn.functional\nF = torch.nn.functional": "F.dropout",
    "import torch.nn.functional as F\nclass A:\n    F = 3": "F.dropout",
    "import torch.nn.functional as F\ndef other(F):\n    F = 3": "F.dropout",
}


@pytest.mark.parametrize(("imports", "name"), IMPORTS.items(), ids=repr)
@pytest.mark.parametrize("within", ["{}({})", "def f(x):\n    {}(x)", "class B:\n    def f(self):\n        {}(self.x)"])
def test_imported_names_are_known_by_one_dotted_name(imports, name, within):
    """However a function is imported, and wherever it is called."""
    module = index(f"{imports}\n{within.format(name, 'x')}\n")

    assert module.called(module.calls["dropout"][-1]) == "torch.nn.functional.dropout"
    assert module.calls_of("torch.nn.functional.dropout") == module.calls["dropout"][-1:]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import chainer.functional as F\nF.dropout(x)", "chainer.functional.dropout"),
        ("from chainer import functional as F\nF.dropout(x)", "chainer.functional.dropout"),
        ("from . import functional as F\nF.dropout(x)", ".functional.dropout"),
        ("from ..ops import dropout\ndropout(x)", "..ops.dropout"),
        ("F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f(F):\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f(x, *, F=None):\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    F = make()\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    for F in x:\n        F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    with x as F:\n        F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    def g():\n        F.dropout(x)\n    F = 3", None),
        ("def f():\n    import torch.nn.functional as F\ndef g():\n    F.dropout(x)", None),
        ("def f():\n    import torch.nn.functional as F\n    F.dropout(x)", "torch.nn.functional.dropout"),
        ("def f():\n    from torch.nn import functional as F\n    return lambda: F.dropout(x)",
         "torch.nn.functional.dropout"),
        ("import torch.nn.functional as F\nF().dropout(x)", None),
    ],
)  # fmt: skip
def test_a_name_that_is_bound_to_something_else_is_not_torchs(source, expected):
    """Other libraries, parameters, assignments and scopes decide what a name is."""
    module = index(source + "\n")

    assert module.called(call(module, "dropout")) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn.modules.dropout as d\nf(d.Dropout)", "torch.nn.Dropout"),
        ("from torch.nn.modules.dropout import Dropout\nf(Dropout)", "torch.nn.Dropout"),
        ("from dropkit.nn import Dropout\nf(Dropout)", "torch.nn.Dropout"),
        ("from torch import nn\nDrop = nn.Dropout\nf(Drop)", "torch.nn.Dropout"),
        ("import pytorch_lightning as pl\nf(pl.LightningModule)", "lightning.pytorch.LightningModule"),
        ("class Dropout:\n    pass\nf(Dropout)", "Dropout"),
    ],
)
def test_one_name_for_each_thing(source, expected):
    """Names under which torch, dropkit and Lightning have the same thing are one; a class of the file is its own."""
    module = index(source + "\n")

    assert module.dotted(call(module).args[0]) == expected


# Classes

FAMILY = """
import torch
from torch import nn
from torch.nn import Dropout
from elsewhere import Base

class Root(nn.Module):
    def forward(self, x):
        return self.layer(x)

class Left(Root):
    def __init__(self):
        self.layer = nn.Dropout()

class Right(Root):
    pass

class Leaf(Left, Right):
    def extra(self):
        self.layer = None

class Dropout(Dropout):
    pass

class Plain:
    pass

class Known(Base):
    def __init__(self):
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)

class Unknown(Base):
    def forward(self, x):
        return x

class Function(torch.autograd.Function):
    pass

class Data(torch.utils.data.Dataset):
    pass

class Ring(Other):
    pass

class Other(Ring):
    pass

def make():
    class Inner(Left):
        pass
    return Inner
"""


@pytest.fixture
def family():
    return {one.name: one for one in index(FAMILY).classes}


def test_a_class_knows_whom_it_inherits_from(family):
    """Itself, then its bases in this file, nearest first, each once; a ring of bases ends."""
    assert [one.name for one in family["Leaf"].mro] == ["Leaf", "Left", "Right", "Root"]
    assert [one.name for one in family["Inner"].mro] == ["Inner", "Left", "Root"]
    assert {one.name for one in family["Ring"].mro} == {"Ring", "Other"}


def test_a_class_knows_who_inherits_from_it(family):
    """Near and far, not itself."""
    assert {one.name for one in family["Root"].subclasses} == {"Left", "Right", "Leaf", "Inner"}
    assert family["Leaf"].subclasses == []


def test_what_bases_define_is_found(family):
    """Methods by the order of inheritance, values of an attribute from all of the mro."""
    leaf = family["Leaf"]

    assert leaf.method("forward").owner is family["Root"]
    assert leaf.method("absent") is None
    assert [ast.unparse(value) for value in leaf.values("layer")] == ["None", "nn.Dropout()"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Root", True), ("Leaf", True), ("Inner", True), ("Dropout", True), ("Known", True), ("Plain", False),
     ("Unknown", False), ("Function", False), ("Data", False), ("Ring", False)],
)  # fmt: skip
def test_modules_are_told_by_their_bases_or_by_what_they_hold(family, name, expected):
    """Through bases of the file; behind an unknown base, by a forward and layers. A class may be named as its base."""
    assert family[name].is_module is expected


def test_a_base_is_the_class_that_has_its_name_by_then():
    """Of two classes of one name, the one above."""
    module = index("from torch import nn\nclass A(nn.Module): pass\nclass B(A): pass\nclass A: pass\n")

    assert [one.is_module for one in module.classes] == [True, True, False]


# Conditions

# Whether the call of `f` stands under a condition on `a`, which is the training flag here.
CONDITIONS = {
    "f(x)": False,
    "if a:\n    f(x)": True,
    "if a:\n    pass\nelse:\n    f(x)": True,
    "if a:\n    pass\nelif b:\n    f(x)": True,
    "while a:\n    f(x)": True,
    "if f(x):\n    a": False,
    "y = f(x) if a else 0": True,
    "y = 0 if a else f(x)": True,
    "y = a and b and f(x)": True,
    "y = a or f(x)": True,
    "y = f(x) and a": False,
    "y = [f(i) for i in x if a]": True,
    "if a:\n    return x\nf(x)": True,
    "if a:\n    raise x\nf(x)": True,
    "if a:\n    return x\nelse:\n    y = 1\nf(x)": True,
    "if a:\n    y = 1\nelse:\n    return x\nf(x)": True,
    "if a:\n    y = 1\nf(x)": False,
    "assert a\nf(x)": True,
    "for i in x:\n    if a:\n        continue\n    f(i)": True,
    "if a:\n    return x\nwith b:\n    try:\n        f(x)\n    except c:\n        pass": True,
}


@pytest.mark.parametrize(("body", "expected"), CONDITIONS.items(), ids=CONDITIONS)
def test_conditions_on_the_way_are_found(body, expected):
    """Branches, conditionals and exits that came before, within the function and none outside of it."""
    lines = "".join(f"        {line}\n" for line in re.sub(r"\ba\b", "self.training", body).split("\n"))
    module = index(f"if self.training:\n    def g(self, x):\n{lines}")

    assert training_flag.under_mode(module, call(module)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if self.training:\n    f(x)", True),
        ("if not self.training:\n    return x\nf(x)", True),
        ("on = self.training and self.p > 0\nif on:\n    f(x)", True),
        ("if is_eval:\n    pass\nelse:\n    f(x)", True),
        ("y = f(x) if stage == TRAIN else x", True),
        ("if self.p > 0:\n    f(x)", False),
        ("if self.training:\n    y = 1\nf(x)", False),
        ("f(self.training)", False),
    ],
)
def test_a_guard_may_speak_of_the_mode(body, expected):
    """In its own words, or in those of a local name."""
    module = index("def g(self, x):\n" + "".join(f"    {line}\n" for line in body.split("\n")))

    assert training_flag.under_mode(module, call(module)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("f(self.training)", True),
        ("p = self.p if self.training else 0\nf(p)", True),
        ("p = 0\nif self.training:\n    p = self.p\nf(p)", True),
        ("p = self.p\nf(p)", False),
        ("f(self.train_dropout_rate)", False),
    ],
)
def test_a_value_may_follow_the_mode(body, expected):
    """By itself, or by the one assignment that it comes from."""
    module = index("def g(self, x):\n" + "".join(f"    {line}\n" for line in body.split("\n")))

    assert training_flag.follows_mode(module, call(module).args[0]) is expected


# Edits

ADDED = {
    "f(x)": "f(x, k=1)",
    "f(x, 0.5)": "f(x, 0.5, k=1)",
    "f(x, 0.5,)": "f(x, 0.5, k=1,)",
    "f()": "f(k=1)",
    "f( )": "f( k=1)",
    "f((x))": "f((x), k=1)",
    "f(((x) ))": "f(((x) ), k=1)",
    "f(x, p=(0.5))": "f(x, p=(0.5), k=1)",
    "f(*x)": "f(*x, k=1)",
    "f(x, **y)": "f(x, **y, k=1)",
    "f(g(x), h((y)))": "f(g(x), h((y)), k=1)",
    "f(x,  # why )\n  0.5,  # rate (\n)": "f(x,  # why )\n  0.5, k=1,  # rate (\n)",
    "f(\n  x\n  # last\n)": "f(\n  x, k=1\n  # last\n)",
    "f('é)', ö)": "f('é)', ö, k=1)",
    "f(x for x in y)": None,
    "f((x for x in y))": None,
    "f((x for x in y), 1)": "f((x for x in y), 1, k=1)",
}


@pytest.mark.parametrize(("source", "expected"), ADDED.items(), ids=ADDED)
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_an_argument_is_added_behind_the_last(source, expected, end):
    """Before a trailing comma and comments, behind brackets that are the argument's; nowhere after a generator."""
    module = index(source.replace("\n", end))

    made = edits.add_argument(module, call(module), "k=1")

    got = None if made is None else module.text.edited([made]).utf8.decode()
    assert got == (expected and expected.replace("\n", end))


DROPPED = {
    "f(DROP)": "f()",
    "f(DROP,)": "f()",
    "f(DROP, x)": "f(x)",
    "f(x, DROP)": "f(x)",
    "f(x, DROP,)": "f(x,)",
    "f(x, DROP, y)": "f(x, y)",
    "f((x), DROP)": "f((x))",
    "f(DROP, (x))": "f((x))",
    "f(x, (DROP))": "f(x)",
    "f(x, ((DROP) ), y)": None,
    "f(x,\n  DROP,\n  y)": "f(x,\n  y)",
    "f(x,  # why\n  DROP)": None,
    "f(DROP,  # why\n  y)": None,
    "f((DROP))": None,
    "f('é', DROP)": "f('é')",
}


@pytest.mark.parametrize(("source", "expected"), DROPPED.items(), ids=DROPPED)
@pytest.mark.parametrize("argument", ["True", "p=True"])
def test_an_argument_is_dropped_with_its_comma(source, expected, argument):
    """What is left is a call of the others, in their form; None where a comment or a bracket is in the way."""
    try:
        module = index(source.replace("DROP", argument))
    except SyntaxError:
        pytest.skip("a keyword stands last, and without brackets around it")
    given = call(module)
    node = next(one for one in (*given.args, *given.keywords) if argument in module.text.of(one))

    made = edits.drop_argument(module, given, node)

    assert (None if made is None else module.text.edited([made]).utf8.decode()) == expected


DELETED = {
    "a = 1\nDROP\nb = 2\n": "a = 1\nb = 2\n",
    "a = 1\nDROP  # why\nb = 2\n": "a = 1\nb = 2\n",
    "a = 1\nDROP": "a = 1\n",
    "if a:\n    DROP\n    b = 2\n": "if a:\n    b = 2\n",
    "if a:\n    DROP\n": None,
    "a = 1; DROP\n": None,
    "DROP; a = 1\n": None,
}


@pytest.mark.parametrize(("source", "expected"), DELETED.items(), ids=DELETED)
@pytest.mark.parametrize("statement", ["f(x)", "y = f(\n  x,\n)"])
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_statement_is_deleted_with_its_line(source, expected, statement, end):
    """Not one that shares its line, nor the only one of a block."""
    module = index(source.replace("DROP", statement).replace("\n", end))

    made = edits.delete_statement(module, module.statement(call(module)))

    got = None if made is None else module.text.edited([made]).utf8.decode()
    assert got == (expected and expected.replace("\n", end))


INSERTED = {
    "f(x)\n": "f(x)\nnew()\n",
    "f(x)": "f(x)\nnew()",
    "if a:\n\tf(x)  # é\nb = 2\n": "if a:\n\tf(x)  # é\n\tnew()\nb = 2\n",
    "if a:\n    f(\n  x)\n": "if a:\n    f(\n  x)\n    new()\n",
    "f(x); b = 2\n": None,
    "if a: f(x)\n": None,
}


@pytest.mark.parametrize(("source", "expected"), INSERTED.items(), ids=INSERTED)
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_line_is_inserted_as_deep_as_the_one_before(source, expected, end):
    """With the ends of lines of the file, behind a comment; not beside another statement."""
    if end not in source.replace("\n", end):
        pytest.skip("no line ends in this file")
    module = index(source.replace("\n", end))

    made = edits.insert_after(module, module.statement(call(module)), "new()")

    got = None if made is None else module.text.edited([made]).utf8.decode()
    assert got == (expected and expected.replace("\n", end))


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_line_is_inserted_before_a_statement(end):
    """As deep as the statement, with the ends of lines of the file; not behind another on its line."""
    module = index("if a:\n\tb = 2\n\tf(x)\nc = 3; g(x)\n".replace("\n", end))

    made = edits.insert_before(module, module.statement(call(module)), "new()")

    assert module.text.edited([made]).utf8.decode() == "if a:\n\tb = 2\n\tnew()\n\tf(x)\nc = 3; g(x)\n".replace(
        "\n", end
    )
    assert edits.insert_before(module, module.statement(call(module, "g")), "new()") is None


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("import torch", "torch.nn.ModuleList"),
        ("import torch\nfrom torch import nn", "nn.ModuleList"),
        ("from torch import nn as layers", "layers.ModuleList"),
        ("from torch.nn import ModuleList as Many", "Many"),
        ("import numpy", None),
        ("from torch import nn\nnn = 3", None),
    ],
)
def test_a_name_is_spelt_by_what_the_file_imports(imports, expected):
    """The shortest that the imports allow; None where nothing does."""
    assert edits.spell(index(imports + "\n"), "torch.nn.ModuleList") == expected


@given(SOURCES, st.integers(0, 30))
def test_an_added_argument_is_all_that_changes(source, pick):
    """The tree after the edit is the tree before it, with one keyword more."""
    module = index(source)
    calls = [one for calls in module.calls.values() for one in calls]
    for chosen in calls[pick % len(calls) :][:1] if calls else []:
        made = edits.add_argument(module, chosen, "training=on")
        assert made is not None
        after = module.text.edited([made]).parse()

        chosen.keywords.append(ast.keyword("training", ast.Name("on", ast.Load())))

        assert ast.dump(after) == ast.dump(module.tree)


def test_a_keyword_is_renamed():
    """The name alone, whatever stands between it and its value."""
    module = index("f(é, trainin = (x))")

    made = edits.rename_keyword(module, call(module).keywords[0], "training")

    assert module.text.edited([made]).utf8.decode() == "f(é, training = (x))"
