"""`dropkit.study`: what it runs, what it refuses before the first trial, and what it returns."""

import json

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropkit
from dropkit.studies import Sizes, Trial, place_dropout
from dropkit.studies.result import load

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
TOKENS = torch.arange(240).view(80, 3) % 5
SHORT = {"p": 0.5, "seeds": 2, "epochs": 2, "samples": 2, "progress": False}


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def metrics_of(result):
    return {outcome.trial.key: dict(outcome.metrics) for outcome in result.outcomes}


class Functional(nn.Module):
    """Drops by a function, at a rate of its own or one of an attribute."""

    def __init__(self, rate=None):
        super().__init__()
        self.hidden, self.output, self.dropout, self.own = nn.Linear(4, 8), nn.Linear(8, 2), 0.3, rate

    def forward(self, x):
        rate = self.dropout if self.own is None else self.own
        return self.output(F.dropout(F.relu(self.hidden(x)), rate, self.training))


def test_a_study_has_a_row_for_each_model_and_setting():
    """Every trial has its metrics, and each model its sentence."""
    result = dropkit.study({"a": network, "b": network}, (X, Y), kinds=["dropout", "always-on"], **SHORT)

    assert [(row.model, str(row.setting)) for row in result.rows] == [
        (model, setting) for model in "ab" for setting in ("no dropout", "dropout p=0.5", "always-on p=0.5")
    ]
    assert result.is_finished
    assert len(result.outcomes) == 12
    assert not result.failures
    assert len(result.recommendations) == 2
    for row in result.rows:
        assert {"training_error", "validation_nll", "test_ece", "test_overconfidence"} <= set(row.metrics)
        assert ("mc_test_error" in row.metrics) != row.setting.is_baseline


def test_what_is_printed_ends_with_the_sentences():
    """After a table."""
    result = dropkit.study(network, (X, Y), **SHORT)

    assert " ".join(str(result).split()).endswith(" ".join(result.recommendations[0].sentence.split()))
    assert "dropout" in str(result)


def test_equal_models_have_equal_results():
    """Under whatever name: nothing is random but what follows from the seed."""
    result = dropkit.study({"a": network, "b": network}, (X, Y), **SHORT)
    first, second = ([o.metrics for o in result.outcomes if o.trial.model == model] for model in "ab")

    assert first == second


@pytest.mark.slow
def test_results_do_not_depend_on_workers():
    """Bit for bit. The network is made by a function of this file, which other processes get by value."""
    one, two = (dropkit.study(network, (X, Y), workers=workers, **SHORT) for workers in (1, 2))

    assert metrics_of(one) == metrics_of(two)


def test_each_site_is_studied_alone_and_left_out():
    """The sites of a model without dropout are its activations."""
    deep = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))  # noqa: E731

    result = dropkit.study(deep, (X, Y), sites="each", **SHORT)

    assert [row.setting.sites for row in result.rows] == [None, ("1", "3"), ("1",), ("3",)]


def test_a_kind_that_is_the_same_in_a_model_is_left_out():
    """Channel dropout is that of elements where there are no maps."""
    result = dropkit.study(network, (X, Y), kinds=["dropout", "dropout2d"], **SHORT)

    assert [row.setting.kind for row in result.rows] == ["none", "dropout"]


@pytest.mark.parametrize(
    ("data", "make"),
    [
        ((X, X[:, 0] * 100), lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))),
        ((X, X[:, :2]), lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))),
        ((pd.DataFrame(X.numpy()).assign(y=["a", "b"] * 40), "y"), network),
        ((TOKENS, TOKENS), lambda: nn.Sequential(nn.Embedding(5, 8), nn.Dropout(), nn.Linear(8, 5))),
        ((X, Y), Functional),
        ((X, Y), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))),
        ((X, Y), lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))),
    ],
    ids=["values", "two values", "data frame", "tokens", "rate of an attribute", "module", "one logit"],
)  # fmt: skip
def test_models_and_data_of_many_kinds_are_studied(data, make):
    """Without a failure, and with Monte Carlo dropout measured."""
    result = dropkit.study(make, data, **SHORT)

    assert not result.failures
    assert any(name.startswith("mc_test_") for name in result.rows[1].metrics)


