"""`dropkit mc`: the inputs and labels that it reads."""

import numpy
import pytest
import torch
from helpers.mc_command import ERROR, X, Y, output, records, refusal


@pytest.mark.parametrize("data", ["inputs", "array", "without", "untrue", "bare"])
def test_data_without_labels_is_predicted_without_a_report(folder, data):
    """A tensor, an array, a pair with None and a loader of inputs all give the table of measures alone."""
    out = output("net.py:net", "--data", f"net.py:{data}")

    assert "\nClassPrediction(12 inputs, mean (12, 3), 50 samples)\n" in out
    assert "mutual information" in out
    assert ERROR not in out


@pytest.mark.parametrize("data", ["pair", "batches", "loader"])
def test_data_with_labels_gives_a_report(folder, data):
    """Pairs of tensors, and pairs that a loader or a generator yields, give the same numbers."""
    lines = records("net.py:net", "--data", f"net.py:{data}", "--batch-size", 5)

    assert [line["truth"] for line in lines] == Y.tolist()
    assert lines == records("net.py:net", "--data", "net.py:pair", "--batch-size", 5)
    assert ERROR in output("net.py:net", "--data", f"net.py:{data}")


def test_a_loader_may_skip_inputs(folder):
    """The labels are those of the inputs that it yields, and not of the whole data set."""
    assert len(records("net.py:net", "--data", "net.py:last_dropped")) == 10


@pytest.mark.parametrize("data", ["named", "args"])
def test_all_arguments_of_the_model_are_passed(folder, data):
    """A mapping holds arguments by name besides x and y, a tuple by position."""
    lines = records("net.py:Named", "--data", f"net.py:{data}")

    assert lines == records("net.py:net", "--data", "net.py:pair")


FILES = {
    "x.npy": lambda path: numpy.save(path, X.double().numpy()),
    "other_machine.npy": lambda path: numpy.save(path, X.numpy().astype(">f8")),
    "columns.npy": lambda path: numpy.save(path, numpy.asfortranarray(X.numpy())),
    "only.npz": lambda path: numpy.savez(path, X.numpy()),
    "pair.npz": lambda path: numpy.savez(path, x=X.double().numpy(), y=Y.numpy()),
    "tensor.pt": lambda path: torch.save(X, path),
    "dict.pt": lambda path: torch.save({"x": X, "y": Y}, path),
    "tuple.pth": lambda path: torch.save((X, Y), path),
    "list.ckpt": lambda path: torch.save([X, Y], path),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_as_its_tensors(folder, name):
    """Files of NumPy and torch, of any byte order or floating dtype, give the same inputs."""
    FILES[name](folder / name)

    lines = records("net.py:net", "--data", folder / name)

    expected = records("net.py:net", "--data", "net.py:pair")
    assert [line["mean"] for line in lines] == [line["mean"] for line in expected]
    assert ("truth" in lines[0]) == (name in ("pair.npz", "dict.pt", "tuple.pth", "list.ckpt"))


def test_named_arrays_without_x_are_arguments_of_the_model(folder):
    """No array of a file is ignored."""
    numpy.savez(folder / "named.npz", x=X.numpy(), mask=numpy.zeros((12, 1)))
    numpy.savez(folder / "two.npz", inputs=X.numpy(), targets=Y.numpy())

    assert len(records("net.py:Named", "--data", "named.npz")) == 12
    assert "by name (input), got inputs, targets" in refusal("net.py:net", "--data", "two.npz")


LABELS = {
    "y.npy": lambda path: numpy.save(path, Y.numpy()),
    "bytes.npy": lambda path: numpy.save(path, Y.numpy().astype("uint8")),
    "column.npy": lambda path: numpy.save(path, Y[:, None].numpy()),
    "only.npz": lambda path: numpy.savez(path, Y.numpy()),
    "pair.npz": lambda path: numpy.savez(path, x=X.numpy(), y=Y.numpy()),
    "y.pt": lambda path: torch.save(Y, path),
    "list.pt": lambda path: torch.save(Y.tolist(), path),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_from_a_file(folder, name):
    """They may have any integer dtype, be the only array or the y of a file, and be a column."""
    LABELS[name](folder / name)

    assert output("net.py:net", "--data", "net.py:inputs", "--labels", name) == output(
        "net.py:net", "--data", "net.py:pair"
    )


def test_a_data_set_is_read_like_its_loader(folder):
    """Inputs and labels of a `Dataset` are taken item by item."""
    assert output("net.py:net", "--data", "net.py:dataset") == output("net.py:net", "--data", "net.py:pair")


@pytest.mark.parametrize("data", ["pair", "loader"])
def test_labels_replace_those_of_the_data(folder, data):
    """--labels wins over the labels in --data."""
    torch.save((Y + 1) % 3, folder / "other.pt")

    lines = records("net.py:net", "--data", f"net.py:{data}", "--labels", "other.pt")

    assert [line["truth"] for line in lines] == ((Y + 1) % 3).tolist()


def test_bool_labels_are_two_classes(folder):
    """A single logit is that of True."""
    torch.save(Y > 0, folder / "bool.pt")

    lines = records("net.py:one_logit", "--data", "net.py:inputs", "--labels", "bool.pt")

    assert [line["truth"] for line in lines] == [int(label > 0) for label in Y]
    assert len(lines[0]["mean"]) == 2
