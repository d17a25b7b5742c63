"""The functions of docs/monte-carlo-recipes.md, taken from the page, do what it says."""

from __future__ import annotations

import re
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dropkit.mc import sampling

PAGE = Path(__file__).parents[2] / "docs" / "monte-carlo-recipes.md"


@pytest.fixture(scope="module")
def page() -> Any:
    """What the code of the page defines."""
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), names)
    return SimpleNamespace(**names)


def sample(*objects: tuple[list[float], int, float]) -> dict[str, Tensor]:
    """The boxes of a sample."""
    boxes, labels, scores = zip(*objects, strict=True) if objects else ([], [], [])
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores),
    }


def test_boxes_are_matched_over_samples(page: Any) -> None:
    """By label and overlap, one of each sample; their mean, spread, score and how often they were found."""
    near, far = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    moved = [2.0, 0.0, 12.0, 10.0]

    got = page.merge([sample((near, 1, 0.9), (moved, 1, 0.5)), sample((far, 1, 0.8), (moved, 1, 0.7)), sample()])

    assert got["boxes"].tolist() == [[1.0, 0.0, 11.0, 10.0], far, moved]
    assert got["std"][0].tolist() == pytest.approx([2**0.5, 0, 2**0.5, 0])
    assert bool(got["std"][1:].isnan().all())
    assert got["scores"].tolist() == pytest.approx([1.6 / 3, 0.8 / 3, 0.5 / 3])
    assert got["found"].tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])


def test_boxes_of_other_labels_are_other_objects(page: Any) -> None:
    """However much they overlap."""
    box = [0.0, 0.0, 10.0, 10.0]

    got = page.merge([sample((box, 1, 0.9)), sample((box, 2, 0.9))])

    assert sorted(got["labels"].tolist()) == [1, 2]


def test_samples_without_boxes_have_no_objects(page: Any) -> None:
    """The result has the shapes of one with objects."""
    assert {name: tuple(value.shape) for name, value in page.merge([sample(), sample()]).items()} == {
        "boxes": (0, 4),
        "std": (0, 4),
        "labels": (0,),
        "scores": (0,),
        "found": (0,),
    }


def test_equal_samples_have_no_spread(page: Any) -> None:
    """Without dropout every box is found in every sample."""
    (boxes, _) = page.detector(page.images)

    got = page.merge([boxes] * 3)

    assert len(got["boxes"]) == len(boxes["boxes"]) > 0
    assert bool((got["found"] == 1).all())
    assert got["std"].abs().max() < 1e-4