ONE = network()
PAIR = (X, Y)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": (X[:, :3], Y)}, RuntimeError, "shapes cannot be multiplied"),
        ({"model": lambda: 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"model": lambda: ONE}, ValueError, "model must be a function that makes a new model at each call"),
        ({"model": lambda: Functional(0.4)}, ValueError, "model must be one whose dropout is in modules"),
        ({"model": lambda: nn.Sequential(network(), nn.Softmax(1))}, ValueError, "must be logits or log-probabilities"),
        ({"data": (X, Y.float())}, ValueError, "targets that are classes must be integers"),
        ({"data": (X, Y[:70])}, ValueError, "targets must be one for each of 80 inputs, got 70"),
        ({"data": "csv:nowhere.csv:y"}, Exception, "nowhere.csv"),
        ({"kinds": "dropuot"}, ValueError, "did you mean dropout?"),
        ({"kinds": "none"}, ValueError, "settings must be no dropout and at least one other"),
        ({"p": -0.5}, ValueError, r"p must be in \[0, 1\], got -0.5"),
        ({"p": "half"}, ValueError, r"p must be a rate in \[0, 1\], or several, got 'half'"),
        ({"p": [0.5, float("nan")]}, ValueError, r"p must be in \[0, 1\], got nan"),
        ({"sites": "9"}, ValueError, "sites must be names of modules.*got '9'"),
        ({"metric": "eror"}, ValueError, "did you mean error?"),
        ({"seeds": 0}, ValueError, "seeds must be an integer of at least 1"),
        ({"epoch": 3}, TypeError, "unexpected keyword argument 'epoch'; did you mean epochs?"),
        ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1"),
        ({"sizes": Sizes(1000)}, ValueError, "sizes must be at most the 80 examples"),
        ({"train": print}, ValueError, "model must be left out where `train` is given"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("torchvision")
def test_what_cannot_work_is_refused_before_the_first_trial(arguments, error, message, tmp_path):
    """With the model's own error or one that names the argument, once, and without a trace in the folder."""
    folder = tmp_path / "study"

    with pytest.raises(error, match=message):
        dropkit.study(**{"model": network, "data": PAIR, "folder": folder, **SHORT, **arguments})

    assert not folder.exists()


def test_a_model_that_is_not_repeatable_is_refused():
    """Initial weights that do not follow from the seed make no pairs."""
    generator = torch.Generator().manual_seed(0)

    def make():
        model = network()
        nn.init.normal_(model[0].weight, generator=generator)
        return model

    with pytest.raises(ValueError, match="model must be a function whose initial weights follow from torch"):
        dropkit.study(make, PAIR, **SHORT)


def test_a_study_leaves_the_generator_of_torch_as_it_was():
    """Finding places and the rehearsal included."""
    before = torch.get_rng_state()

    dropkit.study(network, PAIR, kinds=["dropout", "always-on"], sites="each", **SHORT)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_failed_trial_is_listed():
    """It has no numbers in the rows."""
    result = dropkit.study(network, PAIR, **{**SHORT, "learning_rate": 1e30})

    assert len(result.failures) == 4
    assert all("not finite" in outcome.failure for outcome in result.failures)
    assert "nothing can be concluded" in result.recommendations[0].sentence


def test_a_study_is_kept_in_its_folder(tmp_path):
    """Another run continues it: no trial runs twice, and the result is the same."""
    first = dropkit.study(network, PAIR, folder=tmp_path, **SHORT)

    again = dropkit.study(network, PAIR, folder=tmp_path, resume=True, **SHORT)

    assert [o.seconds for o in again.outcomes] == [o.seconds for o in first.outcomes]
    assert metrics_of(load(tmp_path)) == metrics_of(again) == metrics_of(first)
    assert json.loads(json.dumps(again.to_dict(), allow_nan=False))["is_finished"]


def test_a_result_can_be_saved(tmp_path):
    """Later, and as if it had been kept from the start."""
    result = dropkit.study(network, PAIR, **SHORT)

    result.save(tmp_path / "study")

    assert load(tmp_path / "study").to_dict() == result.to_dict()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))}, "settings, models"),
        ({"data": (X + 1, Y)}, "content"),
        ({"epochs": 3}, "recipe"),
        ({"p": 0.4}, "settings"),
    ],
    ids=["model", "data", "recipe", "rate"],
)
def test_a_folder_of_another_study_is_refused(tmp_path, change, what):
    """The message says what differs."""
    arguments = {"model": lambda: network(), "data": PAIR, **SHORT, "folder": tmp_path}
    dropkit.study(**arguments)

    with pytest.raises(ValueError, match=f"with another .*{what.split(', ')[-1]}"):
        dropkit.study(**{**arguments, **change, "resume": True})


# A training loop of the user's own.


def noise(trial):
    return hash((trial.seed, trial.setting.p)) % 1000 * 1e-5


def own(trial: Trial):
    return {"validation_loss": 1 - trial.setting.p + noise(trial), "test_loss": 1.1 - trial.setting.p + noise(trial)}


def test_a_training_of_ones_own_is_studied():
    """It gets each trial, and its metrics are compared."""
    result = dropkit.study(train=own, metric="loss", p=[0.1, 0.5], seeds=4, progress=False)

    assert [str(row.setting) for row in result.rows] == ["no dropout", "dropout p=0.1", "dropout p=0.5"]
    assert result.recommendations[0].setting.p == 0.5
    assert not result.recommendations[0].sentence.endswith("than it is.")


def test_one_number_is_both_choice_and_report():
    """And the sentence says that they are on the same examples."""
    result = dropkit.study(train=lambda t: {"loss": own(t)["test_loss"]}, metric="loss", p=0.5, seeds=4, progress=False)

    assert "chosen and reported on the same examples" in result.recommendations[0].sentence


def test_place_dropout_serves_a_loop_of_ones_own():
    """It applies the setting of the trial."""
    seen = []

    def train(trial):
        torch.manual_seed(trial.seed)
        seen.append(place_dropout(network(), trial.setting))
        return own(trial)

    dropkit.study(train=train, metric="loss", p=0.5, seeds=2, progress=False)

    assert [hasattr(model[1], "dropout_after") for model in seen] == [False, True] * 2


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (lambda trial: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda trial: {"los": 1.0}, ValueError, "train must be a function that returns validation_loss and"),
    ],
    ids=["error", "no metric"],
)  # fmt: skip
def test_the_first_error_of_a_training_is_the_users(train, error, message, tmp_path):
    """It ends the study before the other trials fail in the same way."""
    with pytest.raises(error, match=message):
        dropkit.study(train=train, metric="loss", p=0.5, seeds=2, progress=False, folder=tmp_path)

    assert not load(tmp_path).outcomes


def test_a_later_error_of_a_training_is_a_failure():
    """The others go on."""

    def train(trial):
        if trial.setting.p == 0.5:
            raise ValueError("too much")
        return own(trial)

    result = dropkit.study(train=train, metric="loss", p=[0.1, 0.5], seeds=3, progress=False)

    assert [outcome.failure for outcome in result.failures] == ["ValueError: too much"] * 3
    assert len(result.outcomes) == 9
