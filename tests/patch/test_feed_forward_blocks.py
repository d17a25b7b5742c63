"""`retrofit(model, "FeedForward")` on blocks that a module's method computes: what is found, kept, and left."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from patch.test_retrofit_libraries import (
    GPT2,
    SIZES,
    TIMM_VIT,
    TORCHVISION_VIT,
    VIT,
    from_timm,
    from_torchvision,
    from_transformers,
)
from torch import Tensor, nn

import dropkit
from dropkit.nn import submatrix

D, H = 16, 32
BART = {"d_model": D, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 50,
        "encoder_ffn_dim": H, "decoder_layers": 1, "decoder_ffn_dim": H}  # fmt: skip


class Functional(nn.Module):
    """Names its activation in the method alone, and adds its input."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(D, H), nn.Linear(H, D), nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(F.gelu(self.up(x), approximate="tanh")))


class Learned(nn.Module):
    """Has an activation with a weight for all units, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.act, self.down = nn.Linear(D, H), nn.Linear(D, H), nn.PReLU(), nn.Linear(H, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x) * self.act(self.gate(x)))


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(D, H), nn.SiLU(inplace=True), nn.Dropout(0.1), nn.Linear(H, 5)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def encoder_layer(activation: Any = "relu", **options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(D, 2, H, 0.1, activation, batch_first=True, **options)


def first(model: nn.Module, *names: str) -> nn.Module:
    return next(module for name, module in model.named_modules() if name.endswith(names))


# The module with the block, and the method that computes it.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "torch encoder layer": (encoder_layer, "_ff_block"),
    "torch encoder layer, norm first, gelu": (lambda: encoder_layer("gelu", norm_first=True), "_ff_block"),
    "torch encoder layer, without bias": (lambda: encoder_layer(bias=False), "_ff_block"),
    "torch decoder layer": (lambda: nn.TransformerDecoderLayer(D, 2, H, 0.1), "_ff_block"),
    "functional": (Functional, "forward"),
    "learned activation": (Learned, "forward"),
    "in place": (InPlace, "forward"),
    "timm vit": (lambda: first(from_timm("vit_tiny_patch16_224", depth=1, **TIMM_VIT), "mlp"), "forward"),
    "torchvision vit": (lambda: first(from_torchvision("VisionTransformer", **TORCHVISION_VIT), "mlp"), "forward"),
    "transformers vit": (lambda: first(from_transformers("ViTModel", "ViTConfig", **VIT), "mlp"), "forward"),
    "transformers gpt2": (lambda: first(from_transformers("GPT2Model", "GPT2Config", **GPT2), "mlp"), "forward"),
    "transformers bert": (
        lambda: first(from_transformers("BertModel", "BertConfig", vocab_size=50, **SIZES), "layer.0"),
        "feed_forward_chunk",
    ),
    "transformers distilbert": (
        lambda: first(
            from_transformers("DistilBertModel", "DistilBertConfig", dim=D, hidden_dim=H, n_heads=2, n_layers=1), "ffn"
        ),
        "ff_chunk",
    ),
    "transformers llama": (
        lambda: first(from_transformers("LlamaModel", "LlamaConfig", vocab_size=50, **SIZES), "mlp"),
        "forward",
    ),
}


@pytest.fixture(params=BLOCKS)
def block(request):
    make, method = BLOCKS[request.param]
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, method


def last_product(model: nn.Module, method: str) -> nn.Module:
    """The linear layer that a method calls last."""
    called: list[nn.Module] = []
    layers = [module for module in model.modules() if submatrix.is_product(module)]
    hooks = [layer.register_forward_hook(lambda layer, args, output: called.append(layer)) for layer in layers]
    getattr(model, method)(torch.zeros(1, 1, width(model)))
    for hook in hooks:
        hook.remove()
    return called[-1]


def width(model: nn.Module) -> int:
    layers = [module for module in model.modules() if submatrix.is_product(module)]
    return submatrix.sizes_of(layers[0])[1]


def by_hand(model: nn.Module, method: str, x: Tensor, p: float) -> Tensor:
    """The method, with the input of its last product dropped by one mask for all samples and positions."""
    last = last_product(model, method)

    def drop(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape = (1,) * (args[0].dim() - 1) + (args[0].shape[-1],)
        return (dropkit.functional.dropout(args[0], p, noise_shape=shape),)

    hook = last.register_forward_pre_hook(drop)
    torch.manual_seed(5)
    output = getattr(model, method)(x)
    hook.remove()
    return output


@pytest.mark.parametrize("cuts", [True, False], ids=["on submatrices", "on whole matrices"])
def test_a_block_drops_hidden_units_for_the_whole_batch(block, cuts, monkeypatch):
    """Output and gradients are those of the method with one mask for all samples, whatever library it is from."""
    model, method = block
    original, x = copy.deepcopy(model), torch.randn(8, 16, width(model))
    monkeypatch.setattr(submatrix, "LEAST_MULTIPLICATIONS", 0 if cuts else 2**60)

    (change,) = dropkit.retrofit(model, "FeedForward", 0.5)

    torch.manual_seed(5)
    output, expected = getattr(model, method)(x), by_hand(original, method, x, 0.5)
    assert str(change).endswith(f"{type(original).__name__} -> {type(original).__name__}(p=0.5)")
    assert torch.allclose(output, expected, atol=1e-5, rtol=1e-4)  # the order of sums differs
    output.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(model.parameters(), original.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3)


def test_all_else_of_a_module_is_kept(block):
    """Evaluation, state dict, class, name, mode and random numbers are as before; copies drop as the module does."""
    model, method = block
    original, x, random = copy.deepcopy(model), torch.randn(8, 16, width(model)), torch.get_rng_state()
    flags = [module.training for module in model.modules()]

    dropkit.retrofit(model, "FeedForward", 0.5)

    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == flags
    assert isinstance(model, type(original))
    model.load_state_dict(original.state_dict(), strict=True)
    assert list(model.state_dict()) == list(original.state_dict())
    expected = getattr(original.eval(), method)(x)
    assert torch.equal(getattr(model.eval(), method)(x), expected)
    model.train()
    outputs = []
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.manual_seed(5)
        outputs.append(getattr(copied, method)(x))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], expected)


def test_a_dry_run_and_a_second_rate(block):
    """The plan changes nothing and is what is done then; a second retrofit changes the rate."""
    model, _ = block
    before = type(model)

    plan = dropkit.retrofit(model, "FeedForward", 0.5, dry_run=True)

    assert type(model) is before
    assert str(dropkit.retrofit(model, "FeedForward", 0.5)) == str(plan)
    assert str(dropkit.retrofit(model, "FeedForward", 0.2)[0]).endswith(": p=0.5 -> p=0.2")
    assert model.p == 0.2


def test_dropout_between_is_passed_over_and_dropout_after_runs():
    """The inner rate is the block's; what drops the output, of the same class, does so still."""
    model, x = encoder_layer(), torch.randn(4, 8, D)
    dropkit.retrofit(model, "FeedForward", 0.5)

    model.dropout.p, model.dropout2.p = 1.0, 0.0
    assert model._ff_block(x).count_nonzero() > 0
    model.dropout.p, model.dropout2.p = 0.0, 1.0
    assert model._ff_block(x).count_nonzero() == 0


