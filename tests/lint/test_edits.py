"""Edits that keep the form of a file: arguments added, dropped and renamed, statements deleted and inserted."""

import ast

import pytest
from helpers.sources import ENDS, SOURCES, call, index
from hypothesis import given
from hypothesis import strategies as st

from dropkit.lint.semantic import edits
from dropkit.lint.semantic.source_text import Unreadable

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
    """The other arguments keep their formatting; None if a comment or a bracket is in between."""
    try:
        module = index(source.replace("DROP", argument))
    except Unreadable:
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
    """A statement that shares its line, or is alone in its block, is not deleted."""
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
