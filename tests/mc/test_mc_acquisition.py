"""Acquisition functions: the choice is that of brute force."""

from dataclasses import replace
from itertools import product
from math import log, sqrt

import pytest
import torch
from helpers.predictions import classes

import dropkit
from dropkit.mc import acquisition
from dropkit.mc.acquisition import bald, batch_bald, score, variation_ratio
from dropkit.mc.measures import entropy

EPS = torch.finfo(torch.float32).eps


def random_samples(*shape, seed=0, spread=3.0):
    """Random class probabilities, (T, N, ..., classes)."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


def joint_information(samples, inputs):
    """The mutual information of these labels and the network, from every configuration of labels."""
    classes = range(samples.shape[-1])
    joint = torch.stack(
        [
            torch.stack([samples[:, input, label] for input, label in zip(inputs, labels, strict=True)]).prod(0).mean()
            for labels in product(classes, repeat=len(inputs))
        ]
    )
    return (entropy(joint) - sum(entropy(samples[:, input]).mean() for input in inputs)).item()


def greedy(samples, count):
    """The inputs that brute force chooses."""
    chosen = []
    for _ in range(count):
        rest = [input for input in range(samples.shape[1]) if input not in chosen]
        gains = [joint_information(samples, [*chosen, input]) for input in rest]
        chosen.append(rest[gains.index(max(gains))])
    return chosen


# Single inputs


def test_acquisition_functions_are_the_measures():
    """BALD is the mutual information; the others bear the names of their measures."""
    r = classes(random_samples(5, 6, 3))

    assert torch.equal(bald(r), r.mutual_information)
    assert torch.equal(acquisition.entropy(r), r.entropy)
    assert torch.equal(variation_ratio(r), r.variation_ratio)
    assert torch.equal(score(r, "expected_entropy"), r.expected_entropy)


def test_a_score_is_signed():
    """Higher scores are labelled first, so that a high confidence is a low score."""
    r = classes(random_samples(5, 6, 3))

    assert torch.equal(score(r, "confidence"), -r.confidence)


def test_a_score_of_an_unknown_measure_is_refused():
    """The error lists the measures."""
    with pytest.raises(ValueError, match=r'by must be "entropy", .* or "confidence", got margin'):
        score(classes(random_samples(5, 6, 3)), "margin")


@pytest.mark.parametrize("function", [bald, acquisition.entropy, variation_ratio])
def test_an_input_with_many_labels_has_one_score(function):
    """That is the mean over its labels."""
    samples = random_samples(5, 6, 2, 4, 3)

    got = function(classes(samples))

    of_labels = [function(classes(samples[:, :, row, column])) for row, column in product(range(2), range(4))]
    assert got.shape == (6,)
    # Two sums of eight numbers up to log 3 in float32.
    assert got.tolist() == pytest.approx(torch.stack(of_labels).mean(0).tolist(), abs=2 * 8 * log(3) * EPS)


def test_several_labels_of_an_input_add_up():
    """Entropies and informations are summed over the labels that are not padding; other measures are means."""
    model, x = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 4)).eval(), torch.randn(5, 3)
    valid = torch.arange(4) < torch.tensor([4, 3, 4, 1, 2])[:, None]
    whole, part = (dropkit.mc.predict(model, x, 8, "multilabel", seed=0, valid=where) for where in (None, valid))

    for function, by in ((bald, "mutual_information"), (acquisition.entropy, "entropy")):
        assert torch.allclose(function(whole), whole.measures[by].sum(1))
        assert torch.allclose(function(part), whole.measures[by].where(valid, 0.0).sum(1))
    assert torch.allclose(score(whole, "confidence"), -whole.confidence.mean(1))
    assert torch.allclose(variation_ratio(part), part.variation_ratio.nanmean(1))
    with pytest.raises(TypeError, match="r must hold one label for each input"):
        batch_bald(whole, 2)


def test_disagreement_is_labelled_first():
    """Two networks that are certain of different classes, before two uncertain ones, before two that agree."""
    r = classes([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]])

    # The samples' entropies, up to log 2, are rounded to float32.
    assert bald(r).tolist() == pytest.approx([log(2), 0, 0], abs=EPS)
    assert acquisition.entropy(r).tolist() == pytest.approx([log(2), log(2), 0], abs=EPS)


# Batches


@pytest.mark.parametrize("seed", range(5))
def test_the_batch_is_that_of_brute_force(seed):
    """Each next input has the largest joint information with those chosen before, over every configuration."""
    samples = random_samples(5, 6, 3, seed=seed)

    assert batch_bald(classes(samples), 4).tolist() == greedy(samples, 4)


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_some_networks_exclude_are_skipped(seed):
    """Configurations of probability 0 add nothing, and nothing is divided by 0."""
    samples = torch.nn.functional.one_hot(random_samples(12, 6, 3, seed=seed).argmax(-1), 3).double()

    got = batch_bald(classes(samples), 3).tolist()

    # Several choices are equally good.
    for count in (1, 2, 3):
        rest = {*range(6)} - {*got[: count - 1]}
        best = max(joint_information(samples, [*got[: count - 1], input]) for input in rest)
        assert joint_information(samples, got[:count]) == pytest.approx(best)


@pytest.mark.parametrize("exact", [1, 100_000])
def test_a_copy_of_a_chosen_input_is_not_chosen(exact):
    """The copy of the best input is the second choice of BALD, and the last of BatchBALD."""
    best, other = random_samples(2, 40, 1, 3, seed=1)
    r = classes(torch.cat([best, best, 0.8 * other + 0.2 / 3], 1))

    assert bald(r).topk(2).indices.sort().values.tolist() == [0, 1]
    assert batch_bald(r, 2, exact=exact, seed=0).tolist() == [0, 2]


@pytest.mark.parametrize("exact", [1, 9, 100_000])
def test_the_information_of_the_next_label_is_that_of_brute_force(exact):
    """Enumerated it is equal up to rounding; sampled, from the first label on or the second, within five standard
    errors, of numbers up to log 3.
    """
    samples, chosen, configurations = random_samples(5, 6, 3, seed=3), [4, 1, 2], 20_000
    joint = acquisition._JointLabels(samples)
    for count in range(1, 4):
        joint.add_last(chosen[:count], exact, configurations, seed=0)

    gain = joint.entropy_of_next() - entropy(samples).mean(0)

    before = joint_information(samples, chosen)
    expected = [joint_information(samples, [*chosen, input]) - before for input in range(6)]
    # In float64, sums over the 81 configurations of four labels of three classes, each up to log 3 per label.
    rounding = 81 * 4 * log(3) * torch.finfo(torch.float64).eps
    bound = rounding if exact > 9 else 5 * log(3) / 2 / sqrt(configurations)
    assert gain.tolist() == pytest.approx(expected, abs=bound)


def test_configurations_are_sampled_only_where_there_are_too_many():
    """Two labels of three classes have nine configurations: with room for nine nothing is sampled."""
    r = classes(random_samples(5, 6, 3))
    before = torch.get_rng_state()

    batch_bald(r, 2, exact=9)
    untouched = torch.equal(torch.get_rng_state(), before)
    batch_bald(r, 2, exact=8)

    assert untouched
    assert not torch.equal(torch.get_rng_state(), before)


def test_equal_seeds_choose_equally():
    """With few sampled configurations the choice is random: a seed fixes it, and torch's generator is untouched."""
    r = classes(random_samples(5, 200, 3, spread=0.5))
    before = torch.get_rng_state()

    chosen = [batch_bald(r, 8, exact=1, configurations=3, seed=seed).tolist() for seed in (0, 0, 1, 2)]

    assert chosen[0] == chosen[1]
    assert len({tuple(inputs) for inputs in chosen}) > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_only_candidates_are_chosen():
    """The choice is that from a prediction of the candidates alone, by their own numbers."""
    samples, candidates = random_samples(5, 8, 3), torch.tensor([6, 1, 3, 2])

    got = batch_bald(classes(samples), 3, candidates=candidates)

    assert torch.equal(got, candidates[batch_bald(classes(samples[:, candidates]), 3)])
    assert batch_bald(classes(samples), 3, candidates=candidates.tolist()).tolist() == got.tolist()


