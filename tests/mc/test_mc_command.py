"""`dropkit mc`: models, weights, seeds, options and values."""

import re
import sys
from importlib import import_module

import numpy
import pytest
import torch
from helpers.mc_command import PROGRAM, X, output, program, records, refusal
from torch import nn

from dropkit import mc

EPS = torch.finfo(torch.float32).eps


def test_a_module_of_a_package_is_no_file(folder):
    """package.module:NAME names data as it names models."""
    (folder / "pkg").mkdir()
    (folder / "pkg" / "__init__.py").touch()
    (folder / "pkg" / "given.py").write_text(PROGRAM)

    assert len(records("pkg.given:net", "--data", "pkg.given:pair")) == 12


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_loaded_into_the_model(folder, wrapped):
    """A state dict, bare or as Lightning keeps it, changes what is predicted."""
    state = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)).state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"state_dict": zeros, "epoch": 3} if wrapped else zeros, folder / "zeros.pt")

    lines = records("net.py:net", "--data", "net.py:inputs", "--weights", "zeros.pt")

    assert lines[0]["mean"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_whole_module_is_loaded_only_with_trust(folder, monkeypatch, new):
    """Loading it runs code; its class is found in the current folder, as a script there would find it."""
    (folder / "whole_net.py").write_text("from torch import nn\nclass Net(nn.Sequential):\n    pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        module = import_module("whole_net").Net(nn.Linear(4, 3), nn.Dropout())
        torch.save(module, "w.pt", _use_new_zipfile_serialization=new)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    monkeypatch.delitem(sys.modules, "whole_net")

    assert refusal("w.pt", "--data", "net.py:inputs") == (
        "w.pt holds a whole module or other objects; loading it runs code in it: give --trust"
    )
    assert len(records("w.pt", "--trust", "--data", "net.py:inputs")) == 12


def test_equal_seeds_give_equal_bytes_and_others_do_not(folder):
    """The masks follow the seed, which may be any 64 bits."""

    def lines(seed):
        return output("net.py:net", "--data", "net.py:pair", "--seed", seed, "--jsonl", "-")

    assert lines(7) == lines(7)
    assert lines(7) != lines(8)
    assert lines(2**64 - 1) == lines(-1)


def test_the_batch_size_does_not_change_the_prediction(folder):
    """Masks depend on inputs and not on batches; matrix products may round differently."""
    single, whole = (records("net.py:net", "--data", "net.py:pair", "--batch-size", size) for size in (1, 12))

    assert [line["label"] for line in single] == [line["label"] for line in whole]
    for name in ("mean", "variance"):
        # Logits are sums of 16 products up to 64 in size, so are their errors; softmax is at most that sensitive.
        bound = 2 * 16 * 64 * EPS
        assert numpy.allclose([line[name] for line in single], [line[name] for line in whole], rtol=0, atol=bound)


def test_the_options_of_predict_reach_it(folder):
    """The command gives the same as `predict` with the same options."""
    options = {"masks": "shared", "plan": "stratified", "samples": 12, "seed": 3, "outputs": "probabilities"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]

    lines = records("net.py:probabilities", "--data", "net.py:pair", *words)

    expected = mc.predict(program()["probabilities"](), X, **options)
    assert [line["mean"] for line in lines] == expected.mean.tolist()


def test_sampling_stops_at_a_target_standard_error(folder):
    """An input takes no further passes once the error of its mean is small enough."""
    lines = records("net.py:net", "--data", "net.py:pair", "--samples", 400, "--target-standard-error", 0.05)

    assert all(line["samples"] % 10 == 0 for line in lines)
    assert min(line["samples"] for line in lines) < 400
    assert all(max(line["standard_error"]["mean"]) <= 0.05 for line in lines)


def test_classes_may_lie_in_the_last_dimension(folder):
    """Each token has a label and a true label; inputs are ordered by the mean over their tokens."""
    words = "net.py:tokens", "--data", "net.py:sentences", "--class-dim", -1

    lines, out = records(*words), output(*words)

    assert numpy.shape(lines[0]["mean"]) == (4, 5)
    assert numpy.shape(lines[0]["label"]) == numpy.shape(lines[0]["truth"]) == (4,)
    assert re.search(r"labels +24\n", out)
    assert re.search(r"\n +input +right +confidence", out)
    assert re.search(r"\n +\d   \d of 4 +0\.\d+", out)


def test_labels_determine_the_dimension_of_the_classes(folder):
    """Without labels the option is needed, and the error names it."""
    words = "net.py:tokens", "--data"

    assert records(*words, "net.py:sentences") == records(*words, "net.py:sentences", "--class-dim", -1)
    numpy.save(folder / "x.npy", numpy.zeros((6, 4), dtype=numpy.int64))
    line = refusal(*words, "x.npy")
    assert "class_dim must be given for outputs of shape (6, 4, 5)" in line
    assert line.endswith("; on the command line: --class-dim")


def test_a_note_warns_of_a_fitted_tau(folder):
    """It is fitted to the values that it is compared with; a given tau is not."""
    words = "net.py:value", "--data", "net.py:values", "--task", "regression"

    fitted = output(*words)
    tau = float(re.search(r"\ntau +(\S+)\n", fitted)[1])

    assert "note: tau was fitted to the true values" in fitted
    given = output(*words, "--tau", 2 * tau)
    assert f"{2 * tau:.4f}" in given
    assert "note:" not in given
    assert "note:" not in output("net.py:value", "--data", "net.py:inputs", "--task", "regression")


def test_a_given_tau_is_less_likely_than_the_fitted_one(folder):
    """No other precision has a larger likelihood."""

    def likelihood(*options):
        text = output("net.py:value", "--data", "net.py:values", "--task", "regression", *options)
        return float(re.search(r"log_likelihood +(\S+)", text)[1]), float(re.search(r"\ntau +(\S+)", text)[1])

    best, tau = likelihood()

    assert likelihood("--tau", tau * 1.5)[0] < best
    assert likelihood("--tau", tau / 1.5)[0] < best


def test_values_may_be_several(folder):
    """Each input has two means, two deviations and two true values."""
    words = "net.py:two", "--data", "net.py:values_of_two", "--task", "regression"

    lines, out = records(*words), output(*words)

    assert lines[0]["truth"] == X[0, :2].tolist()
    assert len(lines[0]["mean"]) == len(lines[0]["variance"]) == 2
    assert re.search(r"\n +\d+( +\S+, \S+){4} +\S+\n", out)


def test_values_need_no_column(folder):
    """(N,) is compared with (N, 1) number by number, without broadcasting."""
    words = "net.py:value", "--task", "regression", "--tau", 1

    flat = output(*words, "--data", "net.py:values")

    torch.save((X, X.sum(1, keepdim=True)), folder / "column.pt")
    assert output(*words, "--data", "column.pt") == flat
