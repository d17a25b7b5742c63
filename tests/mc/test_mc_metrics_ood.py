"""Detection of out-of-distribution inputs: every number is that computed by hand or by brute force."""

import sys
from dataclasses import replace
from statistics import mean

import pytest
import torch
from helpers.predictions import classes, random_prediction, two_classes, values, with_measures

from dropkit.mc import predict
from dropkit.mc.metrics import fit_tau, ood

# It imports torchvision if that is installed, which takes seconds and warns.
TORCHMETRICS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("torchvision"),
]


def uncertain(*measures):
    """A prediction with these measures of uncertainty, one for each input."""
    tensor = torch.tensor(measures)
    prediction = two_classes([0.5] * len(measures))
    return with_measures(prediction, entropy=tensor, mutual_information=tensor, variation_ratio=tensor)


class TestOod:
    pytestmark = TORCHMETRICS

    @pytest.mark.parametrize(
        ("inside", "outside", "expected"),
        [
            ((0.1, 0.2), (0.3, 0.4), (1, 1, 0)),
            ((0.3, 0.4), (0.1, 0.2), (0, (1 / 3 + 2 / 4) / 2, 1)),
            ((0.2, 0.2, 0.2), (0.2,), (0.5, 0.25, 1)),
            ((0.1, 0.3), (0.2, 0.4), (0.75, (1 + 2 / 3) / 2, 0.5)),
            # One of 20 outside may be missed.
            ((0.1, 0.2, 0.5), (0.0,) + (0.3,) * 19, (19 * 2 / 60, None, 1 / 3)),
        ],
    )
    def test_the_numbers_are_those_computed_by_hand(self, inside, outside, expected):
        """Pairs in the right order, mean precision at the outliers, and inputs rejected wrongly."""
        got = ood(uncertain(*inside), uncertain(*outside))

        assert (got.auroc, got.fpr95) == pytest.approx((expected[0], expected[2]))
        assert expected[1] is None or got.aupr == pytest.approx(expected[1])

    @pytest.mark.parametrize("by", ["entropy", "mutual_information", "variation_ratio", "confidence"])
    def test_the_area_is_the_fraction_of_pairs_in_order(self, by):
        """With more uncertainty, or less confidence, an input is more likely out of distribution."""
        (inside, _), (outside, _) = random_prediction(40, samples=2, seed=0), random_prediction(30, samples=3, seed=1)
        low, high = (getattr(r, by) * (-1 if by == "confidence" else 1) for r in (inside, outside))
        pairs = [1.0 if b > a else 0.5 * (b == a).item() for a in low for b in high]

        assert ood(inside, outside, by).auroc == pytest.approx(mean(pairs))

    def test_padding_is_no_outlier(self):
        """Of tokens those count that are not padding; of several labels the sums of the inputs."""
        samples = random_prediction(20, samples=2)[0].mean.view(1, 5, 4, 4)
        valid = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) < 0.7
        r = with_measures(classes(samples), entropy=classes(samples).entropy.where(valid, torch.nan))
        tokens, other = replace(r, valid=valid), random_prediction(30, seed=1)[0]
        left = classes(samples[:, valid])

        assert ood(tokens, other, "entropy") == ood(left, other, "entropy")

    def test_several_labels_count_as_one_input(self):
        """By the sum of their informations."""
        model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(3, 4)).eval()
        inside, outside = (predict(model, torch.randn(n, 3), 8, "multilabel", seed=0) for n in (12, 9))
        expected = ood(*(uncertain(*r.mutual_information.sum(1).tolist()) for r in (inside, outside)))

        assert inside.ood(outside) == expected

    def test_large_measures_are_distinguished(self):
        """Entropies may exceed 1: they are ranked, not taken for logits, for which 20 and 21 are equal in float32."""
        assert ood(uncertain(20.0), uncertain(21.0), "entropy").auroc == 1

    def test_a_prediction_compares_itself_with_another(self):
        """The method is the function, with the other prediction out of distribution."""
        (inside, _), (outside, _) = random_prediction(40, seed=0), random_prediction(30, seed=1)

        assert inside.ood(outside) == ood(inside, outside)
        assert inside.ood(outside, "entropy") == ood(inside, outside, "entropy")


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("torchmetrics", lambda: ood(uncertain(0.1), uncertain(0.2))),
        ("scipy.optimize", lambda: fit_tau(values([[1.0]]), torch.tensor([0.0]))),
    ],
)
def test_a_missing_package_of_a_metric_is_named(library, call, monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.functional", None)

    with pytest.raises(ImportError, match=r'pip install "dropkit\[mc\]"'):
        call()
