"""`retrofit` and `convert` on models of torchvision, timm and transformers, built without weights."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.torchvision_import import import_torchvision
from torch import Tensor, nn

import dropkit
from dropkit.nn import DropBlock2d, DropBlock3d, DropPath, PatchDropout

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


def of_torchvision(name: str, *args: Any) -> nn.Module:
    return getattr(import_torchvision().ops, name)(*args)


def of_timm(name: str, *args: Any, **options: Any) -> nn.Module:
    import_torchvision()
    layers = pytest.importorskip("timm.layers.patch_dropout" if name.startswith("Patch") else "timm.layers")
    return getattr(layers, name)(*args, **options)


MAPS, VOLUMES, PATCHES = torch.ones(4, 3, 16, 16), torch.ones(4, 3, 8, 8, 8), torch.randn(4, 13, 6)
SAME: dict[str, tuple[Callable[[], nn.Module], nn.Module, Tensor]] = {
    "torchvision DropBlock2d": (lambda: of_torchvision("DropBlock2d", 0.3, 3), DropBlock2d(0.3, 3), MAPS),
    "torchvision DropBlock3d": (lambda: of_torchvision("DropBlock3d", 0.3, 3), DropBlock3d(0.3, 3), VOLUMES),
    "timm DropBlock2d": (lambda: of_timm("DropBlock2d", 0.3, 3), DropBlock2d(0.3, 3, per_channel=False), MAPS),
    "timm DropBlock2d, channels apart": (
        lambda: of_timm("DropBlock2d", 0.3, 5, couple_channels=False), DropBlock2d(0.3, 5), MAPS,
    ),
    "timm PatchDropout": (lambda: of_timm("PatchDropout", 0.25, 1), PatchDropout(0.25, 1, ordered=False), PATCHES),
    "timm PatchDropoutWithIndices": (
        lambda: of_timm("PatchDropoutWithIndices", 0.5, 3, True), PatchDropout(0.5, 3, True, True), PATCHES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_layers_of_other_libraries_become_dropkits(case):
    """They are listed unless asked for; then they are dropkit's layer with the same options, and drop as it does."""
    make, ours, x = SAME[case]
    model = nn.Sequential(make())
    assert "other_libraries=True" in dropkit.convert(model).left[0].reason

    (change,) = dropkit.convert(model, other_libraries=True)

    assert (change.module, repr(model[0]), type(model[0])) == (model[0], repr(ours), type(ours))
    for result, expected in zip(items(model[0](x, key=7)), items(ours(x, key=7)), strict=True):
        assert torch.equal(result, expected)
    assert items(model.eval()(x))[0] is x
    assert pickle.loads(pickle.dumps(model))[0].p == ours.p


def items(output: Any) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: of_timm("DropBlock2d", 0.3, 3), "drop_prob"), (lambda: of_timm("PatchDropout", 0.3), "prob")],
    ids=["DropBlock2d", "PatchDropout"],
)
def test_rates_can_be_set_by_their_old_names(make, name):
    """What timm's programs read and set remains the rate."""
    model = make()
    dropkit.convert(model, other_libraries=True)

    setattr(model, name, 0.5)

    assert (model.p, getattr(model, name), name in vars(model)) == (0.5, 0.5, False)


@pytest.mark.parametrize("options", [{"with_noise": True}, {"gamma_scale": 2.0}, {"scale_by_keep": False}], ids=str)
def test_options_that_dropkit_lacks_are_left(options):
    """A layer that does more than dropkit's remains the library's, with the reason."""
    model = of_timm("DropBlock2d", 0.3, **options)

    changes = dropkit.convert(model, other_libraries=True)

    assert (list(changes), len(changes.left)) == ([], 1)


class FairseqDropout(nn.Module):
    """Does what fairseq documents of its class, which is known by its name alone."""

    __module__ = "fairseq.modules.fairseq_dropout"

    def __init__(self, p: float, module_name: str | None = None) -> None:
        super().__init__()
        self.p, self.module_name, self.apply_during_inference = p, module_name, False

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        drops = self.p > 0 and (self.training or self.apply_during_inference)
        return nn.functional.dropout(x, self.p, True, inplace) if drops else x

    def make_generation_fast_(self) -> None:
        self.apply_during_inference = True


@pytest.fixture
def fairseq(monkeypatch):
    """A stand-in, by which pickle finds the class."""
    for name in ("fairseq", "fairseq.modules", "fairseq.modules.fairseq_dropout"):
        module = ModuleType(name)
        module.FairseqDropout = FairseqDropout
        monkeypatch.setitem(sys.modules, name, module)
    return nn.Sequential(FairseqDropout(0.5, "encoder"))


def test_fairseqs_dropout_keeps_its_class(fairseq):
    """Its masks follow from keys, and it can still be switched on in evaluation mode; no library is imported."""
    x = torch.ones(9, 5)
    assert "other_libraries=True" in dropkit.convert(fairseq).left[0].reason

    (change,) = dropkit.convert(fairseq, other_libraries=True)

    layer, expected = pickle.loads(pickle.dumps(fairseq))[0], dropkit.functional.dropout(x, 0.5, key=3)
    assert (type(layer), layer.module_name) == (type(change.module), "encoder")
    assert isinstance(layer, FairseqDropout)
    assert torch.equal(layer(x, key=3), expected)
    assert layer.eval()(x) is x
    layer.make_generation_fast_()
    assert torch.equal(layer(x, True, key=3), expected)
    assert torch.equal(x, expected)
    assert not dropkit.convert(fairseq, other_libraries=True)


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
