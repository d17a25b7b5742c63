"""The sentence that answers the question, from outcomes that are given."""

from math import nan

import pytest

from dropkit.studies.evaluation import ERROR, Metric
from dropkit.studies.recommendation import recommend
from dropkit.studies.rows import rows
from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.trial import Outcome, Trial

LOW, HIGH, BUG = Setting("dropout", 0.1), Setting("dropout", 0.5), Setting("always-on", 0.5)
LUCK = (0.0, 0.03, -0.02, 0.01)


def outcomes_of(errors, metric="error", seeds=4):
    """Outcomes with these errors in validation and test, which vary with the seed, and a little with the setting."""
    return [
        Outcome(Trial("net", setting, seed), {
            f"validation_{metric}": validation + LUCK[seed] + number * (seed % 2 - 0.5) * 1e-3,
            f"test_{metric}": test + LUCK[seed] + number * (seed % 2 - 0.5) * 1e-3,
        })
        for number, (setting, (validation, test)) in enumerate(errors.items())
        for seed in range(seeds)
    ]  # fmt: skip


def answer(outcomes, metric=ERROR, chance=None):
    return recommend(rows(outcomes), metric, chance)


def test_the_setting_with_least_dropout_of_the_good_ones_is_chosen():
    """One that is better by less than a standard error is not preferred."""
    found = answer(outcomes_of({BASELINE: (0.2, 0.21), HIGH: (0.0999, 0.12), LOW: (0.1, 0.11)}))

    assert found.setting == LOW
    assert found.sentence.startswith("net: use dropout p=0.1; it changes the test error by -10.00 points (")
    assert found.change.high < 0


def test_the_choice_is_made_on_validation_and_reported_on_test():
    """What looks best on test examples has no say."""
    found = answer(outcomes_of({BASELINE: (0.3, 0.31), LOW: (0.1, 0.2), HIGH: (0.2, 0.05)}))

    assert found.setting == LOW
    assert found.change.mean == pytest.approx(-0.11, abs=0.001)


def test_metrics_that_are_better_when_higher():
    """The sign follows the metric."""
    accuracy = Metric("accuracy", "accuracy", is_higher_better=True)

    found = answer(outcomes_of({BASELINE: (0.7, 0.71), LOW: (0.8, 0.8), HIGH: (0.6, 0.6)}, "accuracy"), accuracy)

    assert found.setting == LOW
    assert found.change.low > 0


def test_dropout_that_does_harm_is_not_used():
    """If none is better in validation, the sentence says so; if one is worse on test, too."""
    worse = answer(outcomes_of({BASELINE: (0.1, 0.11), LOW: (0.2, 0.2)}))
    worse_on_test = answer(outcomes_of({BASELINE: (0.3, 0.1), LOW: (0.2, 0.2)}))

    assert worse.sentence == "net: use no dropout; no other setting has a better validation error."
    assert worse_on_test.sentence.startswith("net: use no dropout; dropout p=0.1 changes the test error by +10")
    assert worse.setting == worse_on_test.setting == BASELINE


def test_an_open_question_says_how_many_more_seeds_would_answer_it():
    """Where the interval contains 0."""
    outcomes = [
        Outcome(Trial("net", s, seed), {"validation_error": e, "test_error": e + 0.001})
        for s, errors in ((BASELINE, (0.2, 0.21, 0.2)), (LOW, (0.15, 0.22, 0.16)))
        for seed, e in enumerate(errors)
    ]

    found = answer(outcomes)

    assert found.setting == BASELINE
    assert found.best == LOW
    assert "no difference that these trials could show (dropout p=0.1 changes" in found.sentence
    assert f"about {found.more_seeds} more seeds would" in found.sentence


def test_the_mistake_is_never_recommended():
    """However good its numbers are."""
    found = answer(outcomes_of({BASELINE: (0.3, 0.31), BUG: (0.1, 0.11), LOW: (0.2, 0.21)}))

    assert found.setting == LOW


def test_choice_and_report_on_the_same_examples_are_named():
    """As with a training of the user's that returns one number."""
    same = outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)})

    assert "chosen and reported on the same examples" in answer(same).sentence
    assert "same examples" not in answer(outcomes_of({BASELINE: (0.3, 0.31), LOW: (0.2, 0.2)})).sentence


def failed(outcome, failure="test_error is not finite"):
    return Outcome(outcome.trial, {"validation_error": nan, "test_error": 0.9}, {}, 1.0, failure)


def test_failures_are_no_numbers():
    """A setting with a failed trial has no part in the choice, and the sentence says so."""
    outcomes = outcomes_of({BASELINE: (0.3, 0.31), LOW: (0.2, 0.21), HIGH: (0.1, 0.11)})

    found = answer([*outcomes[:-1], failed(outcomes[-1])])

    assert found.setting == LOW
    assert "1 setting with failed or missing trials had no part in it" in found.sentence
    assert rows([*outcomes[:-1], failed(outcomes[-1])])[2].metrics["test_error"].mean < 0.2


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        (outcomes_of({LOW: (0.2, 0.2)}), "there is no trial without dropout"),
        (outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)}, seeds=1), "an interval needs at least 2 seeds"),
        (outcomes_of({BASELINE: (0.8, 0.8), LOW: (0.2, 0.2)}), "near chance: its validation error is 83.0%"),
        (outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)}, "loss"), "there is no validation_error"),
        ([failed(o) if o.trial.setting == BASELINE and o.trial.seed == 1 else o
          for o in outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)})],
         r"1 of 4 trials without dropout failed \(test_error is not finite\)"),
        ([failed(o) if o.trial.setting == LOW and o.trial.seed == 1 else o
          for o in outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)})],
         "every setting with dropout has failed or missing trials"),
        ([Outcome(Trial("net", s, seed), {"validation_error": e, "test_error": e})
          for s, e in ((BASELINE, 0.5), (LOW, 0.25)) for seed in range(3)],
         "dropout p=0.1 changes the test error by -0.25 with every seed"),
    ],
    ids=["no baseline", "one seed", "chance", "no metric", "baseline failed", "all others failed", "no spread"],
)  # fmt: skip
def test_nothing_is_concluded_where_nothing_was_shown(outcomes, reason):
    """There is no setting and no change, and the sentence says why."""
    found = answer(outcomes, chance=0.8)

    assert found.setting is None
    assert found.change is None
    assert found.sentence.startswith("net: nothing can be concluded, since")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.sentence)


def test_models_are_compared_with_their_own_baseline():
    """Rows of several models keep apart."""
    first = outcomes_of({BASELINE: (0.3, 0.3), LOW: (0.2, 0.2)})
    second = [Outcome(Trial("other", o.trial.setting, o.trial.seed), dict.fromkeys(o.metrics, 0.5)) for o in first]

    found = rows([*first, *second])

    assert [row.model for row in found] == ["net", "net", "other", "other"]
    assert found[3].changes["test_error"].mean == 0
    assert found[1].changes["test_error"].mean == pytest.approx(-0.1, abs=0.001)
