"""ResidualDropPath, LayerDrop, rates over depth and the loss of R-Drop against their definitions."""

import copy
import math

import pytest
import torch
from helpers.compare import compiled
from torch import nn

import dropkit
from dropkit import shard
from dropkit.functional import drop_path, dropout, r_drop_loss, residual_drop_path, run_twice
from dropkit.nn import LayerDrop, ResidualDropPath, rates_over_depth


def block(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)).to(dtype)


@pytest.mark.parametrize("key", [1, 2, 3])
def test_the_subset_form_is_the_sum(key):
    """Output and all gradients are those of input + drop_path(branch(input)) up to the order of sums."""
    branch, x = block(), torch.randn(16, 5, 6, dtype=torch.float64, requires_grad=True)
    twin, y = copy.deepcopy(branch), x.detach().clone().requires_grad_()

    output = ResidualDropPath(branch, 0.4)(x, key=key)
    expected = y + drop_path(twin(y), 0.4, key=key)
    output.square().sum().backward()
    expected.square().sum().backward()

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(x.grad, y.grad)
    for one, other in zip(branch.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_branch_sees_the_kept_samples_alone():
    """As many rows as are kept; with none, it does not run."""
    seen = []

    def branch(x):
        seen.append(len(x))
        return x

    x = torch.randn(16, 3)
    residual_drop_path(x, branch, 0.5, key=3)
    alone = residual_drop_path(x, branch, 1.0, key=3)
    residual_drop_path(x, branch, 0.5, training=False)

    assert seen == [int((dropout(torch.ones(16), 0.5, key=3) != 0).sum()), 16]
    assert torch.equal(alone, x)


def test_the_subset_form_under_compilers_transforms_and_shards():
    """Compiled and vectorised calls run the sum with the same mask; a rank drops its rows of the whole."""
    layer, x = ResidualDropPath(block(), 0.4), torch.randn(16, 5, 6, dtype=torch.float64)
    whole = layer(x, key=5)

    with shard.holding(shard.Slice(0, 4, 16)):
        part = layer(x[4:8], key=5)

    torch.testing.assert_close(part, whole[4:8])
    torch.testing.assert_close(compiled(layer)(x, key=torch.tensor(5)), whole)
    (slices,) = (torch.vmap(lambda x, key: layer(x, key=key))(x[None], torch.tensor([5])),)
    torch.testing.assert_close(slices[0], whole)


def test_a_branch_of_another_dtype_is_added():
    """Under autocast the branch may compute in bfloat16; the output has the dtype of the input."""
    with torch.autocast("cpu", torch.bfloat16):
        output = ResidualDropPath(nn.Linear(6, 6), 0.5)(torch.randn(8, 6), key=1)

    assert output.dtype == torch.float32


def test_layer_drop_is_a_module_list():
    """Its state is that of nn.ModuleList; a loop skips the layers whose mask elements are dropped, and draws anew."""
    layers = [nn.Linear(2, 2) for _ in range(12)]
    drops = LayerDrop(layers, p=0.5)
    mask = dropout(torch.ones(12), 0.5, key=4)

    kept = list(drops.kept(key=4))

    assert kept == [layer for layer, factor in zip(layers, mask.tolist(), strict=True) if factor]
    assert list(drops.state_dict()) == list(nn.ModuleList(layers).state_dict())
    assert [id(layer) for layer in drops] != [id(layer) for layer in drops]
    assert list(drops.eval()) == layers
    assert len(drops) == 12
    assert drops[3] is layers[3]
    assert list(drops.keep(range(0, 12, 2))) == layers[::2]
    with pytest.raises(ValueError, match="indices must be of the 12 layers, got 12"):
        drops.keep([12])


def test_layer_drop_shows_its_rate_above_its_layers():
    """Equal layers are one line, as in nn.ModuleList; an empty list and a subclass show their name and rate."""

    class Encoder(LayerDrop):
        pass

    assert repr(LayerDrop([nn.ReLU(), nn.ReLU()], 0.5)) == "LayerDrop(\n  p=0.5\n  (0-1): 2 x ReLU()\n)"
    assert repr(Encoder([], 0.1)) == "Encoder(p=0.1)"


def test_monte_carlo_leaves_layers_out():
    """mc.sampling switches LayerDrop and ResidualDropPath on in eval mode."""
    for model in (LayerDrop([nn.Linear(6, 6) for _ in range(8)], 0.5), ResidualDropPath(block(torch.float32), 0.5)):
        model.eval()
        x = torch.randn(8, 6)
        plain = model(x)
        with dropkit.mc.sampling():
            samples = [model(x) for _ in range(2)]

        assert not torch.equal(samples[0], plain)
        assert not torch.equal(samples[0], samples[1])


def test_rates_over_depth():
    """Linear from 0 to p, or the same everywhere; the paper's rule begins at p / depth."""
    assert rates_over_depth(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates_over_depth(0.3, 3, "uniform") == [0.3] * 3
    assert rates_over_depth(0.3, 1) == [0.3]
    assert rates_over_depth(0.4, 4 + 1)[1:] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r'rule must be "linear" or "uniform", got \'cosine\''):
        rates_over_depth(0.3, 4, "cosine")


def test_the_loss_of_r_drop():
    """Both cross-entropies, and alpha times the mean of both divergences, computed by torch's functions."""
    torch.manual_seed(0)
    one, two = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 1, 0])
    p, q = one.softmax(1), two.softmax(1)
    divergence = (p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)
    nll = -(p * q).log()[torch.arange(5), target]

    loss = r_drop_loss(one, two, target, alpha=3.0)

    torch.testing.assert_close(loss, (nll + 1.5 * divergence).mean())
    torch.testing.assert_close(r_drop_loss(one, two, target, 3.0, reduction="none").sum(), loss * 5)
    assert torch.autograd.gradcheck(lambda a, b: r_drop_loss(a, b, target), (one.detach().requires_grad_(), two))
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        r_drop_loss(one, two, target, alpha=-1)
    assert math.isfinite(r_drop_loss(one * 1e4, two * 1e4, target).item())


def test_run_twice_has_two_masks():
    """Both halves are outputs of the same inputs; dropped elements are independent."""
    first, second = run_twice(dropkit.nn.Dropout(0.5), torch.ones(64, 16))

    assert first.shape == second.shape == (64, 16)
    assert abs(((first == 0) & (second == 0)).float().mean().item() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1024)
