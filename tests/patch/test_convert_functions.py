"""`convert(functions=True)`: functions that a model's modules call, attention and recurrent networks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout as imported
from torch.nn.utils.rnn import pack_padded_sequence

import dropkit
from dropkit.functional import scaled_dot_product_attention

X = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))


def through_a_helper(input: Tensor, training: bool) -> Tensor:
    return imported(input, 0.5, training)


class ByName(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, 0.5, self.training)


class ByMethod(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return self._drop(input, inplace=True)

    def _drop(self, input: Tensor, inplace: bool) -> Tensor:
        return torch.nn.functional.dropout(input.clone(), training=self.training, inplace=inplace)


class ByHelper(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return through_a_helper(input, self.training)


class ByOperator(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return torch.dropout(input, 0.5, train=self.training)


class ByInnerFunction(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return (lambda x: F.alpha_dropout(x, 0.5, self.training))(input)


class ByAttention(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(input, input, input, dropout_p=0.5 if self.training else 0.0)


EXPECTED: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    ByName: lambda x: dropkit.functional.dropout(x, 0.5),
    ByMethod: lambda x: dropkit.functional.dropout(x, 0.5),
    ByHelper: lambda x: dropkit.functional.dropout(x, 0.5),
    ByOperator: lambda x: dropkit.functional.dropout(x, 0.5),
    ByInnerFunction: lambda x: dropkit.functional.alpha_dropout(x, 0.5, True),
    ByAttention: lambda x: scaled_dot_product_attention(x, x, x, dropout_p=0.5, training=True),
}


def seeded(call: Callable[..., Any], *inputs: Any) -> Any:
    torch.manual_seed(5)
    return call(*inputs)


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.__name__)
def test_a_function_runs_as_dropkits(cls):
    """In training mode the masks are those of dropkit's function from the same seed; nothing is left."""
    model = cls()

    changes = dropkit.convert(model, functions=True)

    assert torch.equal(seeded(model, X), seeded(EXPECTED[cls], X))
    assert [change.module for change in changes] == [model]
    assert (changes.left, dropkit.convert(model, functions=True)) == ([], [])


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.__name__)
def test_evaluation_is_as_before(cls):
    """In evaluation mode what was converted returns what it did, and runs torch's functions."""
    model = cls().eval()
    expected = model(X)

    dropkit.convert(model, functions=True)

    assert torch.equal(model(X), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_converted_modules_are_copied_and_remain_of_their_class(copied):
    """A copy drops as the model does, and both are instances of the class, under its name."""
    model = ByName()
    dropkit.convert(model, functions=True)

    other = copied(model)

    assert isinstance(other, ByName)
    assert type(other) is type(model)
    assert type(other).__name__ == "ByName"
    assert torch.equal(seeded(other, X), seeded(model, X))


def test_what_is_not_asked_for_is_left_with_its_line():
    """The reason names the function as the source does, the file and the line."""
    model = nn.ModuleDict({"a": ByName(), "b": ByHelper()})

    left = dropkit.convert(model).left

    line = ByName.forward.__code__.co_firstlineno + 1
    assert str(left[0]).startswith(f"a: left, it calls F.dropout, {__file__}:{line};")
    assert str(left[1]).startswith("b: left, it calls imported, ")


def lstm(**options: Any) -> nn.Module:
    return nn.LSTM(8, 8, 3, dropout=0.5, **options)


RECURRENT = {
    "LSTM": lstm,
    "LSTM with projections": lambda: lstm(proj_size=4),
    "bidirectional": lambda: lstm(bidirectional=True),
    "batch first": lambda: lstm(batch_first=True),
    "GRU": lambda: nn.GRU(8, 8, 2, dropout=0.5),
    "RNN": lambda: nn.RNN(8, 8, 2, dropout=0.5, nonlinearity="relu"),
}


def one_layer(rnn: nn.RNNBase, layer: int) -> nn.RNNBase:
    """A network of one layer of `rnn`."""
    directions = 2 if rnn.bidirectional else 1
    width = rnn.input_size if layer == 0 else directions * (rnn.proj_size or rnn.hidden_size)
    options = {"proj_size": rnn.proj_size} if rnn.proj_size else {}
    if isinstance(rnn, nn.RNN):
        options["nonlinearity"] = rnn.nonlinearity
    kind: Any = next(base for base in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(rnn, base))
    part = kind(width, rnn.hidden_size, batch_first=rnn.batch_first, bidirectional=rnn.bidirectional, **options)
    state = rnn.state_dict()
    part.load_state_dict({name: state[name.replace("_l0", f"_l{layer}")] for name in part.state_dict()})
    return part


def by_hand(parts: list[nn.RNNBase], input: Any) -> tuple[Any, list[Tensor]]:
    states = []
    for layer, part in enumerate(parts):
        if layer and isinstance(input, Tensor):
            input = dropkit.functional.dropout(input, 0.5)
        elif layer:
            input = input._replace(data=dropkit.functional.dropout(input.data, 0.5))
        input, state = part(input)
        states.append(state[0] if isinstance(state, tuple) else state)
    return input, states


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("packed", [False, True], ids=["tensor", "packed"])
@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_recurrent_networks_drop_between_layers(make, packed):
    """Outputs and states are those of the layers one by one with dropkit's dropout between."""
    rnn, x = make(), X.clone().requires_grad_()
    input: Any = x
    if packed:
        lengths = torch.tensor([3, 2, 3, 1, 3] if rnn.batch_first else [2, 5, 4])
        input = pack_padded_sequence(x, lengths, rnn.batch_first, enforce_sorted=False)
    original, parts = copy.deepcopy(rnn), [one_layer(rnn, layer) for layer in range(rnn.num_layers)]

    dropkit.convert(rnn, functions=True)

    (output, state), (wanted, states) = seeded(rnn, input), seeded(by_hand, parts, input)
    output, wanted = (value if isinstance(value, Tensor) else value.data for value in (output, wanted))
    assert torch.equal(output, wanted)
    assert torch.equal(state[0] if isinstance(state, tuple) else state, torch.cat(states))
    assert torch.autograd.grad(output.sum(), x)[0].count_nonzero() > 0
    rnn.load_state_dict(original.state_dict(), strict=True)
    assert torch.equal(rnn.eval()(X)[0], original.eval()(X)[0])


@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention_drops_its_weights(need_weights):
    """Under an outer function mode too; with weights asked for, those that are returned are the dropped ones."""
    attention = nn.MultiheadAttention(8, 2, dropout=0.5)
    original = copy.deepcopy(attention)
    dropkit.convert(attention, functions=True)

    output, weights = seeded(lambda: attention(X, X, X, need_weights=need_weights, average_attn_weights=False))

    with dropkit.installed():  # where the same rule says which weights are dropped
        wanted, dropped = seeded(lambda: original(X, X, X, need_weights=need_weights, average_attn_weights=False))
    if need_weights:
        assert torch.equal(weights, dropped)
        assert torch.equal(output, wanted)
    assert torch.allclose(output, wanted, atol=1e-6)  # the order of operations differs
    assert torch.equal(attention.eval()(X, X, X)[0], original.eval()(X, X, X)[0])


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True), ByName(), ByAttention()]
    return nn.Sequential(*layers, *(nn.Sequential(ByHelper()) for _ in range(2)))


def test_compilers_take_converted_models_as_one_graph():
    """Compiled, the masks are those of eager mode."""
    model = network()
    assert len(dropkit.convert(model, functions=True)) == 8

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    assert torch.allclose(seeded(compiled, X), seeded(model, X), atol=1e-6)


def test_monte_carlo_sees_the_functions():
    """Sampling in evaluation mode drops where it did before the conversion, with the same masks."""
    model = network().eval()
    expected = dropkit.mc.predict(model, X, samples=3, seed=1, class_dim=-1)

    dropkit.convert(model, functions=True)

    assert torch.equal(dropkit.mc.predict(model, X, samples=3, seed=1, class_dim=-1).mean, expected.mean)


def test_the_mode_ends_with_the_call():
    """After a call, and after one that raised, torch's functions are torch's again."""
    model = ByName()
    dropkit.convert(model, functions=True)
    expected = seeded(F.dropout, X)

    model(X)
    with pytest.raises(TypeError):
        model(X, 1)

    assert torch.equal(seeded(F.dropout, X), expected)
    assert not torch.equal(seeded(model, X), expected)