class Norms(Functional):
    """A norm lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(H)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.inner(F.relu(self.up(x))))


class Softmaxes(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class PerUnit(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(H))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)) * self.scale)


class DropsByFunction(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.dropout(F.relu(self.up(x)), 0.5, self.training))


class Scales(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.down(F.relu(self.up(x)))


class ReadsFirst(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(self.norm(x))))


class DropsItsInput(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(self.drop(x))))


class Clips(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).clamp(0, 5))


class DropsPaths(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.path = dropkit.nn.DropPath(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.path(F.relu(self.up(x))))


class Raises(Functional):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError(x)


class HasRate(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.p = "a path"


class Hooked(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.up.register_forward_hook(lambda module, args, output: None)


REASONS = {
    Norms: "not an elementwise activation", Softmaxes: "not an elementwise activation",
    PerUnit: "not an elementwise activation", DropsByFunction: "drops by a call of a function",
    Scales: "more than dropout, a residual connection and a norm", ReadsFirst: "does not get its input as it is",
    DropsItsInput: "drops its input", Clips: "not an elementwise activation",
    DropsPaths: "not torch's or dropkit's Dropout", Raises: "raised KeyError", HasRate: "attribute p or rate",
    Hooked: "has hooks",
}  # fmt: skip


@pytest.mark.parametrize("cls", REASONS, ids=lambda cls: cls.__name__)
def test_what_computes_something_else_is_left_with_the_reason(cls):
    """A module that only looks like a block keeps its class, and its mode and random numbers are not touched."""
    model, random = cls(), torch.get_rng_state()

    changes = dropkit.retrofit(model, "FeedForward", 0.5)

    assert (type(model), list(changes)) == (cls, [])
    assert REASONS[cls] in changes.left[0].reason
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_documented_example_holds():
    """What docs/retrofit.md says of BERT is printed."""
    model = from_transformers("BertModel", "BertConfig", vocab_size=50, **{**SIZES, "num_hidden_layers": 1})

    printed = str(dropkit.retrofit(model, "FeedForward", 0.5))

    page = (Path(__file__).parents[2] / "docs" / "retrofit.md").read_text()
    assert len(printed.splitlines()) == 2
    assert all(f"# {line}\n" in page for line in printed.splitlines())


def test_linear_layers_in_no_block_are_left():
    """Blocks that a layer's `forward` computes along with attention, as in BART, are listed."""
    model = from_transformers("BartModel", "BartConfig", **BART)

    changes = dropkit.retrofit(model, "FeedForward", 0.5)

    assert not changes
    assert {"encoder.layers.0.fc1", "decoder.layers.0.fc2"} <= {left.name for left in changes.left}


