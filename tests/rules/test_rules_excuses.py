"""What excuses dropout that stays on in evaluation: the marker fully, and what prose says of dropout as information."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.diagnostics import Severity
from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic import always_on
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch.nn.functional as F\nfrom torch import nn\n"
CLASS = HEAD + 'class Net(nn.Module):\n    """{}"""\n    def forward(self, x):\n        return F.dropout(x, 0.5)\n'
ABOVE = HEAD + "class Net(nn.Module):\n    def forward(self, x):\n        {}\n        return F.dropout(x, 0.5)\n"
BESIDE = HEAD + "class Net(nn.Module):\n    def forward(self, x):\n        return F.dropout(x, 0.5)  # {}\n"
NO_EXCUSES = [
    (CLASS, "Layer normalization is always applied before attention."),
    (CLASS, "Layer normalization is always applied before dropout."),
    (CLASS, "Policy trained by Monte Carlo returns."),
    (CLASS, "Channels-last by design. Has dropout."),
    (CLASS, "Biases are always enabled."),
    (CLASS, "Dropout must not be left on in eval on purpose or otherwise."),
    (CLASS, "Dropout is off in evaluation by design."),
    (CLASS, "# dropkit: always-on"),
    (ABOVE, "x = self.norm(x)  # shapes fixed by design"),
    (ABOVE, "x = F.dropout(x, 0.0)  # dropout is always on"),
    (ABOVE, "# The norm is always on."),
    (ABOVE, 'log("# dropout is always on")'),
    (ABOVE, 'log("# dropkit: always-on")'),
    (ABOVE, "# FIXME.\n        # Dropout is always on."),
    (BESIDE, "dropout is not always on"),
    (BESIDE, "dropout isn't always on"),
    (BESIDE, "never intentional"),
    (BESIDE, "FIXME drops even during inference"),
    (BESIDE, "FIXME dropout even during inference"),
    (BESIDE, "TODO: bug, dropout also in eval?"),
    (BESIDE, "dropout is always on. Is that wrong?"),
]
INTENT = [
    (CLASS, "A head for Monte Carlo dropout."),
    (CLASS, "Not a baseline. Its dropout is always\n    on, as in the paper."),
    (CLASS, "Applies dropout even at inference."),
    (ABOVE, "# always applies dropout"),
    (ABOVE, "# Dropout stays on in evaluation:\n        # see the paper."),
    (BESIDE, "dropout by design"),
    (BESIDE, "dropout also in eval, on purpose"),
    (BESIDE, "MC dropout"),
]
EXCUSES = [
    (ABOVE, "# dropkit: always-on"),
    (ABOVE, "# As in the paper.\n        # dropkit: always-on"),
    (BESIDE, "dropkit: always-on"),
]


def found(source):
    return [
        (one.code, one.severity, one.fix is None) for one in check(read("example.py", Text(source.encode())), RULES)
    ]


@pytest.mark.parametrize(("source", "words"), NO_EXCUSES)
def test_words_about_something_else_excuse_nothing(source, words):
    """Sentences with a denial, mentions of mistakes, and strings that look like comments do not count either."""
    assert found(source.replace("{}", words))[-1] == ("DRP101", Severity.ERROR, False)


@pytest.mark.parametrize(("source", "words"), INTENT)
def test_a_sentence_on_dropout_that_stays_on_makes_it_information(source, words):
    assert found(source.replace("{}", words)) == [("DRP101", Severity.INFO, True)]


@pytest.mark.parametrize(("source", "words"), EXCUSES)
def test_a_marker_excuses_its_line(source, words):
    assert found(source.replace("{}", words)) == []


def test_a_comment_is_read_once_however_many_calls_stand_beside_it(monkeypatch):
    read_before = []
    states_intent = always_on._states_intent
    monkeypatch.setattr(always_on, "_states_intent", lambda prose: read_before.append(prose) or states_intent(prose))

    calls = found(BESIDE.replace("return", "x = F.dropout(x, 0.5); " * 50 + "return").replace("{}", "always " * 50))

    assert [one[0] for one in calls].count("DRP101") == 51
    assert sum(prose.startswith(" always") for prose in read_before) == 1
