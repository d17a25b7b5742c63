"""Settings, grids of them, and the keys of trials."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropkit.studies.setting import BASELINE, Setting, ablation, grid
from dropkit.studies.trial import Outcome, Trial

RATE = st.floats(0, 1)
SITES = st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True).map(tuple)
KIND = st.text(min_size=1).filter(lambda kind: kind != "none")
SETTING = st.one_of(
    st.just(BASELINE),
    st.builds(Setting, KIND, RATE, st.none() | SITES),
    SITES.flatmap(
        lambda sites: st.builds(Setting, KIND, st.tuples(*[RATE] * len(sites)), st.just(sites)),
    ),
)
TRIAL = st.builds(Trial, st.text(), SETTING, st.integers(0, 10**6))
NUMBERS = st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False))


@given(TRIAL)
def test_a_trial_is_read_from_its_key(trial):
    """The key of a trial is one line, and holds all of it."""
    assert Trial.from_key(trial.key) == trial
    assert Trial.from_key(trial.key).key == trial.key
    assert "\n" not in trial.key


@given(TRIAL, NUMBERS, st.none() | st.text())
def test_an_outcome_is_read_from_its_line(trial, metrics, failure):
    """An outcome goes through JSON without a change."""
    outcome = Outcome(trial, metrics, {"epoch": (1.0, 2.0)}, 0.5, failure)

    line = json.dumps(outcome.to_dict(), allow_nan=False)

    assert Outcome.from_dict(json.loads(line)) == outcome


FIELDS = st.sampled_from(["trial", "metrics", "curves", "seconds", "failure", "model", "kind", "p", "sites", "seed"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
    )
)
def test_other_json_is_no_outcome(value):
    """Whatever a damaged line holds is refused with a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Outcome.from_dict(value)


def test_numbers_of_any_type_are_one_setting():
    """A rate given as an integer is that of a file, so that a study which is resumed finds its trials."""
    assert Trial("m", Setting("dropout", 1), 0).key == Trial("m", Setting("dropout", 1.0), 0).key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dropout", 1.5), "p must be in"),
        (("dropout", float("nan")), "p must be in"),
        (("dropout", (0.1, 0.2), ("a",)), "p must be one rate, or one for each"),
        (("dropout", (0.1, 0.2)), "p must be one rate, or one for each"),
        (("dropout", 0.5, ()), "sites must be names"),
        (("none", 0.5), "kind must be one that drops"),
    ],
    ids=["above 1", "NaN", "more rates than sites", "rates without sites", "no site", "none with a rate"],
)
def test_bad_settings_are_refused(arguments, message):
    """The error names the argument."""
    with pytest.raises(ValueError, match=message):
        Setting(*arguments)


def test_a_grid_has_the_baseline_first_and_every_setting_once():
    """A rate of 0 and the kind none are the baseline; a rate out of range is refused, not left out."""
    assert grid(["none", "dropout", "dropout"], [0.0, 0.1, 0.5, 0.1]) == (
        BASELINE, Setting("dropout", 0.1), Setting("dropout", 0.5),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got -0.1"):
        grid(["dropout"], [-0.1])


def test_an_ablation_has_each_site_alone_and_left_out():
    """Of three sites there are all, three alone and three pairs; of two, alone and left out are the same."""
    sites = [setting.sites for setting in ablation("dropout", 0.5, ("a", "b", "c"))[1:]]

    assert sites == [("a", "b", "c"), ("a",), ("b",), ("c",), ("b", "c"), ("a", "c"), ("a", "b")]
    assert [setting.sites for setting in ablation("dropout", 0.5, ("a", "b"))[1:]] == [("a", "b"), ("a",), ("b",)]
    assert [setting.sites for setting in ablation("dropout", 0.5, ("a",))[1:]] == [("a",)]


def test_less_dropout_is_simpler():
    """A lower rate comes first, then fewer sites; every site is more than any."""
    everywhere, two, one = Setting("dropout", 0.5), Setting("dropout", 0.5, ("a", "b")), Setting("dropout", 0.5, ("a",))

    assert sorted([everywhere, two, one, Setting("dropout", 0.1)], key=lambda setting: setting.complexity) == [
        Setting("dropout", 0.1), one, two, everywhere,
    ]  # fmt: skip
