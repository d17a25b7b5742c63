"""scaled_dot_product_attention: torch's function, with a dropout that follows the mode and a key."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import compiled

import dropkit
from dropkit.functional import dropout, scaled_dot_product_attention

OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "bool mask": {"attn_mask": torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.5},
    "float mask": {"attn_mask": torch.randn(5, 7, generator=torch.Generator().manual_seed(1))},
    "row masked": {"attn_mask": torch.arange(5)[:, None].ne(2).expand(5, 7)},
    "scale": {"scale": 0.3},
}


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, 4, size, 8, dtype=dtype, requires_grad=True) for size in (5, 7, 7)]


def weights_of(query, key, **options):
    """The attention weights: the output of torch's function for the identity as value."""
    identity = torch.eye(key.shape[-2], dtype=query.dtype).expand(*key.shape[:-1], -1)
    return F.scaled_dot_product_attention(query, key, identity, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_weights_are_dropped(options):
    """Output and gradients are those of torch's weights, dropped by the mask of the key, times the values."""
    if options.get("attn_mask") is not None and options["attn_mask"].is_floating_point():
        options = {"attn_mask": options["attn_mask"].double()}
    query, key, value = inputs()
    expected = dropout(weights_of(query, key, **options), 0.4, key=3) @ value

    output = scaled_dot_product_attention(query, key, value, dropout_p=0.4, training=True, dropout_key=3, **options)

    torch.testing.assert_close(output, expected)
    gradients = [torch.autograd.grad(x.square().sum(), (query, key, value)) for x in (output, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_eval_mode_and_rate_0_are_torchs_function(options):
    """Bit by bit, and nothing is drawn."""
    query, key, value = inputs(torch.float32)
    before = torch.get_rng_state()
    expected = F.scaled_dot_product_attention(query, key, value, **options)

    for more in ({"dropout_p": 0.5, "training": False}, {"dropout_p": 0.0, "training": True}):
        assert torch.equal(scaled_dot_product_attention(query, key, value, **options, **more), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_heads():
    """enable_gqa repeats the heads of keys and values, as in torch."""
    query, key, value = inputs()
    few = key[:, :2], value[:, :2]
    many = (x.repeat_interleave(2, 1) for x in few)

    outputs = [
        scaled_dot_product_attention(query, *pair, dropout_p=0.4, training=True, dropout_key=3, enable_gqa=gqa)
        for pair, gqa in ((few, True), (many, False))
    ]

    torch.testing.assert_close(*outputs)


def test_seeds_and_compilers():
    """Equal seeds give equal masks, compiled or not."""
    query, key, value = inputs(torch.float32)

    def attend(*qkv):
        return scaled_dot_product_attention(*qkv, dropout_p=0.4, training=True)

    outputs = []
    for function in (attend, attend, compiled(attend)):
        torch.manual_seed(4)
        outputs.append(function(query, key, value))

    assert torch.equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[2], outputs[0])
    assert not torch.equal(attend(query, key, value), outputs[0])


def test_the_realised_rate_is_p():
    """The fraction of dropped weights, within five standard errors."""
    n = 256
    weights = scaled_dot_product_attention(
        torch.zeros(n, 4), torch.zeros(n, 4), torch.eye(n), dropout_p=0.3, training=True, dropout_key=1
    )

    assert abs((weights == 0).double().mean().item() - 0.3) < 5 * math.sqrt(0.3 * 0.7) / n


def test_monte_carlo_switches_it_on():
    """mc.sampling drops weights in eval mode; outside of it torch's function runs again."""
    query, key, value = inputs(torch.float32)

    def attend():
        return scaled_dot_product_attention(query, key, value, dropout_p=0.5, training=False)

    with torch.no_grad(), dropkit.mc.sampling():
        samples = attend(), attend()

    assert not torch.equal(*samples)
    assert not torch.equal(samples[0], attend())


def test_bad_arguments():
    """Both random sources, a rate out of range, both masks, and a call that does not say whether it trains."""
    query, key, value = inputs()
    call = {"dropout_p": 0.5, "training": True}
    with pytest.raises(ValueError, match="key must be None where generator is given"):
        scaled_dot_product_attention(query, key, value, generator=torch.Generator(), dropout_key=1, **call)
    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1.5"):
        scaled_dot_product_attention(query, key, value, dropout_p=1.5, training=True)
    with pytest.raises(RuntimeError, match="Explicit attn_mask should not be set when is_causal=True"):
        scaled_dot_product_attention(query, key, value, torch.ones(5, 7), is_causal=True, **call)
    with pytest.raises(TypeError, match="training"):
        scaled_dot_product_attention(query, key, value)
