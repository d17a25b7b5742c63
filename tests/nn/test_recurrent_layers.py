"""LockedDropout, WeightDrop, Zoneout, EmbeddingDropout and WordDropout against their definitions by explicit masks."""

import pytest
import torch
from torch import nn

import dropkit
from dropkit import shard
from dropkit.functional import dropout, embedding_dropout, locked_dropout, word_dropout, zoneout
from dropkit.nn import EmbeddingDropout, LockedDropout, WeightDrop, WordDropout, Zoneout


@pytest.mark.parametrize("batch_first", [False, True])
def test_locked_dropout_is_a_noise_shape(batch_first):
    """The mask is that of a dropout whose mask has one time step."""
    x = torch.randn(5, 4, 6)
    noise_shape = (None, 1, None) if batch_first else (1, None, None)

    expected = dropout(x, 0.4, noise_shape=noise_shape, key=3)

    assert torch.equal(locked_dropout(x, 0.4, batch_first=batch_first, key=3), expected)
    assert torch.equal(LockedDropout(0.4, batch_first=batch_first)(x, key=3), expected)


def test_locked_dropout_needs_time_and_features():
    """One dimension is refused before a key is drawn."""
    with pytest.raises(RuntimeError, match="input must have at least 2 dimensions, time and features, got 1"):
        locked_dropout(torch.ones(3))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_weight_drop_runs_a_recurrent_layer_on_dropped_weights(kind):
    """Output, state and gradients are those of a layer whose weights were dropped by hand."""
    torch.manual_seed(0)
    layer, x = kind(5, 7, num_layers=2), torch.randn(3, 2, 5)
    names = ["weight_hh_l0", "weight_hh_l1"]
    by_hand = kind(5, 7, num_layers=2)
    by_hand.load_state_dict(layer.state_dict())
    masks = {}
    for index, name in enumerate(names):
        weight = by_hand.get_parameter(name)
        masks[name] = dropout(torch.ones_like(weight), 0.5, key=dropkit.random.fold_in(9, index))
        with torch.no_grad():
            weight.mul_(masks[name])

    output, state = WeightDrop(layer, names, 0.5)(x, key=9)
    expected, expected_state = by_hand(x)
    output.sum().backward()
    expected.sum().backward()

    assert torch.equal(output, expected)
    assert torch.equal(state[0], expected_state[0])
    for name, parameter in layer.named_parameters():
        gradient = by_hand.get_parameter(name).grad * masks.get(name, 1.0)
        torch.testing.assert_close(parameter.grad, gradient)


def test_weight_drop_leaves_the_module_as_it_is():
    """After a call its parameters are the same objects; in eval mode it is the plain module."""
    layer, x = nn.LSTM(5, 7), torch.randn(3, 2, 5)
    before = list(layer.parameters())
    dropped = WeightDrop(layer, ["weight_hh_l0"], 0.5)

    trained = dropped(x)[0]

    assert all(a is b for a, b in zip(layer.parameters(), before, strict=True))
    assert not torch.equal(trained, layer(x)[0])
    assert torch.equal(dropped.eval()(x)[0], layer(x)[0])
    assert list(dropped.state_dict()) == [f"module.{name}" for name in layer.state_dict()]


def test_weight_drop_names_what_there_is():
    """An unknown name is an error that lists the parameters."""
    with pytest.raises(ValueError, match=r"names must be among the parameters of module, weight, bias, got 'wieght'"):
        WeightDrop(nn.Linear(2, 2), ["wieght"])


def test_every_rank_drops_the_same_weights_and_words():
    """What is stated about the batch says nothing about weights: a rank's rows are those of the whole."""
    x, ids = torch.randn(6, 8), torch.arange(6)
    linear, words = WeightDrop(nn.Linear(8, 8), p=0.5), EmbeddingDropout(nn.Embedding(6, 8), 0.5)
    whole = linear(x, key=4), words(ids, key=4)

    with shard.holding(shard.Slice(0, 2, 6)):
        part = linear(x[2:4], key=4), words(ids[2:4], key=4)

    torch.testing.assert_close(part[0], whole[0][2:4])
    assert torch.equal(part[1], whole[1][2:4])


