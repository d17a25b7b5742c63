"""Scores for active learning: what is asked is what brute force would ask."""

from dataclasses import replace
from itertools import product
from math import log, sqrt

import pytest
import torch
from helpers.predictions import classes

import dropkit
from dropkit.mc import acquisition
from dropkit.mc.accumulators import entropy
from dropkit.mc.acquisition import bald, batch_bald, variation_ratio


def chance(*shape, seed=0, spread=3.0):
    """Draws of chance, (T, N, ..., classes)."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


def joint_information(draws, inputs):
    """The mutual information of these labels and the network: every configuration, one by one."""
    classes = range(draws.shape[-1])
    joint = torch.stack(
        [
            torch.stack([draws[:, one, label] for one, label in zip(inputs, labels, strict=True)]).prod(0).mean()
            for labels in product(classes, repeat=len(inputs))
        ]
    )
    return (entropy(joint) - sum(entropy(draws[:, one]).mean() for one in inputs)).item()


def greedy(draws, count):
    chosen = []
    for _ in range(count):
        rest = [one for one in range(draws.shape[1]) if one not in chosen]
        chosen.append(max(rest, key=lambda one: joint_information(draws, [*chosen, one])))
    return chosen


# Single inputs


def test_scores_are_the_measures():
    """BALD is the mutual information; the others are what they are called."""
    r = classes(chance(5, 6, 3))

    assert torch.equal(bald(r), r.mutual_information)
    assert torch.equal(acquisition.entropy(r), r.entropy)
    assert torch.equal(variation_ratio(r), r.variation_ratio)


@pytest.mark.parametrize("score", [bald, acquisition.entropy, variation_ratio])
def test_an_input_with_many_labels_has_one_score(score):
    """That is the mean over its labels."""
    draws = chance(5, 6, 2, 4, 3)

    got = score(classes(draws))

    each = [score(classes(draws[:, :, row, column])) for row, column in product(range(2), range(4))]
    assert got.shape == (6,)
    assert got.tolist() == pytest.approx(torch.stack(each).mean(0).tolist(), rel=1e-5)


def test_disagreement_is_asked_first():
    """Two networks that are sure of different classes, before two that are unsure, before two that agree."""
    r = classes([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]])

    assert bald(r).tolist() == pytest.approx([log(2), 0, 0])
    assert acquisition.entropy(r).tolist() == pytest.approx([log(2), log(2), 0])


# Batches


@pytest.mark.parametrize("seed", range(5))
def test_the_batch_is_that_of_brute_force(seed):
    """Each next input has the largest joint information with those chosen before, over every configuration."""
    draws = chance(5, 6, 3, seed=seed)

    assert batch_bald(classes(draws), 4).tolist() == greedy(draws, 4)


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_some_networks_rule_out_do_no_harm(seed):
    """Configurations of probability 0 count for nothing, and are no division by it."""
    draws = torch.nn.functional.one_hot(chance(12, 6, 3, seed=seed).argmax(-1), 3).double()

    got = batch_bald(classes(draws), 3).tolist()

    # Several are as good.
    for count in (1, 2, 3):
        best = max(joint_information(draws, [*got[: count - 1], one]) for one in {*range(6)} - {*got[: count - 1]})
        assert joint_information(draws, got[:count]) == pytest.approx(best)


@pytest.mark.parametrize("exact", [1, 100_000])
def test_the_same_thing_is_not_asked_twice(exact):
    """The copy of the best input is the second best of BALD, and the last of BatchBALD."""
    one, other = chance(2, 40, 1, 3, seed=1)
    draws = torch.cat([one, one, 0.8 * other + 0.2 / 3], 1)
    r = classes(draws)

    assert bald(r).topk(2).indices.sort().values.tolist() == [0, 1]
    assert batch_bald(r, 2, exact=exact, seed=0).tolist() == [0, 2]


@pytest.mark.parametrize("exact", [1, 9, 100_000])
def test_the_information_of_the_next_label_is_that_of_brute_force(exact):
    """Counted it is the same to the last digits; drawn, from the first label on or the second, within five standard
    errors, of numbers up to log 3.
    """
    draws, chosen, configurations = chance(5, 6, 3, seed=3), [4, 1, 2], 20_000
    joint = acquisition._Joint(draws)
    for count in range(1, 4):
        joint.grow(chosen[:count], exact, configurations, seed=0)

    gain = joint.entropy_of_next() - entropy(draws).mean(0)

    before = joint_information(draws, chosen)
    expected = [joint_information(draws, [*chosen, one]) - before for one in range(6)]
    bound = 1e-9 if exact > 9 else 5 * log(3) / 2 / sqrt(configurations)
    assert gain.tolist() == pytest.approx(expected, abs=bound)


def test_configurations_are_drawn_only_where_there_are_too_many():
    """Of two labels of three classes there are nine: with room for nine nothing is drawn, with less it is."""
    r = classes(chance(5, 6, 3))
    before = torch.get_rng_state()

    batch_bald(r, 2, exact=9)
    untouched = torch.equal(torch.get_rng_state(), before)
    batch_bald(r, 2, exact=8)

    assert untouched
    assert not torch.equal(torch.get_rng_state(), before)


def test_equal_seeds_choose_equally():
    """With few configurations chance decides: a seed fixes it, and leaves torch's generator alone."""
    r = classes(chance(5, 200, 3, spread=0.5))
    before = torch.get_rng_state()

    chosen = [batch_bald(r, 8, exact=1, configurations=3, seed=seed).tolist() for seed in (0, 0, 1, 2)]

    assert chosen[0] == chosen[1]
    assert len({tuple(one) for one in chosen}) > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_only_candidates_are_chosen():
    """What is chosen from some is what is chosen where there are no others, by its own number."""
    draws, some = chance(5, 8, 3), torch.tensor([6, 1, 3, 2])

    got = batch_bald(classes(draws), 3, candidates=some)

    assert torch.equal(got, some[batch_bald(classes(draws[:, some]), 3)])
    assert batch_bald(classes(draws), 3, candidates=some.tolist()).tolist() == got.tolist()