def test_the_detector_of_the_page_finds_different_numbers_of_boxes(page: Any) -> None:
    """As matching is there for; and boxes move."""
    counts = {len(of_image["boxes"]) for of_images in page.passes for of_image in of_images}
    objects = page.merge([of_images[0] for of_images in page.passes])

    assert len(counts) > 1
    assert objects["std"].nan_to_num(0).max() > 0
    assert 0 < objects["found"].min() < 1


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:GeneralizedRCNNTransform draws random numbers")
def test_a_detector_of_torchvision_is_sampled_from(page: Any, torchvision: Any, monkeypatch: Any) -> None:
    """SSDlite with dropout before its heads."""
    monkeypatch.setattr(torchvision.ops.boxes, "nms", suppress)  # which the wheel has for torch with CUDA alone
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, score_thresh=0.0, num_classes=3, detections_per_img=5, topk_candidates=20
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # its own are so small that all boxes are equally likely
    for head in (*model.head.classification_head.module_list, *model.head.regression_head.module_list):
        head.insert(0, nn.Dropout2d(0.3).eval())
    images = [torch.rand(3, 64, 64), torch.rand(3, 80, 64)]

    with torch.no_grad(), sampling():
        passes = [model(images) for _ in range(3)]

    for of_image in zip(*passes, strict=True):
        objects = page.merge(of_image)
        assert bool((objects["found"] <= 1).all())
        assert objects["boxes"].shape == objects["std"].shape
        assert not torch.equal(of_image[0]["scores"], of_image[1]["scores"])


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression."""
    kept: list[int] = []
    corners = boxes.unsqueeze(1), boxes.unsqueeze(0)
    low, high = torch.maximum(*(c[..., :2] for c in corners)), torch.minimum(*(c[..., 2:] for c in corners))
    both, area = (high - low).clamp(min=0).prod(-1), (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    overlap = both / (area[:, None] + area - both)
    for index in scores.argsort(descending=True).tolist():
        if not kept or overlap[index, kept].max() <= threshold:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


# Generation


def step_by_step(model: Any, ids: Tensor) -> Tensor:
    """The logits of each token, computed with the cache."""
    cache, logits = None, []
    for position in range(ids.shape[1]):
        of_token, cache = model(ids[:, position : position + 1], cache)
        logits.append(of_token)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_all_steps_of_a_text_are_of_one_network(page: Any, seed: int) -> None:
    """Token by token with a cache, or all at once: the logits are the same; in plain sampling they are not."""
    with page.one_network(page.decoder, seed):
        steps, at_once = step_by_step(page.decoder, page.prompts), page.decoder(page.prompts)[0]
    with torch.no_grad(), sampling():
        assert not torch.allclose(step_by_step(page.decoder, page.prompts), at_once, atol=1e-3)

    # Sums of 16 numbers of about 1, in another order.
    assert torch.allclose(steps, at_once, atol=1e-5)


def test_all_rows_are_of_one_network(page: Any) -> None:
    """A beam is not better because its network is another one."""
    row = page.prompts[:1]

    with page.one_network(page.decoder, 3):
        logits = page.decoder(row.expand(4, -1))[0]

    assert torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-6)


def test_the_block_moves_no_generator_but_for_words_that_are_sampled(page: Any) -> None:
    """Words of two steps are drawn by different numbers, and the seed of the masks does not matter for them."""
    before = torch.get_rng_state()
    with page.one_network(page.decoder, 0):
        page.decoder(page.prompts)
    assert torch.equal(torch.get_rng_state(), before)

    expected = torch.rand(2)
    torch.set_rng_state(before)
    drawn = []
    with page.one_network(page.decoder, 0):
        for _ in range(2):
            page.decoder(page.prompts)
            drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    assert not {**page.decoder._forward_pre_hooks, **page.decoder._forward_hooks}


def test_other_seeds_are_other_networks(page: Any) -> None:
    """The texts of the page differ, though not all of them."""
    fraction, entropy = page.disagreement(page.texts)

    assert bool((fraction > 0).any())
    assert bool((entropy < log(20)).any())


def test_disagreement_is_that_of_whole_texts(page: Any) -> None:
    """Three of four networks agree; all differ; all agree."""
    a, b, c, d = ([0, 1], [0, 2], [1, 1], [2, 2])
    texts = [torch.tensor(rows) for rows in ([a, a, a], [a, b, a], [a, c, a], [b, d, a])]

    fraction, entropy = page.disagreement(texts)

    assert fraction.tolist() == pytest.approx([0.25, 0.75, 0])
    assert entropy.tolist() == pytest.approx([0.75 * log(4 / 3) + 0.25 * log(4), log(4), 0])


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("beams", [1, 3])
def test_transformers_generates_by_one_network(page: Any, beams: int) -> None:
    """With a cache or without; other seeds give other texts."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    config.update({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.5})
    model = page.share_masks(transformers.GPT2LMHeadModel(config).eval())
    ids = torch.randint(3, 20, (2, 3))

    def text(seed: int, use_cache: bool) -> list[Any]:
        with page.one_network(model, seed, ["transformer.drop", "*.resid_dropout", "*.mlp.dropout"]):
            return model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=6,
                num_beams=beams,
                do_sample=False,
                use_cache=use_cache,
            ).tolist()

    texts = [text(seed, True) for seed in range(4)]

    assert texts[:2] == [text(seed, False) for seed in range(2)]
    assert any(other != texts[0] for other in texts)
