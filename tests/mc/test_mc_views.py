"""How predictions show themselves: printed, in notebooks, as plain values, as a page and as a plot."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from helpers.predictions import random_prediction, values
from torch import nn

from dropkit import mc


def predicted(task: Any, **options: Any) -> Any:
    last = nn.Linear(8, 3) if task == "classification" else nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), last)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return mc.predict(model, x, 6, task, seed=0, keep_samples=True, **options)


TASKS = pytest.mark.parametrize("task", ["classification", "regression"])


def test_padding_is_left_out_of_tables() -> None:
    """Means are over what counts."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))
    x, valid = torch.randn(5, 6, 4), torch.arange(6) < torch.arange(1, 6)[:, None]

    r = mc.predict(model, x, 6, class_dim=-1, valid=valid, seed=0)

    assert "nan" not in str(r)
    assert "nan" not in r._repr_html_().replace("results are nan", "")
    assert f"{r.entropy[valid].mean():.4g}" in str(r)


@TASKS
def test_printing_shows_a_short_table_of_the_least_certain(task: str) -> None:
    """Never tensors, and few rows of many inputs."""
    r = predicted(task)

    text = str(r)

    assert "tensor" not in text
    assert len(text.splitlines()) < 30
    least_certain = int(r.measures[r.ordered_by].argmax())
    rows = text[text.index("least certain") :].splitlines()
    assert rows[4].split()[0] == str(least_certain)


@TASKS
def test_the_dict_holds_every_measure_as_json(task: str) -> None:
    """Numbers survive a round trip; what is not a finite number is null."""
    r = predicted(task)

    loaded = json.loads(json.dumps(r.to_dict(), allow_nan=False))

    for name, tensor in {**r.measures, "plain": r.plain, "sample_counts": r.sample_counts}.items():
        assert torch.equal(torch.tensor(loaded[name]).to(tensor.dtype), tensor)
    assert loaded["num_samples"] == 6
    assert values([[float("nan"), 1.0]] * 2).to_dict()["mean"] == [None, 1.0]


@TASKS
def test_the_page_is_that_of_the_command(task: str) -> None:
    """With the report if the truth is given."""
    r = predicted(task)
    y = r.label if task == "classification" else r.mean

    names = ["cat", "dog", "emu"] if task == "classification" else None
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    page = r.to_html(y, title="my <model>", classes=names, inputs=images)

    assert page.startswith("<!doctype html>")
    assert "Uncertainty of my &lt;model&gt;" in page
    assert page.count("<svg") > r.to_html().count("<svg")
    assert page.count("<img ") == 10
    assert (">emu</td>" in page) == (names is not None)
    with pytest.raises(ValueError, match=r"classes must be . names, got 2"):
        r.to_html(classes=["cat", "dog"])


@TASKS
def test_notebooks_show_the_least_certain_inputs(task: str) -> None:
    """An HTML table, whose text is escaped."""
    r = predicted(task)

    shown = r._repr_html_()

    assert shown.count("<tr>") == 1 + 5
    assert "tensor" not in shown


def test_a_plot_counts_each_input_once() -> None:
    """A histogram in the Axes that were given, or else the current ones."""
    from matplotlib.figure import Figure

    r, _ = random_prediction()
    ax = Figure().add_subplot()

    assert r.plot(ax) is ax
    assert sum(bar.get_height() for bar in ax.patches) == len(r)
    assert ax.get_xlabel() == "mutual information, nats"


def test_num_samples_is_a_number() -> None:
    """The most that an input took; each input's own is in `sample_counts`."""
    r = values([[0.0, 1.0], [2.0, 3.0]], num_samples=[1, 2])

    assert r.num_samples == 2
    assert r.sample_counts.tolist() == [1, 2]
    assert torch.equal(r.std, r.variance.sqrt())
