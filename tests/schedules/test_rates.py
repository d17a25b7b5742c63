"""The rates as functions of the step have the values of their sources."""

import math
import pickle

import pytest

from dropkit.schedules import Constant, Cosine, Curriculum, Early, Late, Linear

ALL = [Constant(0.3), Linear(10), Cosine(10), Curriculum(10), Early(10), Early(10, decays=True), Late(10)]


def test_the_curriculum_is_that_of_the_paper():
    """The rate is 1 - ((1 - q) exp(-gamma t) + q), with q the expected fraction kept in the end and gamma = 10 / T."""
    rate, q = Curriculum(steps=200, value=0.4), 0.6

    for step in (0, 1, 50, 200, 1000):
        assert math.isclose(rate(step), 1 - ((1 - q) * math.exp(-10 / 200 * step) + q), abs_tol=1e-15)


@pytest.mark.parametrize("rate", ALL, ids=repr)
def test_a_rate_stays_between_its_ends(rate):
    """Also long after the last step, where Linear and Cosine have their last value to the bit."""
    values = [rate(step) for step in range(30)]

    assert all(0 <= value <= 1 for value in values)
    if isinstance(rate, (Linear, Cosine)):
        assert values[0] == rate.start
        assert set(values[10:]) == {rate.end}


def test_early_and_late_change_at_the_same_step():
    """Together they are constant."""
    assert {Early(7, 0.2)(step) + Late(7, 0.2)(step) for step in range(20)} == {0.2}


@pytest.mark.parametrize("rate", ALL, ids=repr)
def test_rates_travel_between_processes(rate):
    """A copy by pickle is equal."""
    assert pickle.loads(pickle.dumps(rate)) == rate


@pytest.mark.parametrize("kind", [Linear, Cosine, Curriculum, Early, Late])
def test_steps_are_positive(kind):
    """An error says so where the rate is made."""
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        kind(steps=0)
