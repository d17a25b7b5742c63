"""experiments/yacht uses the published data and splits, and trains a stack of networks as if each were alone."""

import hashlib
import importlib.util
import math
import sys
from pathlib import Path

import numpy
import pytest
import torch
from click.testing import CliRunner
from helpers.rounding import equal_but_for_rounding, equal_in_float32

from dropkit.mc import predict

FOLDER = Path(__file__).parents[2] / "experiments" / "yacht"
# Checksums of yacht.csv, and of yacht_hydrodynamics.data as the UCI repository serves it.
OURS = "44cbe98e786b52b756a060b2b773d5771e275cdd69dd6bb53c1033cfbb1ba031"
UCI = "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1"
# Test rows of three splits of 100 rows, from the files of the data set half_moons in the paper's repository.
HALF_MOONS = {
    0: [1, 16, 64, 79, 5, 75, 9, 72, 12, 37],
    1: [7, 75, 21, 91, 76, 2, 70, 85, 52, 6],
    19: [36, 45, 87, 76, 73, 88, 47, 97, 84, 86],
}


@pytest.fixture(scope="module")
def yacht():
    spec = importlib.util.spec_from_file_location("yacht", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["yacht"] = module  # where dataclasses look annotations up
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the script does
    yield module
    torch.set_num_threads(threads)
    del sys.modules["yacht"]


@pytest.fixture
def stack(yacht):
    """Three scaled training sets and their decays, in float64, so that rounding stays small."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 140, 6, generator=generator).double()
    targets = torch.randn(3, 140, generator=generator).double()
    return inputs, targets, torch.tensor([1e-3, 1e-1, 1e-2]).double()


@pytest.fixture(scope="module")
def network(yacht):
    """A network trained on every seventh row, which covers all hulls and speeds, for 100 epochs."""
    inputs, targets = (part[None, ::7] for part in yacht.load())
    return yacht.train(inputs, targets, torch.tensor([0.5]).double(), 100, seed=3)[0]


def sha256(text):
    return hashlib.sha256(text).hexdigest()


def test_the_data_is_complete(yacht):
    """The file is the one behind the published table: 308 rows of six inputs and a target."""
    inputs, targets = yacht.load()

    assert sha256((FOLDER / "yacht.csv").read_bytes()) == OURS
    assert (inputs.shape, targets.shape) == ((308, 6), (308,))
    assert (targets.min(), targets.max()) == (0.01, 62.42)


def test_the_data_is_that_of_the_uci_repository():
    """With UCI's spacing put back, the file has the checksum of UCI's file."""
    lines = (FOLDER / "yacht.csv").read_text().replace(",", " ").splitlines()[1:]

    lines = [line.replace("0.0 ", "0.0  ", 1) if line.startswith("0.0 ") else line for line in lines]
    lines[112] += " "

    assert sha256("\n".join([*lines, "", ""]).encode()) == UCI


def test_the_splits_are_those_of_the_published_script(yacht):
    """Each split is the next permutation of all rows from a generator with seed 1."""
    generator = numpy.random.RandomState(1)

    training, test = yacht.published_splits(308)

    assert (training.shape, test.shape) == ((20, 277), (20, 31))
    for split in zip(training.tolist(), test.tolist(), strict=True):
        assert [*split[0], *split[1]] == generator.choice(range(308), 308, replace=False).tolist()


def test_the_splits_are_those_of_published_files(yacht):
    """On another data set, whose index files could be read, the test rows are the published ones."""
    _, test = yacht.published_splits(100)

    assert {split: test[split].tolist() for split in HALF_MOONS} == HALF_MOONS


def test_each_split_uses_every_row_once(yacht):
    """A row is in the training set or in the test set, and no two splits are equal."""
    training, test = yacht.published_splits(308)

    assert torch.equal(torch.cat([training, test], 1).sort(1).values, torch.arange(308).expand(20, -1))
    assert len({tuple(sorted(rows)) for rows in test.tolist()}) == 20


def test_a_network_of_the_stack_is_trained_as_alone(yacht, stack):
    """The first of three networks gets the weights that it gets alone, up to rounding."""
    alone = yacht.fit(*(tensor[:1] for tensor in stack), epochs=3, seed=5)

    together = yacht.fit(*stack, epochs=3, seed=5)

    assert all(equal_in_float32(stacked[:1], weight) for stacked, weight in zip(together, alone, strict=True))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_networks_of_the_stack_do_not_influence_each_other(yacht, stack, changed):
    """Other data and weight decay for one network change that network, and no bit of the others."""
    before = yacht.fit(*stack, epochs=2, seed=5)
    for tensor in stack:
        tensor[changed] = tensor[changed] * 2 + 1

    after = yacht.fit(*stack, epochs=2, seed=5)

    assert [torch.equal(before[0][i], after[0][i]) for i in range(3)] == [i != changed for i in range(3)]
    others = [i for i in range(3) if i != changed]
    assert all(torch.equal(old[others], new[others]) for old, new in zip(before, after, strict=True))


def test_networks_of_the_stack_differ_on_equal_data(yacht):
    """No weight of the first layer is equal in two networks: each has its own random numbers."""
    inputs, targets = torch.randn(1, 140, 6).expand(3, -1, -1), torch.randn(1, 140).expand(3, -1)

    first, *_ = yacht.fit(inputs, targets, torch.zeros(3), epochs=1, seed=5)

    assert not any((first[i] == first[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_training_is_that_of_an_ordinary_module(yacht, stack, monkeypatch):
    """Without dropout and with one batch, training equals that of nn.Linear by Adam with a penalty on weights."""
    monkeypatch.setattr(yacht, "P", 0.0)
    monkeypatch.setattr(yacht, "BATCH", 140)
    inputs, targets, decay = stack
    start = yacht.fit(*stack, epochs=0, seed=5)
    layers = yacht.unstacked([weight[1] for weight in start])
    optimizer = torch.optim.Adam(layers.parameters(), eps=1e-7)

    for _ in range(3):
        penalty = sum(layer.weight.square().sum() for layer in (layers[1], layers[4]))
        loss = torch.nn.functional.mse_loss(layers(inputs[1]).squeeze(1), targets[1]) + decay[1] * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    expected = yacht.unstacked([weight[1] for weight in yacht.fit(*stack, epochs=3, seed=5)]).state_dict()
    assert all(equal_in_float32(weight, expected[name]) for name, weight in layers.state_dict().items())


@pytest.fixture
def outputs(yacht):
    """A call that returns the outputs, (2, 20_000), of two networks with one hidden unit and unit weights for ones."""
    weight, bias, masks = torch.ones(2, 1, 1), torch.zeros(2, 1, 1), torch.Generator().manual_seed(1)
    return lambda: yacht.forward([weight, bias, weight, bias], torch.ones(2, 20_000, 1), masks)


def test_training_drops_inputs_and_hidden_units(yacht, outputs):
    """Both are dropped with probability P, and scaled by 1 / (1 - P) otherwise."""
    p = (1 - yacht.P) ** 2

    output = outputs()

    # Rounded are the scale, twice, their product, and the expected value.
    assert equal_but_for_rounding(output.unique(), torch.tensor([0, 1 / p]), roundings=4)
    assert abs((output > 0).double().mean() - p) < 5 * math.sqrt(p * (1 - p) / output.numel())


def test_networks_of_the_stack_have_independent_masks(yacht, outputs, monkeypatch):
    """Two of them keep the same row as often as independent masks do."""
    monkeypatch.setattr(yacht, "P", 0.5)
    p = 0.5**4

    both = (outputs() > 0).all(0)

    assert abs(both.double().mean() - p) < 5 * math.sqrt(p * (1 - p) / len(both))


def test_units_of_measurement_do_not_matter(yacht):
    """Scaled inputs and targets give the same network: its predictions scale with the targets."""
    inputs, targets = (column[None, ::7] for column in yacht.load())
    tau = torch.tensor([0.5]).double()

    (network,) = yacht.train(inputs, targets, tau, 2, seed=3)
    (scaled,) = yacht.train(inputs * 4, targets * 2, tau, 2, seed=3)

    assert torch.equal(network.eval()(inputs[0]) * 2, scaled.eval()(inputs[0] * 4))


def test_weight_decay_follows_from_tau(yacht, monkeypatch):
    """It is (1 - p) l^2 / (2 N tau), as in the paper, with each network's own tau."""
    decays, fit = [], yacht.fit
    monkeypatch.setattr(yacht, "fit", lambda *arguments: decays.append(arguments[2]) or fit(*arguments))
    inputs, targets = (torch.stack([column[::7], column[::7]]) for column in yacht.load())

    yacht.train(inputs, targets, torch.tensor([0.25, 0.5]).double(), 1, seed=3)

    # Computed in float64 and rounded to float32, as the expected values are.
    expected = torch.tensor([0.995 * 1e-4 / (2 * 44 * tau) for tau in (0.25, 0.5)])
    assert equal_but_for_rounding(decays[0], expected, roundings=1)


def test_the_score_is_that_of_the_formulas(yacht, network):
    """RMSE of the mean and of one pass in eval mode, and log of the mean density, equal their definitions."""
    inputs, targets, tau = *(column[1::9] for column in yacht.load()), 0.01
    draws = predict(network, inputs, 50, task="regression", seed=7, keep_samples=True).samples.double()

    score = yacht.evaluate(network, inputs, targets, tau, 50, seed=7)

    density = torch.distributions.Normal(draws, tau**-0.5).log_prob(targets).exp().mean(0)
    # Both are computed in float64, so that they agree to far more digits than float32 has; the mean is kept in float32.
    eps = torch.finfo(torch.float32).eps
    assert score.log_likelihood == pytest.approx(density.log().mean().item(), rel=eps)
    rmse = (draws.mean(0) - targets).square().mean().sqrt().item()
    assert score.rmse == pytest.approx(rmse, rel=0, abs=eps * draws.abs().max().item())
    assert score.standard == (network.eval()(inputs) - targets).square().mean().sqrt().item()
    assert score.standard != score.rmse


def test_tau_has_the_highest_likelihood_on_the_last_fifth(yacht, monkeypatch):
    """Each split takes its own best candidate, on rows that the network was not trained on."""
    inputs, targets = torch.arange(20.0).view(2, 10, 1), torch.arange(20.0).view(2, 10)
    best, seen = [0.75, 0.25], []
    monkeypatch.setattr(yacht, "train", lambda inputs, *rest: seen.append(inputs) or [0, 1])
    monkeypatch.setattr(
        yacht,
        "evaluate",
        lambda network, inputs, targets, tau, *rest: (
            seen.append(inputs) or yacht.Score(0, 0, -abs(tau - best[network]))
        ),
    )

    taus = yacht.choose_taus(inputs, targets, 1, 1, 0)

    assert taus.tolist() == best
    for k in range(0, len(seen), 3):
        assert torch.equal(torch.cat([seen[k], torch.stack(seen[k + 1 : k + 3])], 1), inputs)


def test_a_short_run_learns(yacht):
    """After few epochs, two splits predict better than the mean of the targets, and every number is finite."""
    _, targets = yacht.load()

    taus, scores = yacht.run(passes=20, epochs=60, splits=2, seed=0)

    assert len(taus) == len(scores) == 2
    assert set(taus) <= set(yacht.TAUS)
    for score in scores:
        assert 0 < score.rmse < targets.std()
        assert 0 < score.standard < targets.std()
        assert math.isfinite(score.log_likelihood)
        # The density of a normal distribution is largest at its mean.
        assert score.log_likelihood < math.log(max(yacht.TAUS) / (2 * math.pi)) / 2


def test_the_command_prints_a_row_for_each_split(yacht):
    """The table has each split, the mean and the published numbers; standard error is empty without a terminal."""
    printed = CliRunner().invoke(yacht.main, ["--passes", "2", "--epochs", "1", "--splits", "2"])

    rows = [line.split("|")[1].strip() for line in printed.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["split", "0", "1", "mean", "published"]
    assert "0.67 ± 0.05" in printed.stdout
    assert "2 splits, 1 epochs, 2 passes" in printed.stdout
    assert (printed.exit_code, printed.stderr) == (0, "")


def test_the_means_in_the_readme_follow_from_its_rows(yacht):
    """The last rows of the table are the means and standard errors of the rows above them."""
    lines = (FOLDER / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    columns = list(zip(*(map(float, row[2:]) for row in rows if row[0].isdigit()), strict=True))
    (means,) = (row[2:] for row in rows if row[0] == "mean")

    assert [len(column) for column in columns] == [20, 20, 20]
    for column, mean in zip(columns, means, strict=True):
        printed = [float(number) for number in mean.split(" ± ")]
        # Both the rows and the result are rounded to three places, each by at most 0.0005.
        assert numpy.abs(numpy.subtract(yacht.mean_and_error(column), printed)).max() <= 1e-3
