"""Dropout on submatrices: the outputs and gradients of the masked product, by fewer multiplications."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.composed_laws import COMPOSED_LAWS, compiled_equals_eager
from helpers.rounding import rounding
from torch import nn
from torch.overrides import BaseTorchFunctionMode

from dropkit import mc, random, shard
from dropkit.functional import dropout
from dropkit.nn import COMPOSED, BatchwiseConv, BatchwiseMLP, FeedForward, submatrix

RECORDS = [
    record
    for layer in COMPOSED
    if layer.module in (BatchwiseConv, BatchwiseMLP, FeedForward)
    for record in (layer, *layer.variants)
]
MODELS = {
    "feed-forward": (partial(FeedForward, 12, 40), (7, 5, 12)),
    "feed-forward, one sample": (partial(FeedForward, 12, 40), (12,)),
    "feed-forward, gated, no biases": (partial(FeedForward, 12, 40, gated=True, bias=False), (7, 12)),
    "MLP": (partial(BatchwiseMLP, (12, 40, 30, 9)), (7, 12)),
    "convolutions, 1d": (partial(BatchwiseConv, (3, 16, 5), 3, dims=1, stride=2), (4, 3, 19)),
    "convolutions, 2d": (partial(BatchwiseConv, (3, 16, 12, 5), 3, padding="same"), (4, 3, 6, 7)),
    "convolutions, one sample": (partial(BatchwiseConv, (3, 16, 5), (1, 3), bias=False), (3, 6, 7)),
    "convolutions, 3d": (partial(BatchwiseConv, (3, 8, 5), 3, dims=3, padding=2, dilation=2), (2, 3, 4, 5, 3)),
}
models = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)


@pytest.fixture
def cut(monkeypatch):
    """Cut whatever can be cut, however small, and count the products that were."""
    calls = []

    def product(layer, input, part):
        calls.append(part)
        return original(layer, input, part)

    original = submatrix._product
    monkeypatch.setattr(submatrix, "_product", product)
    monkeypatch.setattr(submatrix, "LEAST_ROWS", 0)
    monkeypatch.setattr(submatrix, "LEAST_MULTIPLICATIONS", 0)
    return calls


def plain(model, input, key):
    """What the model computes, written with torch's layers and the masks of the same key."""
    is_block = isinstance(model, FeedForward)
    *hidden, last = (model.linear1, model.linear2) if is_block else model.layers
    for i, layer in enumerate(hidden):
        values = model.activation(layer(input))
        if is_block and model.gate is not None:
            values = values * model.gate(input)
        noise_shape = [1] * values.dim()
        noise_shape[-layer.weight.dim() + 1] = layer.weight.shape[0]
        of_layer = key if is_block else random.fold_in(key, i)
        input = dropout(values, model.p, noise_shape=noise_shape, key=of_layer)
    return last(input)


def with_gradients(call, model, input):
    """The output, and the derivatives of a weighted sum of it by the input and all parameters."""
    output = call(input)
    weights = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
    return output, *torch.autograd.grad((output * weights).sum(), [input, *model.parameters()])


@models
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_results_are_those_of_the_masked_product(make, shape, p, dtype, cut):
    """Output and gradients, by input, weights and biases, are those of the plain layers, up to the order of sums."""
    model, input = make(p, nn.GELU()).to(dtype), torch.randn(shape, dtype=dtype, requires_grad=True)
    # Sums of products: over weights forward, over samples and positions backward; no sum is longer.
    longest = max(input.numel(), *(weight.numel() for weight in model.parameters()))

    results = with_gradients(partial(model, key=3), model, input)

    assert cut
    for result, expected in zip(results, with_gradients(partial(plain, model, key=3), model, input), strict=True):
        assert (result - expected).abs().max() <= 3 * rounding(expected, longest)


@models
def test_gradients_of_dropped_units_are_exact_zeros(make, shape, cut):
    """So that optimizers do with them what they do after a masked product."""
    model, input = make(0.5, nn.Sigmoid()), torch.randn(shape, requires_grad=True)

    results = with_gradients(partial(model, key=3), model, input)

    for result, expected in zip(results, with_gradients(partial(plain, model, key=3), model, input), strict=True):
        assert torch.equal(result == 0, expected == 0)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.name}, {dict(record.arguments)}")
@pytest.mark.parametrize(
    "law", [law for law in COMPOSED_LAWS if law is not compiled_equals_eager], ids=lambda law: law.__name__
)
def test_the_laws_hold_on_submatrices(law, record, cut):
    """Whatever holds for small batches, which run the plain product, holds for large ones."""
    law(record)


@models
def test_second_derivatives(make, shape, cut):
    """Second derivatives are those of finite differences."""
    model, input = make(0.4, nn.Tanh()).double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def call(*_):
        return model(input, key=5)

    assert torch.autograd.gradgradcheck(call, (input, *model.parameters()), fast_mode=True)
    assert cut


