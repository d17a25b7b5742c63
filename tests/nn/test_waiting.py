"""Training steps that do not wait for a GPU. The meta device stands in for one: reading from it is an error."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dropkit import random, shard
from dropkit.functional import concrete_dropout, drop_path, dropout, residual_drop_path
from dropkit.kernels.gpu import keys
from dropkit.kernels.gpu import send as sending
from dropkit.nn import (
    BatchwiseConv,
    BatchwiseMLP,
    ConcreteDropout,
    FeedForward,
    RecurrentDropout,
    recurrent_dropout,
    submatrix,
)
from dropkit.nn import residual_drop_path as residual

META = torch.device("meta")
KEY = 11


@pytest.fixture
def gpu(monkeypatch):
    """Take the meta device for a GPU; the state of this one, and what is sent to it."""
    gpu = SimpleNamespace(is_captured=False, agrees=True, sent=[])
    to = Tensor.to

    def refuse_to_wait(self, *args, **options):
        output = to(self, *args, **options)
        assert self.is_meta or not output.is_meta, "this copy would wait for the device"
        return output

    def send(numbers, device):
        gpu.sent.append(numbers)
        assert not gpu.is_captured
        return to(numbers, device)

    monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor: tensor.is_meta))
    monkeypatch.setattr(Tensor, "to", refuse_to_wait)
    for module in (residual, submatrix, recurrent_dropout):
        monkeypatch.setattr(module, "send", send)
    for module in (residual, submatrix):
        monkeypatch.setattr(module, "is_captured", lambda device: gpu.is_captured)
    monkeypatch.setattr(keys, "draw", lambda generator, device: KEY)
    monkeypatch.setattr(keys, "agrees", lambda device: gpu.agrees)
    return gpu


def made_there(make, *arguments):
    with META:
        return make(*arguments)


def rows_of(seen, x):
    seen.append(len(x))
    return 2 * x


def test_the_kept_samples_are_found_without_waiting(gpu):
    """The indices of the kept samples are sent, forward and backward run on as many; by drawn and given keys."""
    x, seen = torch.empty(32, 3, device=META, requires_grad=True), []
    for key in (None, 7, torch.tensor(7), random.to_torch(7)):
        output = residual_drop_path(x, partial(rows_of, seen), 0.4, key=key)
        output.sum().backward()

        kept = drop_path(torch.ones(32), 0.4, key=KEY if key is None else key).nonzero().flatten()
        assert torch.equal(gpu.sent.pop(), kept)
        assert seen.pop() == len(kept)
        assert output.device == x.grad.device == META


def test_the_kept_samples_of_a_part_are_those_of_the_whole(gpu):
    """A rank sends the indices of its own rows."""
    whole = drop_path(torch.ones(32), 0.4, key=7)

    with shard.holding(shard.Slice(0, 8, 32)):
        residual_drop_path(torch.empty(12, 3, device=META), lambda x: x, 0.4, key=7)

    assert torch.equal(gpu.sent.pop(), whole[8:20].nonzero().flatten())


def test_in_eval_mode_and_at_the_ends_nothing_is_sent(gpu):
    """Where all samples or none are kept there is nothing to find."""
    x, seen = torch.empty(8, 3, device=META), []

    for p, training in ((0.5, False), (0.0, True), (1.0, True), (1, True)):
        residual_drop_path(x, partial(rows_of, seen), p, training)

    assert (seen, gpu.sent) == ([8, 8], [])


def test_a_captured_graph_computes_all_samples(gpu):
    """Its replays run as many as the capture, whatever they keep."""
    seen, gpu.is_captured = [], True

    residual_drop_path(torch.empty(8, 3, device=META), partial(rows_of, seen), 0.5, key=7)

    assert (seen, gpu.sent) == ([8], [])


@pytest.mark.parametrize("what", ["key", "p"])
def test_keys_and_rates_on_the_device_are_used_there(gpu, monkeypatch, what):
    """Which waits for it."""
    devices, on_device = [], {"key": torch.empty((), dtype=torch.int64, device=META), "p": torch.empty((), device=META)}
    monkeypatch.setattr(residual, "drop_path", lambda ones, *_, **__: devices.append(ones.device) or 1 * ones)

    with pytest.raises(NotImplementedError, match="nonzero"):
        residual_drop_path(torch.empty(8, 3, device=META), lambda x: x, **{"key": 7, what: on_device[what]})

    assert devices == [META]


BLOCKS = {
    "feed-forward": (partial(FeedForward, 12, 40), (7, 5, 12), 40),
    "gated": (partial(FeedForward, 12, 40, gated=True, bias=False), (7, 12), 40),
    "MLP": (partial(BatchwiseMLP, (12, 40, 32, 9)), (7, 12), 40),
    "convolutions": (partial(BatchwiseConv, (3, 40, 5), 3), (4, 3, 6, 7), 40),
}
blocks = pytest.mark.parametrize(("make", "shape", "units"), BLOCKS.values(), ids=BLOCKS)


@pytest.fixture
def products(monkeypatch):
    """The parts that products were cut to, however small they are."""
    parts, original = [], submatrix._product

    def product(layer, input, part):
        parts.append(part)
        return original(layer, input, part)

    monkeypatch.setattr(submatrix, "_product", product)
    for name in ("LEAST_ROWS_ON_GPU", "LEAST_MULTIPLICATIONS_ON_GPU"):
        monkeypatch.setattr(submatrix, name, 0)
    return parts


@blocks
@pytest.mark.parametrize("key", [None, 7, torch.tensor(7)], ids=["drawn", "an int", "on the host"])
def test_units_are_left_out_without_waiting(gpu, products, make, shape, units, key):
    """The indices and factors that are sent are those of the mask; all parameters get gradients of their shapes."""
    model, x = made_there(make, 0.5), torch.empty(shape, device=META, requires_grad=True)

    model(x, key=key).sum().backward()

    first = KEY if key is None else key
    mask = dropout(torch.ones(units), 0.5, key=first if isinstance(model, FeedForward) else random.fold_in(first, 0))
    indices, factors = gpu.sent[:2]
    assert torch.equal(indices[factors != 0], mask.nonzero().flatten())
    assert torch.equal(factors.float(), mask[indices])
    assert products[0].rows.shape == indices.shape
    assert products[0].rows.device == products[-1].scale.device == META
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


@pytest.mark.parametrize("where", ["captured", "key", "drawn on the device", "small"])
def test_units_that_the_host_cannot_know_are_computed(gpu, products, monkeypatch, where):
    """By the masked product, which reads nothing from the device."""
    model, x = made_there(FeedForward, 12, 40, 0.5), torch.empty(7, 12, device=META)
    gpu.is_captured, gpu.agrees = where == "captured", where != "drawn on the device"
    key = {"key": torch.empty((), dtype=torch.int64, device=META), "drawn on the device": None}.get(where, 7)
    if where == "small":
        monkeypatch.setattr(submatrix, "LEAST_ROWS_ON_GPU", 4)
    calls = []
    monkeypatch.setattr(submatrix, "dropout", lambda hidden, *args, **options: calls.append(options["key"]) or hidden)

    model(x, key=key)

    assert (products, gpu.sent, calls) == ([], [], [key])


def test_packed_sequences_are_dropped_without_waiting(gpu):
    """Which sample a row of a packed sequence belongs to is sent."""
    sizes = torch.tensor([3, 2, 2])
    layout = recurrent_dropout._Layout(3, sizes=sizes)
    rnn = RecurrentDropout(made_there(nn.GRU, 4, 4), 0.5)
    call = recurrent_dropout._Call(rnn.rnn, layout, KEY)

    assert call.drop(torch.empty(7, 4, device=META), rnn.input_dropout, 0).shape == (7, 4)
    assert gpu.sent.pop().tolist() == [0, 1, 2, 0, 1, 0, 1]


def test_a_rate_of_concrete_dropout_is_no_copy(gpu, monkeypatch):
    """Neither a number as the rate nor an assignment copies from the host, and values are those of before."""
    monkeypatch.setattr(Tensor, "copy_", lambda *_: pytest.fail("a copy waits"))
    monkeypatch.setattr(torch, "as_tensor", lambda *_, **__: pytest.fail("a copy waits"))
    layer = ConcreteDropout(nn.Linear(3, 3))

    for p in (0.0, 0.3):
        layer.p = p
        assert torch.equal(layer.p_logit.detach(), torch.logit(torch.tensor(p, dtype=torch.float64)).float())
    assert concrete_dropout(torch.ones(2, 3), 0.3, key=7).shape == (2, 3)


def test_what_is_sent_is_pinned_and_not_waited_for(monkeypatch):
    """The copy is one from pinned memory that does not block, but not in a captured graph, nor on a CPU."""
    calls, captured = [], []
    numbers = SimpleNamespace(
        pin_memory=lambda: calls.append("pinned") or numbers,
        to=lambda device, non_blocking=False: calls.append((device, non_blocking)),
    )
    monkeypatch.setattr(sending, "is_captured", lambda device: bool(captured))

    sending.send(numbers, torch.device("cuda", 1))
    captured.append(True)
    sending.send(numbers, torch.device("cuda", 1))
    sending.send(numbers, torch.device("cpu"))

    assert calls == [
        "pinned",
        (torch.device("cuda", 1), True),
        (torch.device("cuda", 1), False),
        (torch.device("cpu"), False),
    ]