def test_memory_for_one_input_at_a_time_is_enough(monkeypatch):
    """The choice does not depend on how many inputs are computed together."""
    r = classes(random_samples(5, 6, 3))
    expected = batch_bald(r, 4)

    monkeypatch.setattr(acquisition, "_NUMBERS_AT_ONCE", 1)

    assert torch.equal(batch_bald(r, 4), expected)


def test_a_batch_of_all_is_all():
    """Each input once, the best first."""
    r = classes(random_samples(5, 6, 3))

    got = batch_bald(r, 6)

    assert got[0] == bald(r).argmax()
    assert got.sort().values.tolist() == list(range(6))


def test_a_prediction_with_shared_masks_is_chosen_from():
    """The samples of a real model are used as they are."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 30), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(30, 4))
    r = dropkit.mc.predict(model, 3 * torch.randn(6, 3), 30, masks="shared", keep_samples=True, seed=0)

    assert batch_bald(r, 3).tolist() == greedy(r.samples.double(), 3)


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
        batch_bald(classes(random_samples(5, 6, 3)), **arguments)


def test_samples_must_have_been_kept():
    """Without them there is no joint distribution, and the error says how to keep them."""
    with pytest.raises(ValueError, match=r'pass masks="shared" and keep_samples=True to predict'):
        batch_bald(replace(classes(random_samples(5, 6, 3)), samples=None), 1)


def test_every_input_must_have_every_sample():
    """A network without a prediction for an input tells nothing about its label."""
    r = replace(classes(random_samples(5, 3, 3)), sample_counts=torch.tensor([5, 4, 5]))

    with pytest.raises(
        ValueError, match="sample_counts must be 5 of every input, so predict without target_standard_error, got 4"
    ):
        batch_bald(r, 1)


def test_a_batch_is_of_single_labels():
    """Inputs with many labels have too many configurations."""
    with pytest.raises(ValueError, match=r"samples must be of shape \(T, N, classes\), got \(5, 6, 2, 3\)"):
        batch_bald(classes(random_samples(5, 6, 2, 3)), 1)


@pytest.mark.parametrize("function", [bald, acquisition.entropy, variation_ratio, lambda r: batch_bald(r, 1)])
def test_values_have_no_score(function):
    """They have no classes to disagree about."""
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 1))
    r = dropkit.mc.predict(model, torch.randn(2, 3), 2, "regression", keep_samples=True)

    with pytest.raises(TypeError, match="r must be a ClassPrediction, got ValuePrediction"):
        function(r)