@models
@pytest.mark.parametrize("p", [1.0, 1 - 1e-12])
def test_where_no_unit_is_kept_biases_remain(make, shape, p, cut):
    """At rate 1, and if chance keeps nothing, outputs are those of zeros, and gradients before them are 0."""
    model, input = make(p), torch.randn(shape, requires_grad=True)

    output = model(input, key=5)
    (grad,) = torch.autograd.grad(output.sum(), input)

    assert torch.equal(output, plain(model, input, 5))
    assert not grad.any()
    assert bool(cut) == (p != 1)


@models
def test_at_a_tiny_rate_all_units_are_kept(make, shape, cut):
    """If chance drops nothing, the output is that of the plain layers, scaled."""
    model, input = make(1e-12).double(), torch.randn(shape).double()

    torch.testing.assert_close(model(input, key=5), plain(model, input, 5))


@models
def test_frozen_parameters_get_no_gradient(make, shape, cut):
    """Only what requires grad gets one: the last layer alone, or the input alone."""
    model, input = make(0.5), torch.randn(shape)
    last = list(model.children())[-1] if isinstance(model, FeedForward) else model.layers[-1]
    model.requires_grad_(False)
    last.requires_grad_(True)

    model(input, key=5).sum().backward()

    assert {name for name, x in model.named_parameters() if x.grad is not None} == {
        name for name, x in model.named_parameters() if x.requires_grad
    }


def test_autocast(cut):
    """Under autocast products are computed in its dtype, and gradients have that of the parameters."""
    model, input = FeedForward(12, 40, 0.5), torch.randn(64, 12)

    with torch.autocast("cpu", torch.bfloat16):
        output, expected = model(input, key=5), plain(model, input, 5)
    output.sum().backward()

    assert cut
    assert output.dtype == torch.bfloat16
    # Values, weights, activations and scaled weights are rounded once each, and sums of 40 are taken.
    assert (output - expected).abs().max() <= rounding(expected, 8)
    assert model.linear1.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("unplain", ["hook", "parametrization", "subclass", "own forward"])
def test_what_a_layer_does_besides_its_product_is_done(unplain, cut):
    """Hooks, other forwards and weights that are computed have their effect."""
    model, input = FeedForward(12, 40, 0.5), torch.randn(64, 12)
    linear = model.linear1
    if unplain == "hook":
        linear.register_forward_hook(lambda module, args, output: output + 1)
    elif unplain == "parametrization":
        nn.utils.parametrizations.weight_norm(linear)
    elif unplain == "subclass":
        model.linear1 = type("Doubled", (nn.Linear,), {"forward": lambda self, x: 2 * F.linear(x, self.weight)})(12, 40)
    else:
        linear.forward = lambda x: F.linear(x, linear.weight) * 3

    torch.testing.assert_close(model(input, key=5), plain(model, input, 5))

    assert bool(cut) == (unplain == "parametrization")


@pytest.mark.parametrize("model", [FeedForward(12, 40, 0.5), BatchwiseMLP((12, 40, 30, 12), 0.5)], ids=["block", "MLP"])
def test_compiled_code_has_the_masks_of_eager_mode(model, cut):
    """One graph, by the masked product."""
    input = torch.randn(16, 12)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    torch.testing.assert_close(compiled(input, key=torch.tensor(5)), model(input, key=5))


def test_transforms_have_the_masks_of_eager_mode(cut):
    """Under vmap, grad and forward mode by the masked product."""
    model, input = FeedForward(12, 40, 0.5), torch.randn(16, 12)
    expected = model(input, key=5)

    each = torch.func.vmap(lambda x: model(x, key=5))(input.view(4, 4, 12)).view(16, 12)
    gradient = torch.func.grad(lambda x: model(x, key=5).square().sum())(input)
    output, tangent = torch.func.jvp(lambda x: model(x, key=5), (input,), (input,))

    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(output, expected)
    by_autograd = torch.autograd.grad(model(input.requires_grad_(), key=5).square().sum(), input)[0]
    torch.testing.assert_close(gradient, by_autograd)
    torch.testing.assert_close((2 * expected * tangent).sum(), (by_autograd * input).sum())


def test_forward_mode(cut):
    """Dual numbers, also of weights and outside of any transform, get the derivative of the masked product."""
    model, input = FeedForward(12, 40, 0.5, bias=False), torch.randn(16, 12)
    weight = model.linear2.weight.detach()

    with torch.autograd.forward_ad.dual_level():
        weights = {"linear2.weight": torch.autograd.forward_ad.make_dual(weight, weight)}
        dual = torch.func.functional_call(model, weights, (input,), {"key": 5})
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent

    torch.testing.assert_close(tangent, model(input, key=5))


