"""The two sides of each row of the tables in docs/coming-from.md run, and where no difference is named do the same."""

import os
import re
from pathlib import Path

import numpy
import pytest
import torch

import dropkit

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
X = torch.ones(1024, 8, 64)
MAPS = torch.ones(1024, 64, 4, 4)


def rows():
    """The cells of each row of a table: what is there, what is here, what differs."""
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        library = section.partition("\n")[0]
        for there, here, differs in re.findall(r"^\| `(.*)` \| `(.*)` \|(.*)\|$", section, re.MULTILINE):
            yield pytest.param(library, there, here, differs.strip(), id=there)


@pytest.fixture
def names(request, library):
    """What the expressions of a section are evaluated with."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3))
    samples = torch.randn(20, 8, 3).softmax(-1)
    names = {"dropkit": dropkit, "nn": torch.nn, "F": torch.nn.functional, "x": X, "training": True}
    names |= {
        "q": torch.randn(256, 4, 16, 8),
        "model": model,
        "x2": torch.randn(8, 4),
        "r": dropkit.mc.from_samples(samples),
    }
    if library in ("timm", "baal"):
        request.getfixturevalue("torchvision")  # which they import
    if library == "timm":
        names["timm"] = pytest.importorskip("timm")
    if library == "Keras":
        os.environ.setdefault("KERAS_BACKEND", "torch")
        names["keras"] = pytest.importorskip("keras")
        names["keras"].utils.set_random_seed(0)
    if library == "baal":
        names["heuristics"] = pytest.importorskip("baal.active.heuristics")
        from baal.bayesian.dropout import MCDropoutModule
        from baal.modelwrapper import mc_inference

        names |= {"MCDropoutModule": MCDropoutModule, "mc_inference": mc_inference}
        names["samples"] = samples.permute(1, 2, 0).numpy()
    return names


def evaluate(expression, names):
    """What an expression gives; a layer is called in training mode."""
    result = eval(expression, dict(names))
    if not callable(result):
        return result
    input = MAPS if re.search("2[dD]", expression) else X
    if type(result).__module__.startswith("keras"):
        return result(input, training=True)
    return result.train()(input)


def numbers(value):
    """Numbers of any library, as a tensor of torch."""
    return torch.as_tensor(numpy.array(value.detach() if isinstance(value, torch.Tensor) else value)).double()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("library", "there", "here", "differs"), [*rows()])
def test_both_sides_of_a_row_do_the_same(library, there, here, differs, names):
    """Numbers are equal; random ones have equal means, deviations and fractions of zeros."""
    theirs, ours = evaluate(there, names), evaluate(here, names)

    if not differs:
        theirs, ours = numbers(theirs), numbers(ours)
        assert theirs.shape == ours.shape
        if ours.numel() > 1000:
            for statistic in (lambda values: values, torch.square, lambda values: (values == 0).double()):
                # Of each sample, which are independent of each other.
                first, second = (statistic(values).flatten(1).mean(1) for values in (theirs, ours))
                bound = 5 * ((first.var() + second.var()) / len(ours)).sqrt().item()
                assert first.mean().item() == pytest.approx(second.mean().item(), abs=bound + 1e-6)
        else:
            assert torch.allclose(theirs, ours, atol=1e-6)
