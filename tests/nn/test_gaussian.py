"""GaussianDropout and GaussianNoise, where they differ from layers that keep or drop; the laws have the rest."""

import math

import pytest
import torch
from torch import nn

import dropkit
from dropkit import mc
from dropkit.functional import gaussian_dropout, gaussian_noise
from dropkit.nn import GaussianDropout, GaussianNoise

KEY = 7


@pytest.mark.parametrize("training", [True, False])
def test_a_rate_of_1_is_refused(training):
    """The variance p / (1 - p) would be infinite; also in eval mode, where nothing is drawn."""
    for refused in (lambda: gaussian_dropout(torch.ones(3), 1.0, training), lambda: GaussianDropout(1)):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\).* got 1"):
            refused()


@pytest.mark.parametrize("std", [-0.1, math.nan, math.inf])
def test_a_standard_deviation_is_finite_and_not_negative(std):
    """So says the constructor, and the function in both modes."""
    for refused in (
        lambda: gaussian_noise(torch.ones(3), std),
        lambda: gaussian_noise(torch.ones(3), std, False),
        lambda: GaussianNoise(std),
    ):
        with pytest.raises(ValueError, match=r"std must be in \[0, inf\), got"):
            refused()


def test_a_standard_deviation_may_exceed_1():
    """Noise of any size is that of size 1, times the size; also from a tensor in a compiled graph."""
    zeros = torch.zeros(64)
    by_tensor = torch.compile(lambda std: gaussian_noise(zeros, std, key=KEY), backend="eager", fullgraph=True)

    expected = 50 * gaussian_noise(zeros, 1.0, key=KEY)

    assert torch.equal(gaussian_noise(zeros, 50.0, key=KEY), expected)
    assert torch.equal(by_tensor(torch.tensor(50.0)), expected)


@pytest.mark.parametrize("function", [gaussian_dropout, gaussian_noise])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_other_dtypes_are_refused(function, dtype):
    """The error names the floating dtypes."""
    with pytest.raises(TypeError, match="input must be a dense tensor of float16"):
        function(torch.ones(3, dtype=dtype), 0.5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("function", [gaussian_dropout, gaussian_noise])
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_components_have_the_numbers_of_one_tensor(function, layout):
    """Components laid end to end have consecutive mask elements."""
    components = [torch.randn(length, 4) for length in (3, 1, 5)]

    output = function(torch.nested.nested_tensor(components, layout=layout), 0.5, key=KEY)

    expected = function(torch.cat(components), 0.5, key=KEY)
    assert torch.equal(torch.cat(output.unbind()), expected)


def test_second_derivatives_have_the_factor():
    """The second derivative of the sum of y ** 3, where y has the slope s, is 6 y s ** 2."""
    x = torch.rand(50, dtype=torch.float64)
    slope = gaussian_dropout(torch.ones_like(x), 0.5, key=KEY)

    def cubes(x):
        return gaussian_dropout(x, 0.5, key=KEY).pow(3).sum()

    second = torch.func.grad(lambda x: torch.func.grad(cubes)(x).sum())(x)

    torch.testing.assert_close(second, 6 * x * slope**3)


def test_exported_training_graphs_hold_torchs_operators():
    """Where no key is given, other programs can read them."""
    model = nn.Sequential(GaussianDropout(0.5), GaussianNoise(0.1))

    graph = torch.export.export(model.train(), (torch.ones(3),)).graph

    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("randn_like" in name for name in names) == 2
    assert not any("dropkit" in name for name in names)


def test_monte_carlo_dropout_samples_gaussian_dropout_alone():
    """Noise that is only added is no dropout: predictions are as without it."""
    x, model = torch.randn(6, 4), nn.Sequential(GaussianNoise(0.5), GaussianDropout(0.5)).eval()

    variance = mc.predict(model, x, samples=8, task="regression", seed=3).variance

    assert (variance > 0).all()
    assert torch.equal(variance, mc.predict(model[1], x, samples=8, task="regression", seed=3).variance)
    with pytest.raises(mc.NothingToSample):
        mc.predict(model[:1], x, samples=8, task="regression", seed=3)


def test_an_audit_lists_gaussian_dropout_alone():
    """GaussianNoise has no rate to be measured, nor to be scheduled."""
    model = nn.Sequential(GaussianNoise(0.1), nn.Linear(4, 4), GaussianDropout(0.3), nn.Linear(4, 2))

    report = dropkit.audit(model.train(), torch.randn(8, 4))

    assert [site.kind for site in report.sites] == ["GaussianDropout"]
