"""Which files are parsed for the facts that a finding asks for: those that may state one, and few others."""

import pytest

from dropkit.lint.engine.fact_search import FactSearch

CALL = "evaluates:metrics.score"

# Fact, path and text of files that state it.
STATES = {
    "a call": (CALL, "run.py", "from metrics import score\nscore(model)"),
    "a call by the module": (CALL, "run.py", "import metrics\nmetrics.score (model)"),
    "a call by another name": (CALL, "run.py", "from metrics import score as measure\nmeasure(model)"),
    "an import by a package": (CALL, "tools/__init__.py", "from .metrics import score"),
    "a call of a method": ("guards:Solver.test", "run.py", "solver = Solver(model)\nsolver.test()"),
    "a call on any object": ("evaluates:*.test", "run.py", "self.solver.test()"),
    "a model that an object gets": ("models:Solver", "run.py", "Solver(model)"),
    "a rate that a call passes": ("passes:layers.make:dropout", "net.py", "from layers import make\nmake(dropout=0.1)"),
    "the function that ignores a rate": ("gets:layers.make:dropout", "layers.py", ""),
    "the function that ignores a rate, in capitals": ("gets:Layers.make:dropout", "Layers.py", ""),
    "a rate that is read": ("reads:attn_drop", "net.py", "nn.Dropout(config.attn_drop)"),
    "all settings at once": ("unpacks:Config", "net.py", "Net(**asdict(config))"),
    "a class": ("has-mode:Net", "net.py", "class Net(nn.Module): ..."),
    "a function's file": ("switches:metrics.score", "metrics.py", ""),
    "a package's file": ("has-mode:nets.*", "nets/small.py", ""),
}

# Files with the same words that state nothing.
OTHERS = {
    "another function": (CALL, "run.py", "from metrics import rescore\nrescore(model)"),
    "its definition": (CALL, "metrics.py", "def score(model): ...  # for metrics"),
    "another module": (CALL, "run.py", "from my_metrics import score\nscore(model)"),
    "no call": (CALL, "run.py", "from metrics import other\nscore = other(model)"),
    "one of several facts, each searched for itself": (
        f"{CALL}|tools.score",
        "run.py",
        "from metrics import score\nscore(x)",
    ),
    "another class": ("has-mode:Net", "net.py", "class ANet(nn.Module): ..."),
}


@pytest.mark.parametrize(("fact", "path", "text"), STATES.values(), ids=STATES)
def test_a_file_that_states_a_fact_is_found(fact, path, text):
    """By the words around its name, or by the name of the file."""
    assert FactSearch((), {fact}).may_state(path, text.encode())


@pytest.mark.parametrize(("fact", "path", "text"), OTHERS.values(), ids=OTHERS)
def test_a_file_that_only_has_the_words_is_not_parsed(fact, path, text):
    """To parse it would take a thousand times longer than to search it."""
    assert not FactSearch((), {fact}).may_state(path, text.encode())


@pytest.mark.parametrize("count", [1, 100], ids=["searched", "split into words"])
def test_a_file_that_names_a_class_is_found(count):
    """However many classes are looked for."""
    wanted = FactSearch((f"Class{number}" for number in range(count)), set())

    assert wanted.may_name(b"from net import Class0")
    assert not wanted.may_name(b"from net import Other")