def test_compilers_take_a_block_as_one_graph():
    """Compiled, the masks are those of eager mode, and a rate that moves needs no new graph."""
    model = encoder_layer("gelu")
    dropkit.retrofit(model, "FeedForward", 0.5)
    model.mark_rate_dynamic()
    compiled, x = torch.compile(model, backend="aot_eager", fullgraph=True), torch.randn(8, 16, D)

    for p in (0.5, 0.25):
        model.p = p
        torch.manual_seed(5)
        expected = model(x)
        torch.manual_seed(5)
        assert torch.allclose(compiled(x), expected, atol=1e-5)


def test_schedules_and_monte_carlo_reach_a_block():
    """Its rate is a site of the model; sampling in evaluation mode drops its units."""
    model = Functional()
    dropkit.retrofit(model, "FeedForward", 0.5)
    x = torch.randn(4, D)

    assert str(dropkit.retrofit(model, None, 0.25, "existing")) == "(the model itself): p=0.5 -> p=0.25"
    expected = model.eval()(x)
    with dropkit.mc.sampling():
        assert not torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)


class DropsAfter(Functional):
    """Has its block in a method, and calls a function that drops elsewhere."""

    def ff_chunk(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.ff_chunk(x), 0.5, self.training)


def test_both_changes_of_one_class_can_be_copied():
    """A module that `convert` and `retrofit` have changed is pickled with both changes."""
    model = DropsAfter()
    assert len(dropkit.convert(model, functions=True)) == 1
    assert len(dropkit.retrofit(model, "FeedForward", 0.5)) == 1

    other = pickle.loads(pickle.dumps(model))

    x = torch.randn(2, 3, D)
    torch.manual_seed(5)
    expected = model(x)
    torch.manual_seed(5)
    assert torch.equal(other(x), expected)
