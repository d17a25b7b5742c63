"""Maps of each pixel: what they show, in a figure and on a page."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from helpers.predictions import random_prediction
from torch import Tensor, nn

from dropkit import mc

N, SIZE = 4, 9
IMAGES = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
NET = nn.Sequential(nn.Dropout2d(0.4), nn.Conv2d(3, 4, 3, padding=1))


def predicted(task: str = "classification", **options: Any) -> Any:
    return mc.predict(NET, IMAGES, 5, task, seed=0, **({"class_dim": 1} if task == "classification" else {}), **options)


def drawn(figure: Any) -> dict[str, list[Tensor]]:
    """The values of the maps by their titles, a list of the inputs; padding is nan."""
    found: dict[str, list[Tensor]] = {}
    for axes in figure.axes:
        if axes.images:
            values = torch.as_tensor(axes.images[0].get_array().filled(float("nan")))
            found.setdefault(axes.get_title(), []).append(values)
    return found


def test_maps_of_classes_show_the_measures() -> None:
    """The input, the predicted class, entropy and mutual information, of the first inputs."""
    r = predicted()

    maps = drawn(r.plot_maps(IMAGES, top=2))

    assert list(maps) == ["input", "predicted class", "entropy", "mutual information"]
    for number in range(2):
        assert torch.equal(maps["predicted class"][number], r.label[number].float())
        assert torch.equal(maps["entropy"][number], r.entropy[number])
        assert torch.equal(maps["mutual information"][number], r.mutual_information[number])
        expected = (255 * IMAGES[number]).round().movedim(0, 2)
        assert torch.equal(maps["input"][number].float(), expected)
    assert [len(values) for values in maps.values()] == [2] * 4


def test_maps_of_values_show_mean_and_spread() -> None:
    """One channel as it is, several by their mean; the noise where the model returns it."""
    r = predicted("regression")
    noisy = predicted("regression", outputs="mean_log_variance")
    single = mc.ValuePrediction(
        {name: value[:, 0] for name, value in r.measures.items()}, {}, r.sample_counts, None, ()
    )

    maps, of_one = drawn(r.plot_maps()), drawn(single.plot_maps())

    assert list(of_one) == ["mean", "standard deviation"]
    assert torch.equal(of_one["standard deviation"][2], r.std[2, 0])
    assert torch.equal(maps["mean, channels averaged"][0], r.mean[0].mean(0))
    assert any("of the noise" in title for title in drawn(noisy.plot_maps()))


def test_colours_have_one_scale_and_names() -> None:
    """A colour means the same in each row; classes have their names, and padding no colour."""
    valid = torch.ones(N, SIZE, SIZE)
    valid[:, :2] = 0

    figure = predicted(valid=valid).plot_maps(classes=["sky", "sea", "land", "tree"])

    images = {axes.get_title(): [] for axes in figure.axes if axes.images}
    for axes in figure.axes:
        if axes.images:
            images[axes.get_title()].append(axes.images[0])
    for of_inputs in images.values():
        assert len({image.get_clim() for image in of_inputs}) == 1
        assert all(image.get_array().mask[:2].all() and not image.get_array().mask[2:].any() for image in of_inputs)
    bar = images["predicted class"][0].colorbar.ax
    assert [label.get_text() for label in bar.get_yticklabels()] == ["sky", "sea", "land", "tree"]
    assert images["entropy"][0].colorbar.ax.get_ylabel() == "nats"


def test_a_figure_can_be_written_as_png() -> None:
    """Without a display, and with measures that were not computed."""
    file = io.BytesIO()

    predicted(measures=["entropy"]).plot_maps(IMAGES.numpy(), top=1).savefig(file)

    assert file.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_page_shows_maps_of_the_first_inputs(task: str) -> None:
    """Three figures, with a description for those who cannot see them."""
    page = predicted(task).to_html(inputs=IMAGES)

    for number in range(3):
        assert f"<h2>Input {number}</h2>" in page
        assert f'aria-label="Maps of input {number}: input, ' in page
    assert "<h2>Input 3</h2>" not in page


def test_what_is_no_image_has_no_maps() -> None:
    """A class for each input, or for each token."""
    r, _ = random_prediction()

    assert "Maps of input" not in r.to_html()
    with pytest.raises(ValueError, match=r"prediction must be of a class or value for each pixel, .* got \(200,\)"):
        r.plot_maps()