def test_how_many_are_looked_at_together_does_not_matter(monkeypatch):
    """Memory for one input at a time is enough."""
    r = classes(chance(5, 6, 3))
    expected = batch_bald(r, 4)

    monkeypatch.setattr(acquisition, "_TOGETHER", 1)

    assert torch.equal(batch_bald(r, 4), expected)


def test_a_batch_of_all_is_all():
    """Each input once, the best first."""
    r = classes(chance(5, 6, 3))

    got = batch_bald(r, 6)

    assert got[0] == bald(r).argmax()
    assert got.sort().values.tolist() == list(range(6))


def test_a_prediction_with_shared_masks_is_chosen_from():
    """The draws of a real model are taken as they are."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 30), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(30, 4))
    r = dropkit.mc.predict(model, 3 * torch.randn(6, 3), 30, masks="shared", keep_samples=True, seed=0)

    assert batch_bald(r, 3).tolist() == greedy(r.draws.double(), 3)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"count": 0}, ValueError, r"count must be in \[1, 6\], the number of candidates, got 0"),
        ({"count": 3, "candidates": [1, 2]}, ValueError, r"count must be in \[1, 2\], the number of candidates, got 3"),
        ({"count": 1, "candidates": [1, 6]}, ValueError, r"candidates must be in \[0, 6\), got \[6\]"),
        ({"count": 1, "candidates": [-1]}, ValueError, r"candidates must be in \[0, 6\), got \[-1\]"),
        ({"count": 1, "candidates": [2, 2]}, ValueError, "candidates must be different from one another"),
        ({"count": 1, "candidates": [[1]]}, ValueError, r"candidates must be of one dimension, got \(1, 1\)"),
        ({"count": 1, "candidates": [1.0]}, TypeError, "candidates must hold numbers of inputs as integers"),
        ({"count": 1, "candidates": torch.ones(6) > 0}, TypeError, "as integers, got torch.bool"),
        ({"count": 1, "exact": 0}, ValueError, "exact must be an integer of at least 1, got 0"),
        ({"count": 1, "configurations": 0}, ValueError, "configurations must be an integer of at least 1, got 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments, kind, message):
    """The error says what was wanted and what came."""
    with pytest.raises(kind, match=message):
        batch_bald(classes(chance(5, 6, 3)), **arguments)


def test_draws_must_have_been_kept():
    """Without them nothing is joint, and the error says how to keep them."""
    with pytest.raises(ValueError, match=r'pass masks="shared" and keep_samples=True to predict'):
        batch_bald(replace(classes(chance(5, 6, 3)), draws=None), 1)


def test_every_input_must_have_every_sample():
    """A network that has not seen an input cannot say what its label tells."""
    r = replace(classes(chance(5, 3, 3)), samples=torch.tensor([5, 4, 5]))

    with pytest.raises(ValueError, match="samples must be 5 of every input, so predict without until, got 4"):
        batch_bald(r, 1)


def test_a_batch_is_of_single_labels():
    """Inputs with many labels have too many configurations."""
    with pytest.raises(ValueError, match=r"draws must be of shape \(T, N, classes\), got \(5, 6, 2, 3\)"):
        batch_bald(classes(chance(5, 6, 2, 3)), 1)


@pytest.mark.parametrize("score", [bald, acquisition.entropy, variation_ratio, lambda r: batch_bald(r, 1)])
def test_values_have_no_scores(score):
    """They have no classes to disagree about."""
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 1))
    r = dropkit.mc.predict(model, torch.randn(2, 3), 2, "regression", keep_samples=True)

    with pytest.raises(TypeError, match="r must be a ClassPrediction, got ValuePrediction"):
        score(r)
