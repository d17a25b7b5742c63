"""The tables of a prediction: by class, beside the plain pass, and the pictures of inputs."""

import base64
import io
from dataclasses import replace

import numpy
import pytest
import torch
from helpers.predictions import classes, random_prediction
from matplotlib.image import imread
from torch.utils.data import TensorDataset

from dropkit import mc
from dropkit.mc.per_class import per_class
from dropkit.mc.summary import Summary
from dropkit.mc.thumbnails import Collected, thumbnails


def cells(columns, heading):
    (found,) = (column for column in columns if column.heading == heading)
    return [cell.value if column_is_number(found) else cell.text for cell in found.cells]


def column_is_number(column):
    return column.is_number


def test_the_table_by_class_counts_errors():
    """Of the samples and of the plain pass, with the class that is mistaken most often."""
    r, y = random_prediction()
    plain = r.mean.roll(1, 0)
    columns = per_class(Summary(replace(r, plain=plain), y, None, 0))

    for row, label in enumerate(cells(columns, "class")):
        of_class = y == label
        assert cells(columns, "true")[row] == int(of_class.sum())
        assert cells(columns, "error")[row] == pytest.approx((r.label[of_class] != label).double().mean().item())
        wrong = plain.argmax(-1)[of_class] != label
        assert cells(columns, "plain pass error")[row] == pytest.approx(wrong.double().mean().item())
        right = y[r.label == label] == label
        assert cells(columns, "precision")[row] == pytest.approx(right.double().mean().item())
        taken = r.label[of_class & (r.label != label)].mode().values
        assert cells(columns, "most often taken for")[row].startswith(f"{int(taken)} (")
        assert cells(columns, "entropy")[row] == pytest.approx(r.entropy[of_class].mean().item())


def test_labels_that_do_not_count_are_in_no_class():
    """Padding, labels of -100, and predictions that are not numbers."""
    r = classes([[[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [float("nan")] * 2]]] * 2)

    columns = per_class(Summary(r, torch.tensor([[0, 1], [-100, 1]]), None, 0))

    assert cells(columns, "class") == [0, 1]
    assert cells(columns, "true") == [1, 1]
    assert cells(columns, "error") == [0, 0]


def test_the_table_by_label_counts_misses_and_false_alarms():
    """Of labels of which several are true, those that are true and those that are not."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
    r = mc.predict(model, torch.randn(50, 4), 5, "multilabel", seed=0)
    y = torch.randint(2, (50, 3))

    columns = per_class(Summary(r, y, None, 0))

    for label in range(3):
        own, true = r.label[:, label], y[:, label] == 1
        assert cells(columns, "missed")[label] == pytest.approx((own[true] == 0).double().mean().item())
        assert cells(columns, "false alarms")[label] == pytest.approx((own[~true] == 1).double().mean().item())


def pixels(url):
    return torch.from_numpy(imread(io.BytesIO(base64.b64decode(url.partition(",")[2]))).copy())[..., :3]


IMAGE = torch.rand(5, 3, 8, 10, generator=torch.Generator().manual_seed(0))
IMAGES = {
    "channels first": IMAGE,
    "channels last": IMAGE.movedim(1, 3),
    "array": IMAGE.numpy(),
    "first of a tuple": (IMAGE, torch.zeros(5)),
    "argument": {"x": IMAGE},
    "data set": TensorDataset(IMAGE, torch.zeros(5)),
    "8 bits": (255 * IMAGE).round().to(torch.uint8),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_pictures_show_the_pixels(kind):
    """Of the inputs that are asked for, whatever they come in."""
    found = thumbnails(IMAGES[kind], [3, 1])

    assert list(found) == [3, 1]
    # 8 bits for each channel.
    assert (pixels(found[3]) - IMAGE[3].movedim(0, 2)).abs().max() <= 0.5 / 255 + 1e-6


def test_contrast_is_stretched_and_large_images_shrink():
    """Normalized values fill the range; the longer side has at most 96 pixels."""
    found = pixels(thumbnails(5 * IMAGE.repeat(1, 1, 20, 20) - 2, [0])[0])

    assert found.shape == (77, 96, 3)
    gray = pixels(thumbnails(4 * torch.eye(28).expand(2, 28, 28) - 3, [1])[1])
    assert torch.equal(gray, torch.eye(28)[..., None].expand(28, 28, 3))


@pytest.mark.parametrize(
    "inputs", [torch.rand(5, 8), torch.rand(5, 7, 9), torch.rand(5, 5, 8, 8), None, ["a"], numpy.zeros(4)]
)
def test_what_is_no_image_has_no_picture(inputs):
    """Tables, sequences, maps of many channels, texts."""
    assert thumbnails(inputs, [0]) == {}


def test_pictures_are_collected_from_batches_up_to_a_limit():
    """In the order of the inputs."""
    collected = Collected(3)
    for batch in IMAGE.split(2):
        collected.add(batch)

    found = thumbnails(collected, [0, 2, 4])

    assert list(found) == [0, 2]
    assert found[2] == thumbnails(IMAGE, [2])[2]
