"""How data is split and standardised."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkit.studies.data import PARTS, Data, Sizes, split


def data_of(counts, seed=0):
    """Numbered examples with so many of each class, in random order."""
    targets = torch.cat([torch.full((count,), index) for index, count in enumerate(counts)])
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
    names = tuple(map(str, range(len(counts))))
    return Data(torch.arange(len(targets))[:, None], targets, names, is_standardised=False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=5).filter(lambda counts: sum(counts) >= 10), st.integers(0, 99)
)
@settings(max_examples=50, deadline=None)
def test_parts_are_disjoint_and_balanced(counts, seed):
    """Each example is in one part at most, and a part has each class within two examples of its share."""
    data = data_of(counts)

    parts = split(data, Sizes(), generator(seed))

    numbers = torch.cat([getattr(parts, part).inputs for part in PARTS]).flatten()
    assert len(numbers.unique()) == len(numbers) == len(data)
    for part in PARTS:
        examples = getattr(parts, part)
        assert torch.equal(data.targets[examples.inputs.flatten()], examples.targets)
        share = torch.tensor(counts) * len(examples) / len(data)
        assert ((examples.targets.bincount(minlength=len(counts)) - share).abs() < 2).all()


def test_a_split_depends_on_the_seed_alone():
    """Another seed gives other parts, of the same sizes."""
    data = data_of([30, 30])

    first, again, other = (split(data, Sizes(0.5, 10, 5), generator(seed)) for seed in (0, 0, 1))

    assert (len(first.training), len(first.validation), len(first.test)) == (30, 10, 5)
    assert torch.equal(first.training.inputs, again.training.inputs)
    assert not torch.equal(first.training.inputs, other.training.inputs)


def test_tables_are_standardised_by_column_and_images_as_a_whole():
    """By the mean and standard deviation of the training examples alone; columns without spread are only centred."""
    table = Data(torch.randn(50, 3) * torch.tensor([1.0, 100.0, 0.0]) + 7, torch.arange(50) % 2, ("0", "1"))
    images = Data(torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8), torch.arange(50) % 2, ("0", "1"))

    columns, pixels = (split(data, Sizes(), generator()).training.inputs for data in (table, images))

    bound = 1e-5  # of sums of 30 float32 numbers around 7, relative to a spread of 1
    assert (columns.mean(0).abs() < bound).all()
    assert ((columns.std(0, correction=0) - torch.tensor([1.0, 1.0, 0.0])).abs() < bound).all()
    assert abs(pixels.mean()) < bound
    assert abs(pixels.std(correction=0) - 1) < bound


def test_values_are_standardised_by_column_and_keep_their_unit():
    """Each of several targets has a spread of 1 in training, and center and scale give it back."""
    targets = torch.randn(50, 2) * torch.tensor([1.0, 1e4]) + 5
    parts = split(Data(torch.arange(50)[:, None], targets), Sizes(), generator())

    back = parts.test.targets * parts.scale + parts.center

    assert torch.allclose(parts.training.targets.std(0, correction=0), torch.ones(2))
    assert torch.allclose(back, targets[parts.test.inputs.flatten()], rtol=1e-4)


def test_parts_that_the_data_states_are_kept():
    """Validation examples are drawn from the training ones if they are not stated; other sizes are refused."""
    stated = torch.tensor([0] * 40 + [2] * 20)
    data = replace(data_of([30, 30]), parts=stated)

    parts = split(data, Sizes(validation=0.25), generator())

    assert sorted(parts.test.inputs.flatten().tolist()) == list(range(40, 60))
    assert sorted(torch.cat([parts.training.inputs, parts.validation.inputs]).flatten().tolist()) == list(range(40))
    assert len(parts.validation) == 10
    with pytest.raises(ValueError, match="sizes must be left out"):
        split(data, Sizes(training=10), generator())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (Sizes(0.9, 0.2, 0.2), "sizes must be at most the 50 examples"),
        (Sizes(validation=0), "validation size must be at least 1"),
        (Sizes(validation=30, test=20), "training size must be at least 1"),
    ],
    ids=["too many", "no validation", "nothing left"],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    """The error names the part."""
    with pytest.raises(ValueError, match=message):
        sizes.counts(50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.arange(49) % 2}, "targets must be one for each of 50 inputs, got 49"),
        ({"inputs": torch.full((50, 2), torch.nan)}, "inputs must be finite numbers, got 100"),
        ({"targets": torch.full((50,), 2)}, "targets must be classes from 0 to 1, got 2"),
        ({"targets": torch.rand(50)}, "targets must be integers where there are classes"),
        ({"classes": ("a",), "targets": torch.zeros(50).long()}, "targets must be of at least 2 classes"),
        ({"inputs": torch.rand(5, 2), "targets": torch.zeros(5).long()}, "inputs must be at least 10 examples"),
    ],
    ids=["lengths", "NaN", "no such class", "floats as classes", "one class", "few"],
)
def test_bad_data_is_refused(change, message):
    """The error says what is wrong, and how much of it."""
    good = Data(torch.rand(50, 2), torch.arange(50) % 2, ("0", "1"))

    with pytest.raises(ValueError, match=message):
        replace(good, **change)