def test_checkpointed_blocks_are_recomputed_with_the_same_units(cut):
    """Activation checkpointing gives the gradients of the plain call, whose key is drawn once."""
    model, input = FeedForward(12, 40, 0.5), torch.randn(16, 12, requires_grad=True)
    grads = []
    for call in (model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)):
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(call(input).square().sum(), input)[0])

    assert torch.equal(*grads)


def test_a_default_device_hides_nothing(cut):
    """Under `torch.set_default_device`, whose mode changes no product, units are left out; under other modes not."""
    model, input = FeedForward(12, 40, 0.5), torch.randn(16, 12)
    expected = model(input, key=5)
    cut.clear()

    with torch.device("meta"):
        assert torch.equal(model(input, key=5), expected)
        assert len(cut) == 2
        with BaseTorchFunctionMode():
            model(input, key=5)
        assert len(cut) == 2


def test_monte_carlo_dropout_sees_the_dropout(cut):
    """`mc.predict` drops in eval mode."""
    prediction = mc.predict(FeedForward(12, 40, 0.5).eval(), torch.randn(8, 12), samples=4, seed=1)

    assert (prediction.variance > 0).any()


def test_parts_of_a_batch_have_the_units_of_the_whole(cut):
    """Each rank's samples use the mask of one process: parts of hidden units have their part of it."""
    input = torch.randn(16, 12)
    model = FeedForward(12, 40, 0.5)
    whole = model(input, key=5)

    with shard.holding(shard.Slice(0, 8, 16)):
        part = model(input[8:], key=5)

    torch.testing.assert_close(part, whole[8:])


def test_parts_of_the_hidden_units_have_their_part_of_the_mask(cut):
    """Tensor-parallel halves of a block, each with half of the hidden units, sum up to the whole."""
    input, model = torch.randn(16, 12), FeedForward(12, 40, 0.5, bias=False)
    whole, total = model(input, key=5), 0

    for start in (0, 20):
        half = FeedForward(12, 20, 0.5, bias=False)
        rows = slice(start, start + 20)
        half.linear1.weight.data, half.linear2.weight.data = model.linear1.weight[rows], model.linear2.weight[:, rows]
        with shard.holding(shard.Slice(-1, start, 40)):
            total = total + half(input, key=5)

    assert cut
    torch.testing.assert_close(total, whole)


def test_existing_layers_are_shared():
    """`from_layers` registers the layers themselves, under the names of the fresh block."""
    up, down, gate = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)

    block = FeedForward.from_layers(up, nn.SiLU(), down, 0.1, gate=gate)

    assert (block.linear1, block.linear2, block.gate) == (up, down, gate)
    assert set(block.state_dict()) == set(FeedForward(4, 8, 0.1, gated=True).state_dict())
    assert list(BatchwiseMLP.from_layers([up, down], F.relu, 0.1).layers) == [up, down]


def test_a_small_batch_runs_the_plain_product(monkeypatch):
    """Below the limits nothing is cut; above both of them it is."""
    calls = []
    monkeypatch.setattr(submatrix, "_on_submatrices", lambda chain, x, *_: calls.append(len(x)) or x)
    model = FeedForward(256, 1024, 0.5)

    for rows in (1, 2, 4096):
        model(torch.randn(rows, 256))

    assert calls == [4096]


def test_bert_runs_on_submatrices_after_two_assignments(torchvision, cut):
    """In BERT the block takes the place of the first half, and the second product becomes the identity."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model, ids = BertModel(config).eval(), torch.arange(10).view(2, 5)
    expected = model(ids).last_hidden_state
    (layer,) = model.encoder.layer

    up, down = layer.intermediate, layer.output
    layer.intermediate = FeedForward.from_layers(up.dense, up.intermediate_act_fn, down.dense, 0.5)
    down.dense = nn.Identity()

    torch.testing.assert_close(model(ids).last_hidden_state, expected)
    layer.intermediate.train()
    assert not torch.allclose(model(ids).last_hidden_state, expected)
    assert len(cut) == 2


def test_llama_runs_on_submatrices_after_one_assignment(torchvision, cut):
    """LLaMA's feed-forward block is one module, with a gate."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model, ids = LlamaModel(config).eval(), torch.arange(10).view(2, 5)
    expected = model(ids).last_hidden_state
    (layer,) = model.layers

    mlp = layer.mlp
    layer.mlp = FeedForward.from_layers(mlp.gate_proj, mlp.act_fn, mlp.down_proj, 0.5, gate=mlp.up_proj)

    torch.testing.assert_close(model(ids).last_hidden_state, expected)
    layer.mlp.train()
    assert not torch.allclose(model(ids).last_hidden_state, expected)
    assert len(cut) == 3
