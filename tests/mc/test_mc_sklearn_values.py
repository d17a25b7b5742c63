"""MCRegressor: units, noise and the network's outputs."""
# ruff: noqa: N806 (scikit-learn's X)

import numpy as np
import pytest
from helpers.mc_estimators import EPS, quick, rows
from torch import nn

from dropkit.mc.sklearn import MCRegressor


def test_the_deviation_is_that_of_the_passes_and_the_noise():
    """Their variances add up; the mean is that without it."""
    X, y = rows()
    model = quick(MCRegressor, tau=4.0).fit(X, y)

    mean, std = model.predict(X, return_std=True)

    r = model.predict_mc(X)
    assert model.tau_ == 4
    np.testing.assert_allclose(std**2, r.variance.numpy() + 0.25, rtol=10 * EPS)
    assert np.array_equal(mean, model.predict(X))


def test_values_are_in_the_units_of_y():
    """Targets times 1024, and shifted: so are mean and samples; variances grow by its square, the precision shrinks."""
    X, y = rows()
    plain, large = quick(MCRegressor).fit(X, y), quick(MCRegressor).fit(X, 1024.0 * y + 512)

    small, big = plain.predict_mc(X, keep_samples=True), large.predict_mc(X, keep_samples=True)

    def close(got, expected):
        expected = np.asarray(expected)
        # Sums of ten samples, and of the training's few hundred numbers.
        np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1000 * EPS * np.abs(expected).max())

    close(large.predict(X), 1024 * plain.predict(X) + 512)
    close(large.predict(X, return_std=True)[1], 1024 * plain.predict(X, return_std=True)[1])
    close(big.mean, 1024 * small.mean + 512)
    close(big.samples, 1024 * small.samples + 512)
    close(big.variance, 2**20 * small.variance)
    close(big.standard_error["mean"], 1024 * small.standard_error["mean"])
    close(big.standard_error["variance"], 2**20 * small.standard_error["variance"])
    assert large.tau_ == pytest.approx(plain.tau_ / 2**20, rel=1000 * EPS)
    close(small.samples.mean(0), plain.predict(X))


def test_small_differences_of_large_targets_are_learnt():
    """At a thousand million float32 resolves steps of 64: targets are scaled in float64."""
    X, y = rows(200)

    assert quick(MCRegressor, epochs=30, tau=1.0).fit(X, y + 1e9).score(X, y + 1e9) > 0.5


def test_the_noise_is_fitted_to_rows_that_were_not_trained_on():
    """The first network is trained on four fifths of the rows, the second, which is kept, on all."""
    seen = []

    class Recorded(nn.Sequential):
        def forward(self, input):
            if self.training:
                seen[self.number].update(input[:, 0].tolist())
            return super().forward(input)

    def make(n_features, n_outputs):
        network = Recorded(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))
        network.number = len(seen)
        seen.append(set())
        return network

    X, y = rows(50)
    model = quick(MCRegressor, module=make).fit(X, y)

    everything = set(model._inputs(X)[:, 0].tolist())
    assert [len(numbers) for numbers in seen] == [40, 50]
    assert seen[0] < seen[1] == everything
    assert model.network_.number == 1


@pytest.mark.slow
def test_the_precision_is_that_of_the_noise():
    """Where the function is learnt, the variance of passes and noise is that of the errors on new rows."""
    rng = np.random.RandomState(0)
    X = rng.rand(2000, 1)
    y = 2 * X[:, 0] + 0.5 * rng.randn(2000)
    model = MCRegressor(random_state=0).fit(X[:1000], y[:1000])

    mean, std = model.predict(X[1000:], return_std=True)

    # The noise is fitted to 200 rows and tested on 1000: five standard errors of the logarithm of a variance.
    assert abs(np.log(np.mean((y[1000:] - mean) ** 2) / np.mean(std**2))) < 5 * np.sqrt(2 / 200 + 2 / 1000)


def test_a_given_precision_trains_once():
    """With a number for tau no rows are held out and no second network is made."""
    made = []

    def make(n_features, n_outputs):
        made.append(1)
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))

    quick(MCRegressor, module=make, tau=1.0).fit(*rows())

    assert len(made) == 1


@pytest.mark.parametrize("width", [2, None])
def test_a_regressor_has_one_output(width):
    """(N, 1) and (N,) are accepted; (N, 2) is refused, and not broadcast."""

    def make(n_features, n_outputs):
        layers = nn.Sequential(nn.Linear(n_features, width or 1), nn.Dropout(0.5))
        return layers if width else nn.Sequential(layers, nn.Flatten(0))

    model = quick(MCRegressor, module=make)

    if width is None:
        assert model.fit(*rows()).predict(rows()[0]).shape == (60,)
        return
    with pytest.raises(ValueError, match=r"the output of the module must be of shape \(N, 1\), got \(60, 2\)"):
        model.set_params(tau=1.0).fit(*rows())
