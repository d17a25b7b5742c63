"""`dropkit mc`: one of several outputs, tasks, names of classes, and the document that holds everything."""

import json

import numpy
import pytest
import torch
from helpers.mc_command import X, Y, output, program, records, refusal

from dropkit import mc

MODELS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from net import net, x, y


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


class Named(Dataset):
    classes = ["cat", "dog", "emu"]
    def __len__(self): return 12
    def __getitem__(self, index): return x[index], int(y[index])


def mapping(): return Returns(lambda y: {"features": y * 0, "scores": y})
def items(): return Returns(lambda y: (y * 0, y))
def data(): return Named()
def loader(): return DataLoader(Subset(Named(), range(12)), batch_size=5)
def mappings(): return DataLoader([{"input": a, "labels": b} for a, b in zip(x, y)], batch_size=5)
def noisy(): return nn.Sequential(net(2))
class Configured(nn.Sequential):
    class config:
        id2label = {0: "cat", 1: "dog", 2: "emu"}
def configured(): return Configured(net())
class WithLabels(Returns):
    def forward(self, input, labels): return super().forward(input)
def with_labels(): return WithLabels(lambda y: y)
"""
NAMES = "net.py:net", "--data", "net.py:pair", "--classes"


@pytest.fixture(autouse=True)
def _models(folder):
    (folder / "models.py").write_text(MODELS)


def means(*words):
    return [line["mean"] for line in records(*words)]


@pytest.mark.parametrize("words", ["mapping --output scores", "items --output 1", "items --output -1"])
def test_one_of_several_outputs_is_chosen(words):
    """By its key or its index."""
    model, *options = words.split()

    chosen = means(f"models.py:{model}", "--data", "net.py:inputs", *options)

    assert numpy.allclose(chosen, means("net.py:net", "--data", "net.py:inputs"), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mapping", "choose one by --output: features, scores"),
        (
            "mapping --output logits",
            "output must name what the model returns, got 'logits' for a dict with features, s",
        ),
        ("items --output 2", "output must name what the model returns, got 2 for a tuple with 2 items"),
    ],
)
def test_an_error_names_the_outputs(words, message):
    """Those that there are, and the option."""
    model, *options = words.split()

    line = refusal(f"models.py:{model}", "--data", "net.py:inputs", *options)

    assert message in line
    assert "--output" in line


def test_a_note_names_the_option():
    """Where the first of several outputs was taken."""
    assert "--output 1 takes the second" in output("models.py:items", "--data", "net.py:inputs")


def test_labels_of_which_several_are_true(folder):
    """Each has a probability of its own; floats of 0 and 1 are labels, too."""
    words = "net.py:net", "--task", "multilabel"
    torch.save((X, (X > 0)[:, :3].float()), folder / "floats.pt")

    lines = records(*words, "--data", "floats.pt")

    assert lines[0]["truth"] == [0, 0, 0]
    expected = mc.predict(program()["net"](), X, task="multilabel", seed=0)
    assert [line["mean"] for line in lines] == expected.mean.tolist()
    assert output(*words, "--data", "floats.pt") == output(*words, "--data", "net.py:label_sets")
    assert "labels must be 0 or 1 for each label" in refusal(*words, "--data", "net.py:values_of_two")


def test_noise_that_the_model_predicts_needs_no_tau():
    """Mean and log variance in one output."""
    words = "models.py:noisy", "--data", "net.py:values", "--task", "regression", "--outputs", "mean_log_variance"

    out = output(*words)

    assert "aleatoric standard deviation" in out.replace("\n", " ") or "aleatoric variance" in out
    assert "tau was fitted" not in out


def test_labels_in_mappings_are_the_truth():
    """As loaders of tokenized texts yield them; a model that takes them gets them, too."""
    for model in ("models.py:with_labels", "net.py:net"):
        lines = records(model, "--data", "models.py:mappings")

        assert [line["truth"] for line in lines] == Y.tolist()


@pytest.mark.parametrize("names", ["cat,dog,emu", "names.txt", "names.json", "numbered.json"])
def test_classes_have_names(folder, names):
    """Given one by one or in a file, they stand in the table and on the page instead of numbers."""
    (folder / "names.txt").write_text("cat\ndog\nemu\n")
    (folder / "names.json").write_text('["cat", "dog", "emu"]')
    (folder / "numbered.json").write_text('{"0": "cat", "1": "dog", "2": "emu"}')

    out = output(*NAMES, names, "--html", "page.html")

    assert " emu / emu " in out
    assert '<td class="word">cat</td>' in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    "words", ["net:net models:data", "net:net models:loader", "models:configured net:pair", "net:net named.npz"]
)
def test_names_come_from_the_data_or_the_model(folder, words):
    """The `classes` of a data set, of that of a loader or of a file, or the `id2label` of a configuration."""
    numpy.savez(folder / "named.npz", x=X.numpy(), y=Y.numpy(), classes=numpy.array(["cat", "dog", "emu"]))
    model, data = words.replace(":", ".py:").split()

    assert " emu / emu " in output(model, "--data", data)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat,dog", "--classes must be 3 names, got 2"),
        ("none.txt", "file not found: none.txt"),
        ("net.json", "net.json must hold a list of names"),
        ("bad.json", "bad.json could not be read"),
    ],
)
def test_names_that_do_not_fit_are_refused(folder, names, message):
    """There must be one for each class."""
    (folder / "net.json").write_text('{"a": 1}')
    (folder / "bad.json").write_text("{")

    assert message in refusal(*NAMES, names)


def test_the_document_holds_everything(folder):
    """Options, warnings, notes, every measure, the plain pass, the report and the table by class."""
    printed = output("net.py:net", "--data", "net.py:pair", "--classes", "a,b,c", "--json", "-")

    found = json.loads(printed, parse_constant=pytest.fail)

    expected = mc.predict(program()["net"](), X, labels=Y, seed=0)
    assert found["prediction"] == json.loads(json.dumps(expected.to_dict()))
    assert found["report"] == json.loads(json.dumps(expected.report(Y).to_dict()))
    assert (found["label"], found["truth"]) == (expected.label.tolist(), Y.tolist())
    assert found["classes"] == ["a", "b", "c"]
    assert found["warnings"][0].startswith("no --weights")
    assert found["options"]["samples"] == 50
    assert [row["class"] for row in found["per_class"]] == ["a", "b", "c"]
    assert "cannot both write" in refusal(*NAMES, "a,b,c", "--json", "-", "--jsonl", "-")