def test_zoneout_keeps_bits():
    """Each unit is that of one of the two states, even if the other is NaN."""
    old, new = torch.randn(6, 8), torch.randn(6, 8)
    mask = dropout(torch.ones(6, 8), 0.3, key=5) == 0

    assert torch.equal(zoneout(old, new, 0.3, key=5), torch.where(mask, old, new))
    assert torch.equal(Zoneout(0.3)(old, new, key=5), torch.where(mask, old, new))
    assert zoneout(old.fill_(torch.nan), new, 0.3, key=5)[~mask].isfinite().all()
    assert torch.equal(zoneout(old, new, 0.0), new)
    assert torch.equal(zoneout(torch.zeros(6, 8), new, 1.0), torch.zeros(6, 8))


def test_zoneout_returns_the_expectation_in_eval_mode():
    """As the paper defines it: p times the previous state and 1 - p times the new one."""
    old, new = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)

    torch.testing.assert_close(Zoneout(0.3).eval()(old, new), 0.3 * old + 0.7 * new)


def test_states_of_other_shapes_are_refused():
    """Broadcasting would hide a mistake."""
    with pytest.raises(ValueError, match=r"previous must be of the shape of current, \(2, 3\), got \(3,\)"):
        zoneout(torch.zeros(3), torch.zeros(2, 3))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"sparse": True}, {"scale_grad_by_freq": True}], ids=str)
def test_embedding_dropout_is_that_of_a_dropped_table(options):
    """Output and gradient are those of a lookup in the table whose rows were dropped."""
    torch.manual_seed(0)
    table, ids = nn.Embedding(20, 5, **options), torch.randint(20, (4, 9))
    rows = dropout(torch.ones(20), 0.4, key=6).unsqueeze(1)
    weight = table.weight.detach().clone().requires_grad_()

    output = EmbeddingDropout(table, 0.4)(ids, key=6)
    options = {name: value for name, value in options.items() if name != "sparse"}
    expected = nn.functional.embedding(ids, weight * rows, **options)
    output.square().sum().backward()
    expected.square().sum().backward()

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(table.weight.grad.to_dense(), weight.grad)


def test_a_dropped_words_nan_is_gone():
    """Rows are chosen, not multiplied by 0."""
    output = embedding_dropout(torch.arange(4), torch.full((4, 2), torch.nan), 0.5, key=7)

    assert torch.equal(output.isnan(), torch.tensor([[True] * 2] * 2 + [[False] * 2] * 2))
    assert (output[2:] == 0).all()


def test_word_dropout_spares_the_kept_tokens():
    """Tokens in `kept` stay, others become the unknown one where their mask element is dropped."""
    ids = torch.tensor([[1, 5, 6, 7, 2, 0], [1, 8, 9, 2, 0, 0]])
    dropped = (dropout(torch.ones(2, 6), 0.5, key=8) == 0) & (ids > 2)

    output = WordDropout(3, 0.5, kept=(0, 1, 2))(ids, key=8)

    assert torch.equal(output, torch.where(dropped, 3, ids))
    assert word_dropout(ids, 3, 0.5, training=False) is ids
    with pytest.raises(TypeError, match=r"input must be indices of words, of an integer dtype, got torch[.]float32"):
        word_dropout(torch.ones(2), 3)


@pytest.mark.parametrize(
    ("model", "input"),
    [
        (nn.Sequential(LockedDropout(0.5, batch_first=True)), torch.ones(4, 3, 8)),
        (nn.Sequential(WeightDrop(nn.Linear(8, 4), p=0.5)), torch.ones(4, 8)),
        (nn.Sequential(EmbeddingDropout(nn.Embedding(9, 4), 0.5)), torch.arange(8).view(4, 2)),
    ],
    ids=["LockedDropout", "WeightDrop", "EmbeddingDropout"],
)
def test_monte_carlo_switches_them_on(model, input):
    """`mc.sampling` drops in eval mode, and passes differ."""
    model.eval()
    plain = model(input)

    with dropkit.mc.sampling():
        samples = [model(input) for _ in range(3)]

    assert torch.equal(model(input), plain)
    assert all(not torch.equal(sample, plain) for sample in samples)
    assert not torch.equal(samples[0], samples[1])
