"""Which measures `predict` computes: `measures=` and `errors=`."""

import pytest
import torch
from torch import nn

from dropkit import mc
from dropkit.mc.measures import ClassMeasures, measures_of

EPS = torch.finfo(torch.float32).eps
ALL = tuple(measures_of(ClassMeasures))
BASIC = tuple(name for name in ALL if name not in ("variation_ratio", "mutual_information_jackknife"))


def predicted(classes=5, task="classification", **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))
    return mc.predict(model, torch.randn(7, 4), 20, task=task, seed=0, **options)


@pytest.mark.parametrize("numbers_at_once", [1, 2**17], ids=["one sample", "blocks of samples"])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("classes", [5, 17])
def test_sums_around_the_mean_equal_those_of_the_samples(task, classes, numbers_at_once, monkeypatch):
    """Mean and variance agree with float64 sums over the kept samples, up to a rounding at each of 20 samples."""
    monkeypatch.setattr("dropkit.mc.passes._NUMBERS_AT_ONCE", numbers_at_once)
    r = predicted(classes, task, measures="basic", keep_samples=True)

    samples = r.samples.double()
    bound = 20 * EPS * samples.abs().max()
    assert (r.mean - samples.mean(0)).abs().max() <= bound
    assert (r.variance - samples.var(0)).abs().max() <= 4 * bound * samples.abs().max()


@pytest.mark.parametrize("name", BASIC)
def test_basic_measures_equal_those_of_all(name):
    """They are summed in another order, and differ by no more than 20 roundings of numbers up to log(5)."""
    chosen, every = predicted(measures="basic"), predicted(measures="all")

    assert (getattr(chosen, name) - getattr(every, name)).abs().max() <= 4 * 20 * EPS


def test_large_outputs_have_basic_measures_by_default():
    """The limit is 256 numbers of an input, and a note says what is left out."""
    small, large = predicted(256), predicted(257)

    assert tuple(small.measures) == ALL
    assert "entropy" in small.standard_error
    assert tuple(large.measures) == BASIC
    assert not large.standard_error
    assert large.notes == (
        'not computed: mutual_information_jackknife, variation_ratio, standard errors; measures="all" computes them',
    )


def test_names_choose_measures():
    """Those, the mean and its confidence, without standard errors unless asked for."""
    r, with_errors = predicted(measures=["entropy"]), predicted(measures=["entropy"], errors=True)

    assert set(r.measures) == {"mean", "confidence", "entropy"}
    assert not r.standard_error
    assert set(with_errors.standard_error) == {"mean", "entropy"}


def test_errors_can_be_left_out():
    """All measures are the same numbers without their standard errors."""
    without, every = predicted(measures="all", errors=False), predicted()

    assert not without.standard_error
    assert (without.mutual_information_jackknife == every.mutual_information_jackknife).all()


def test_a_measure_that_was_not_computed_says_how_to_get_it():
    """The error names the argument."""
    r = predicted(measures="basic")

    with pytest.raises(AttributeError, match=r'variation_ratio was not computed: give predict measures="all"'):
        r.variation_ratio  # noqa: B018 (reading raises)
    with pytest.raises(KeyError, match="give predict errors=True"):
        r.standard_error["mean"]


def test_measures_must_exist():
    """A wrong name is refused before the model runs."""
    with pytest.raises(ValueError, match=r'measures must be "all", "basic" or some of mean, .*, got entropies'):
        predicted(measures=["entropies"])


@pytest.mark.parametrize("masks", ["input", "shared"])
def test_rows_at_once_do_not_change_the_result(masks, monkeypatch):
    """Inputs are summed a few at a time; each input's numbers are the same up to 20 roundings of at most log(300)."""
    whole = predicted(300, masks=masks)
    monkeypatch.setattr("dropkit.mc.accumulators._NUMBERS_AT_ONCE", 700)
    parts = predicted(300, masks=masks)

    for name, value in whole.measures.items():
        assert (parts.measures[name] - value).abs().max() <= 6 * 20 * EPS


def test_a_target_needs_no_measures():
    """Sampling stops by the error of the mean, with any measures."""
    r = predicted(measures=["mean"], target_standard_error=10.0)

    assert (r.sample_counts == 10).all()
