"""What `study` takes as data and as models."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dropkit.studies.data import Data
from dropkit.studies.inputs import as_data, as_models

X = torch.arange(40.0).view(20, 2)
Y = torch.arange(20) % 2
FRAME = pd.DataFrame({"a": X[:, 0].numpy(), "b": X[:, 1].long().numpy(), "y": Y.numpy()})
TEXTS = ["no", "yes"] * 10


class Stream(IterableDataset):
    """Examples one after the other, without a length."""

    def __iter__(self):
        return iter(zip(X, Y.tolist(), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X.double().numpy(), Y.numpy().astype("uint8")),
        (X.tolist(), Y.tolist()),
        (FRAME[["a", "b"]], FRAME["y"]),
        (FRAME, "y"),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=7),
        Stream(),
        Data(X, Y, ("0", "1")),
        (X, Y == 1),
        (X, Y * 2 - 1),
        (X, TEXTS),
        (X, np.array(TEXTS)),
        (X, pd.Series(TEXTS, dtype="category")),
    ],
    ids=["tensors", "arrays", "lists", "frame and series", "frame and column", "Dataset", "DataLoader",
         "IterableDataset", "Data", "booleans", "-1 and 1", "texts", "array of texts", "categories"],
)  # fmt: skip
def test_data_of_many_kinds_is_the_same(data):
    """Inputs are float32 and classes are numbered from 0, in sorted order."""
    read = as_data(data)

    assert torch.equal(read.inputs, X)
    assert read.inputs.dtype == torch.float32
    assert torch.equal(read.targets, Y)
    assert len(read.classes) == 2
    assert read.task == "classification"


def test_parts_are_numbered_in_their_order():
    """A mapping of pairs states which example is in which part; text has one numbering in all parts."""
    data = as_data({"test": (X[:5], TEXTS[:5]), "training": (X[5:], TEXTS[5:])})

    assert data.parts.tolist() == [2] * 5 + [0] * 15
    assert data.classes == ("no", "yes")
    assert torch.equal(data.targets, Y)


def test_floating_point_targets_are_values():
    """One column or several."""
    assert as_data((X, X[:, 0].double())).task == "regression"
    assert as_data((X, X)).targets.shape == (20, 2)


def test_windows_of_tokens_stay_integers():
    """Inputs and targets of shape (N, T)."""
    tokens = torch.arange(60).view(20, 3) % 7

    data = as_data((tokens, tokens.roll(-1, 1)))

    assert data.inputs.dtype == torch.int64
    assert data.targets.shape == (20, 3)
    assert len(data.classes) == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data must be a pair of inputs and targets, .*, got NoneType"),
        ((X, Y, Y), "data must be a pair .*, got tuple of 3"),
        ((X, None), "targets must be a tensor or an array of numbers, got NoneType"),
        (({"a": X}, Y), "inputs must be .*, got dict; for models of several inputs give `train`"),
        ((TEXTS, Y), "inputs must be a tensor or an array of numbers, got text"),
        ((FRAME, "z"), "targets must be a column of the data frame, got 'z'"),
        ((FRAME.assign(a=TEXTS), "y"), "inputs must be columns of numbers, got a with something else"),
        ((X, ["a"] * 19 + [None]), "targets must be all numbers or all text, got text and 1 others"),
        ((X, torch.tensor(1)), "targets must be a row for each example"),
        ((X * 1j, Y), "inputs must be real numbers"),
        ((X, Y + 10**9), "targets must be classes from 0 to at most 99999; for values give floating-point numbers"),
        ({"train": (X, Y), "test": (X, Y)}, "data must be a mapping with .*, got 'train'; did you mean training?"),
        ({"training": (X, Y)}, "data must be a mapping with training and test, got training"),
        ({"training": (X, Y), "test": (X[:, :1], Y)}, r"inputs must be of one shape, got \(1,\) and \(2,\)"),
        (TensorDataset(X), "data must be a TensorDataset of pairs"),
        (TensorDataset(X[:0], Y[:0]), "data must be with examples, got a TensorDataset without any"),
    ],
)  # fmt: skip
def test_other_data_is_refused(data, message):
    """The error says what is wanted and what came."""
    with pytest.raises(ValueError, match=message):
        as_data(data)


def test_models_have_names():
    """Those of a mapping, of the function, or of the class of a module."""

    def net():
        return nn.Linear(2, 2)

    assert list(as_models({"a": net, "b": net})) == ["a", "b"]
    assert list(as_models(net)) == ["net"]
    assert list(as_models(lambda: net())) == ["model"]
    assert list(as_models(nn.Linear(2, 2))) == ["Linear"]
    with pytest.raises(ValueError, match="model must be a module, or a function that makes one, got int"):
        as_models(3)


def test_a_module_is_copied_for_each_trial():
    """So that one trial does not go on where another ended."""
    module = nn.Linear(2, 2)
    (make,) = as_models(module).values()

    first, second = make(), make()

    assert first is not module
    assert first is not second
    assert torch.equal(first.weight, module.weight)
