"""`retrofit` and `convert` on models of torchvision, timm and transformers, built without weights."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.torchvision_import import import_torchvision
from torch import Tensor, nn

import dropkit
from dropkit.nn import DropPath

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WORDS = {"input_ids": torch.arange(16).view(2, 8)}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def from_torchvision(name: str, **options: Any) -> nn.Module:
    return getattr(import_torchvision().models, name)(num_classes=5, **options)


def vgg() -> nn.Module:
    model: Any = from_torchvision("vgg11_bn", init_weights=False)
    # Narrower: the layers that are replaced have 120 million weights.
    model.classifier[0], model.classifier[3], model.classifier[6] = (
        nn.Linear(25088, 8),
        nn.Linear(8, 8),
        nn.Linear(8, 5),
    )
    return model


# timm and transformers import torchvision, too.
def from_timm(name: str, **options: Any) -> nn.Module:
    import_torchvision()
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=5, **options)


def from_transformers(name: str, config: str, **options: Any) -> nn.Module:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, name)(getattr(transformers, config)(**options))


TOKENS = dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"], 0)
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, **TOKENS}
VIT = {"image_size": 32, "patch_size": 8, **SIZES}
TORCHVISION_VIT = {
    "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32
}  # fmt: skip
TIMM_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24}
MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "torchvision resnet18": (lambda: from_torchvision("resnet18"), PIXELS),
    "torchvision vgg11_bn": (lambda: vgg(), PIXELS),
    "torchvision mobilenet_v3_small": (lambda: from_torchvision("mobilenet_v3_small"), PIXELS),
    "torchvision vit": (
        lambda: from_torchvision("VisionTransformer", **TORCHVISION_VIT),
        PIXELS,
    ),
    "timm resnet18": (lambda: from_timm("resnet18"), PIXELS),
    "timm vit": (lambda: from_timm("vit_tiny_patch16_224", depth=2, **TIMM_VIT), PIXELS),
    "transformers bert": (
        lambda: from_transformers("BertForSequenceClassification", "BertConfig", vocab_size=50, **SIZES),
        WORDS,
    ),
    "transformers gpt2": (lambda: from_transformers("GPT2ForSequenceClassification", "GPT2Config", **GPT2), WORDS),
    "transformers vit": (
        lambda: from_transformers("ViTForImageClassification", "ViTConfig", **VIT),
        {"pixel_values": PIXELS},
    ),
}  # fmt: skip

# How many places "residual-branches" and "before-classifier" have. The ViT of transformers calls one dropout on both
# branches of a layer.
BRANCHES = {"torchvision resnet18": 8, "torchvision vgg11_bn": 0, "torchvision mobilenet_v3_small": 6,
            "timm resnet18": 8, "transformers vit": 2}  # fmt: skip


@pytest.fixture(params=MODELS, scope="module")
def built(request):
    make, example = MODELS[request.param]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        # No weight remains 0, as some classifiers and scales begin, behind which no dropout would show.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return request.param, model, example


def output(model: nn.Module, example: Any) -> Tensor:
    torch.manual_seed(3)
    result = model(**example) if isinstance(example, dict) else model(example)
    return result if isinstance(result, Tensor) else result.logits


@pytest.mark.parametrize(
    ("kind", "place"),
    [("auto", "after-activations"), ("Dropout", "before-classifier"), ("DropPath", "residual-branches")],
)
def test_each_place_is_found_and_keeps_evaluation_and_states(built, kind, place):
    """There are as many places as the architecture has; evaluation, state dict and copies are as they should."""
    name, original, example = built
    model = copy.deepcopy(original)

    changes = dropkit.retrofit(model, kind, 0.4, place, example=example)

    if place == "residual-branches":
        assert len(changes) == BRANCHES.get(name, 4)
    elif place == "before-classifier":
        assert len(changes) == 1
    assert len(changes) + len(changes.left) > 0
    assert torch.equal(output(model.eval(), example), output(original.eval(), example))
    model.load_state_dict(original.state_dict(), strict=True)
    if changes:
        dropped = output(model.train(), example)
        assert not torch.equal(dropped, output(copy.deepcopy(original).train(), example))
        assert torch.equal(output(pickle.loads(pickle.dumps(model)), example), output(copy.deepcopy(model), example))


def test_batch_norms_keep_their_inputs(built):
    """By an example as by order, no new dropout comes before a batch norm, which sees what it saw."""
    _, original, example = built
    model = copy.deepcopy(original)

    for given in (None, example):
        dropkit.retrofit(model, "auto", 0.5, "after-activations", example=given)
    first, second = copy.deepcopy(original).train(), model.train()
    output(first, example)
    output(second, example)

    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


OTHER_LIBRARIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm": (lambda: from_timm("vit_tiny_patch16_224", depth=3, drop_path_rate=0.5, **TIMM_VIT), 4),
    "transformers beit": (lambda: from_transformers("BeitModel", "BeitConfig", drop_path_rate=0.5, **VIT), 1),
    "torchvision convnext": (lambda: from_torchvision("convnext_tiny", stochastic_depth_prob=0.5), 18),
}  # fmt: skip


@pytest.mark.parametrize("library", OTHER_LIBRARIES)
def test_convert_reaches_other_libraries_when_asked(library):
    """Without being asked it lists their layers as left; asked, none is left, with rates and modes kept."""
    make, count = OTHER_LIBRARIES[library]
    model = make()
    rates = [getattr(m, "drop_prob", getattr(m, "p", None)) for m in paths(model)]

    left = dropkit.convert(model).left
    changed = dropkit.convert(model, other_libraries=True)

    assert len([entry for entry in left if "other_libraries=True" in entry.reason]) == count
    assert len(changed) == count
    assert all(type(change.module) is DropPath for change in changed)
    assert [change.module.p for change in changed] == rates
    assert not dropkit.convert(model, other_libraries=True)
    model.eval()
    assert torch.equal(features(model), features(pickle.loads(pickle.dumps(model))))


def paths(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if type(m).__name__.endswith(("DropPath", "StochasticDepth"))]


def features(model: nn.Module) -> Tensor:
    result = model(PIXELS)
    return result if isinstance(result, Tensor) else result.last_hidden_state


def test_a_converted_drop_path_can_be_set_by_its_old_name():
    """`drop_prob`, which timm's programs set, remains `p`, and the masks follow from a key."""
    from_timm("vit_tiny_patch16_224", depth=1, **TIMM_VIT)
    from timm.layers import DropPath as TimmDropPath

    model = TimmDropPath(0.2, scale_by_keep=False)

    dropkit.convert(model, other_libraries=True)
    model.drop_prob = 0.5

    x = torch.ones(9, 2)
    assert torch.equal(model(x, key=1), dropkit.functional.drop_path(x, 0.5, scale_by_keep=False, key=1))
    assert (model.p, model.drop_prob, "drop_prob" in vars(model)) == (0.5, 0.5, False)


class OddDropPath(nn.Module):
    """Has the name and the rate of a DropPath, and drops elements."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(input, self.drop_prob, self.training)


def test_convert_leaves_what_only_looks_like_a_drop_path():
    """A class is known by what it does; torch's generator is not moved by finding out."""
    model, random = nn.Sequential(OddDropPath(0.5)), torch.get_rng_state()

    changes = dropkit.convert(model, other_libraries=True)

    assert type(model[0]) is OddDropPath
    assert [left.name for left in changes.left] == ["0"]
    assert torch.equal(torch.get_rng_state(), random)


def test_convert_names_what_it_leaves():
    """Recurrent layers, attention and rates for functions are listed, if they can drop at all."""
    model = nn.ModuleDict(
        {"lstm": nn.LSTM(4, 4, 2, dropout=0.1), "one": nn.LSTM(4, 4), "attention": nn.MultiheadAttention(4, 1, 0.1)}
    )
    model.attention_dropout = 0.1

    assert [left.name for left in dropkit.convert(model).left] == ["attention_dropout", "lstm", "attention"]
