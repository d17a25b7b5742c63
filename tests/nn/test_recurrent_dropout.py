"""RecurrentDropout and ZoneoutCell against their definitions, written out by explicit masks.

The laws of `helpers/composed_laws.py` run on them as well.
"""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

import dropkit
from dropkit import shard
from dropkit.auditor import Auditor
from dropkit.functional import dropout, locked_dropout
from dropkit.nn import RecurrentDropout, WeightDrop, ZoneoutCell
from dropkit.random import fold_in

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
RATES = {"input_p": 0.2, "hidden_p": 0.3, "recurrent_p": 0.4, "output_p": 0.5}
# The mask is then drawn, and all ones.
NEARLY_0 = 1e-30


def make(kind="LSTM", **options):
    torch.manual_seed(1)
    return KINDS[kind](5, 7, **{"num_layers": 2, **options}).double()


def tensors(output):
    output, states = output
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(states if isinstance(states, tuple) else [states])]


def assert_close(one, other):
    for a, b in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(a, b)


def by_definition(kind, weights, x, mask):
    """Outputs of one layer, one direction, from state 0; the state that meets a weight is dropped."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    h = c = torch.zeros_like(mask)
    outputs = []
    for x_t in x:
        given, own = x_t @ weight_ih.T + bias_ih, (h * mask) @ weight_hh.T + bias_hh
        if kind == "LSTM":
            i, f, g, o = (given + own).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        elif kind == "GRU":
            (r, z, n), (r_own, z_own, n_own) = given.chunk(3, -1), own.chunk(3, -1)
            r, z = (r + r_own).sigmoid(), (z + z_own).sigmoid()
            h = (1 - z) * (n + r * n_own).tanh() + z * h
        else:
            h = (given + own).tanh()
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_all_four_dropouts_are_those_of_the_definition(kind):
    """Masks of the inputs, between the layers, of the states and of the outputs, each the same at all time steps."""
    rnn, x = make(kind), torch.randn(6, 3, 5, dtype=torch.float64)

    output, _ = RecurrentDropout(rnn, **RATES)(x, key=9)

    for layer, p in enumerate((0.2, 0.3)):
        x = locked_dropout(x, p, key=fold_in(9, 3 * layer))
        mask = dropout(torch.ones(3, 7, dtype=torch.float64), 0.4, key=fold_in(9, 3 * layer + 1))
        x = by_definition(kind, rnn.all_weights[layer], x, mask)
    torch.testing.assert_close(output, locked_dropout(x, 0.5, key=fold_in(9, 6)))


OPTIONS = [
    {},
    {"bias": False},
    {"bidirectional": True},
    {"batch_first": True, "bidirectional": True},
    {"proj_size": 3, "bidirectional": True},
    {"proj_size": 3, "bias": False},
    {"nonlinearity": "relu"},
]
CASES = [
    (kind, options)
    for kind, options in itertools.product(KINDS, OPTIONS)
    if kind == {"proj_size": "LSTM", "nonlinearity": "RNN"}.get(next(iter(options), ""), kind)
]


@pytest.mark.parametrize("form", ["batch", "packed", "no batch"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=lambda value: str(value))
def test_step_by_step_is_what_torch_computes_at_once(kind, options, form):
    """Where no unit is dropped, outputs, states and gradients are torch's, from given states and from none."""
    rnn = make(kind, **options)
    stepwise = RecurrentDropout(copy.deepcopy(rnn), recurrent_p=NEARLY_0, hidden_p=NEARLY_0)
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    if form == "packed":
        x = pack_padded_sequence(x, [2, 4, 1, 3, 4, 2][: 4 if rnn.batch_first else 6], rnn.batch_first, False)
    elif form == "no batch":
        x = x[0]

    for module in (rnn, stepwise.rnn):
        module.zero_grad()
    expected = rnn(x)
    once_more = rnn(x, expected[1])
    output = stepwise(x)
    continued = stepwise(x, output[1])

    assert_close(output, expected)
    assert_close(continued, once_more)
    for result in (once_more, continued):
        sum(tensor.square().sum() for tensor in tensors(result)).backward()
    for a, b in zip(rnn.parameters(), stepwise.rnn.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_packed_sequence_have_the_masks_of_the_batch(kind, batch_first):
    """Sample n gives what it gives alone, as part n of the batch, wherever it was sorted to; padded or packed."""
    rnn, dim = make(kind, bidirectional=True, batch_first=batch_first), 0 if batch_first else 1
    layer = RecurrentDropout(rnn, **RATES)
    sequences = [torch.randn(length, 5, dtype=torch.float64) for length in (2, 4, 3)]
    padded = pad_sequence(sequences, batch_first)
    packed = pack_padded_sequence(padded, [2, 4, 3], batch_first, enforce_sorted=False)

    output, states = layer(packed, key=3)
    outputs, _ = pad_packed_sequence(output, batch_first)

    for n, sequence in enumerate(sequences):
        with shard.holding(shard.Slice(dim=dim, start=n, total=3)):
            alone = layer(sequence.unsqueeze(dim), key=3)
        own = outputs.select(dim, n)[: len(sequence)].unsqueeze(dim)
        assert_close((own, tuple(s[:, n : n + 1] for s in tensors((output, states))[1:])), alone)


def test_eval_mode_is_the_module_itself():
    """Nothing is drawn, and the result is that of torch's layer, to the bit."""
    rnn, x = make().eval(), torch.randn(6, 3, 5, dtype=torch.float64)
    layer = RecurrentDropout(rnn, **RATES).eval()

    assert all(map(torch.equal, tensors(layer(x)), tensors(rnn(x))))
    assert list(layer.state_dict()) == [f"rnn.{name}" for name in rnn.state_dict()]


def test_the_awd_lstm_is_two_wrappers():
    """WeightDrop around it drops the hidden weights of the layer in it."""
    rnn, x = make(), torch.randn(6, 3, 5, dtype=torch.float64)
    awd = WeightDrop(RecurrentDropout(rnn, input_p=0.4), ["rnn.weight_hh_l0"], 0.5)
    by_hand = copy.deepcopy(rnn)
    with torch.no_grad():
        by_hand.weight_hh_l0.copy_(dropout(rnn.weight_hh_l0, 0.5, key=fold_in(8, 0)))
    torch.manual_seed(3)
    keys = [dropkit.random.draw() for _ in range(2)]
    torch.manual_seed(3)

    output = awd(x)

    with torch.no_grad():
        by_hand.weight_hh_l0.copy_(dropout(rnn.weight_hh_l0, 0.5, key=keys[0]))
    assert_close(output, by_hand(locked_dropout(x, 0.4, key=fold_in(keys[1], 0))))


@pytest.mark.parametrize(
    ("make_it", "error", "text"),
    [
        (lambda: RecurrentDropout(nn.Linear(2, 2)), TypeError, "rnn must be an nn.LSTM, nn.GRU or nn.RNN, got Linear"),
        (lambda: RecurrentDropout(nn.LSTM(2, 2, 2, dropout=0.1)), ValueError, "dropout must be 0.*hidden_p, got 0.1"),
        (lambda: RecurrentDropout(nn.LSTM(2, 2))(torch.ones(2)), ValueError, "input must be 2-D or 3-D, got 1-D"),
        (lambda: RecurrentDropout(nn.LSTM(2, 2))(torch.ones(4, 3, 5)), RuntimeError, "Expected 2, got 5"),
        (
            lambda: RecurrentDropout(nn.GRU(2, 2))(torch.ones(4, 3, 2), torch.ones(1, 4, 2)),
            RuntimeError,
            "Expected hidden size",
        ),
    ],
    ids=["other module", "dropout of its own", "1-d", "other features", "other batch"],
)
def test_what_does_not_fit_is_refused(make_it, error, text):
    """In torch's words where torch has them."""
    with pytest.raises(error, match=text):
        make_it()


CELL_X, CELL_H, CELL_C = torch.randn(4, 5), torch.randn(4, 7), torch.randn(4, 7)


def test_a_cell_keeps_previous_states():
    """Hidden states and memory cells have a rate and a mask each; the others are those of the cell, to the bit."""
    cell = nn.LSTMCell(5, 7)
    h, c = cell(CELL_X, (CELL_H, CELL_C))
    keeps_h, keeps_c = (dropout(torch.ones(4, 7), p, key=fold_in(6, index)) == 0 for index, p in enumerate((0.3, 0.6)))

    zoned_h, zoned_c = ZoneoutCell(cell, 0.3, 0.6)(CELL_X, (CELL_H, CELL_C), key=6)
    mean_h, mean_c = ZoneoutCell(cell, 0.3, 0.6).eval()(CELL_X, (CELL_H, CELL_C))

    assert torch.equal(zoned_h, torch.where(keeps_h, CELL_H, h))
    assert torch.equal(zoned_c, torch.where(keeps_c, CELL_C, c))
    torch.testing.assert_close(mean_h, 0.3 * CELL_H + 0.7 * h)
    torch.testing.assert_close(mean_c, 0.6 * CELL_C + 0.4 * c)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_no_state_is_zeros(kind):
    """As for torch's cells."""
    cell = kind(5, 7)
    zeros = (torch.zeros(4, 7),) * 2 if isinstance(cell, nn.LSTMCell) else torch.zeros(4, 7)
    zoned = ZoneoutCell(cell, 0.5, 0.5)

    one, other = zoned(CELL_X, key=6), zoned(CELL_X, zeros, key=6)

    assert torch.equal(*(x[0] if isinstance(x, tuple) else x for x in (one, other)))


class First(nn.Module):
    """The output of a recurrent layer without its states."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def model(batch_first=True, **rates):
    return First(RecurrentDropout(make(batch_first=batch_first), **(rates or RATES))).eval()


@pytest.mark.parametrize("rate", RATES)
def test_monte_carlo_dropout_switches_each_on(rate):
    """Also the masks of states, for which eval mode does not run step by step; passes differ."""
    net, x = model(**{rate: 0.5}), torch.randn(3, 6, 5, dtype=torch.float64)
    plain = net(x)

    with dropkit.mc.sampling():
        samples = [net(x) for _ in range(2)]

    assert torch.equal(net(x), plain)
    assert not torch.equal(samples[0], plain)
    assert not torch.equal(*samples)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "time first"])
def test_predictions_do_not_depend_on_the_batch(batch_first):
    """`mc.predict` gives each input masks of its own, also where other inputs stand around it."""
    x = torch.randn(3, 6, 5, dtype=torch.float64)

    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model(batch_first)

        def forward(self, x):
            return (self.net(x) if batch_first else self.net(x.transpose(0, 1)).transpose(0, 1)).flatten(1)

    net = BatchFirst().eval()
    mean = dropkit.mc.predict(net, x, samples=4, seed=1).mean
    spread = dropkit.mc.predict(net, x[:1].expand(3, -1, -1), samples=4, seed=1).mean

    torch.testing.assert_close(dropkit.mc.predict(net, x[:2], samples=4, seed=1).mean, mean[:2])
    assert not torch.equal(spread[0], spread[1])


def test_the_audit_names_each_mask():
    """A site for each of the four, with its rate, active in training alone; and no finding about them."""
    report = Auditor().audit(model().train(), torch.randn(3, 6, 5, dtype=torch.float64))

    names = [f"layer.{name.removesuffix('_p')}_dropout" for name in RATES]
    rows = {name: [line for line in str(report).splitlines() if line.startswith(name)] for name in names}
    assert all(len(lines) == 1 for lines in rows.values()), report
    assert all(f"  {p}  " in rows[name][0] for name, p in zip(names, RATES.values(), strict=True))
    assert report.findings == ()
