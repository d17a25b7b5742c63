"""How a batch is passed to the model; dropout of single elements; operators tagged as random that draw nothing."""

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

import dropkit
from dropkit.cli.audit import command

X, Y = torch.randn(4, 8), torch.randn(4, 8)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.out = nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)

    def run(self, x):
        assert isinstance(x, Tensor)
        return self.out(self.drop(self.fc(x)))


class One(Base):
    def forward(self, x):
        return self.run(x)


class Named(Base):
    def forward(self, input_ids, attention_mask=None):
        return self.run(input_ids if attention_mask is None else input_ids + attention_mask)


class Two(Base):
    def forward(self, left, right):
        return self.run(left + right)


class Whole(Base):
    def forward(self, batch):
        return self.run(batch["image"] + batch["mask"])


class Annotated(Base):
    def forward(self, batch: dict[str, Tensor]):
        return self.run(batch["batch"])


class Rows(Base):
    def forward(self, rows):
        return self.run(rows[0] + rows[1])


class Optional(Base):
    def forward(self, x, lengths=None, flag=False):
        assert flag is False
        assert lengths is None or lengths.shape == (4,)
        return self.run(x)


class Scaled(Base):
    def forward(self, x, scale=None):
        return self.run(x if scale is None else x @ scale)


class Typed(Base):
    def forward(self, x: Tensor, flag: bool = False):
        return self.run(x[0] if isinstance(x, list) else x)


class TypedRows(Base):
    def forward(self, rows: list[Tensor] | tuple[Tensor, ...], scale=None):
        return self.run(rows[0] + rows[1])


class Either(Base):
    def forward(self, x: Tensor | list[Tensor], scale=None):
        return self.run(x[0] if scale is None else x * scale)


class Positions(Base):
    def forward(self, *parts):
        return self.run(parts[0])


class Passed(Base):
    def forward(self, *parts):
        return One.forward(self, *parts)


class Fields(Base):
    def forward(self, batch):
        return self.run(batch.left + batch.right)


class Unpacking(Base):
    def forward(self, batch):
        left, right = batch
        return self.run(left + right) + None


class Checked(Base):
    def forward(self, x):
        if not isinstance(x, Tensor):
            raise ValueError("x must be a tensor")
        return self.run(x)


class Defaults(Base):
    def forward(self, x=None, y=None):
        return self.run(x + 1)


class FieldsOrMore(Base):
    def forward(self, batch, extra=None):
        return self.run(batch.left + batch.right)


class TypedFields(Base):
    def forward(self, left: "Pair", right=None):
        return self.run(left.left + left.right)


class Anything(Base):
    def forward(self, **named):
        return self.run(named["image"])


@dataclass
class Batch:
    left: Tensor
    right: Tensor


class Encoding(UserDict):
    """As tokenizers of transformers return it."""


class Indexed(Base):
    def forward(self, tokens):
        return self.run(F.one_hot(tokens, 8).float())


class Constant(Base):
    def forward(self):
        return self.run(torch.ones(4, 8))


Pair = namedtuple("Pair", ["left", "right"])
LABELS = torch.tensor([0, 1, 1, 0])
IDS = {"input_ids": X, "attention_mask": Y}
TAKEN = {
    "names": (Named, IDS),
    "names, some left out": (Named, {"input_ids": X}),
    "an encoding": (Named, Encoding(IDS)),
    "an ordered dict": (Named, OrderedDict(IDS)),
    "any names": (Anything, {"image": X}),
    "a mapping as the one argument": (Whole, {"image": X, "mask": Y}),
    "an encoding as the one argument": (Whole, Encoding(image=X, mask=Y)),
    "a mapping that is asked for": (Annotated, {"batch": X}),
    "a tuple by position": (Two, (X, Y)),
    "a tuple as the one argument": (Rows, (X, Y)),
    "a list by position": (Two, [X, Y]),
    "a list as the one argument": (Rows, [X, Y]),
    "a named tuple by position": (Two, Pair(X, Y)),
    "a named tuple as the one argument": (Fields, Pair(X, Y)),
    "a named tuple by names": (Two, namedtuple("Pair", ["right", "left"])(X, Y)),
    "a named tuple as the one argument beside an optional one": (FieldsOrMore, Pair(X, Y)),
    "a named tuple that is asked for": (TypedFields, Pair(X, Y)),
    "a named tuple of inputs and labels": (One, Pair(X, LABELS)),
    "a list with an optional argument": (Optional, [X, LABELS]),
    "a list that is asked for": (TypedRows, [X, Y]),
    "a tuple that is asked for": (TypedRows, (X, Y)),
    "a list where either is asked for": (Either, [X, Y]),
    "a tuple where either is asked for": (Either, (X, Y)),
    "a list of arguments": (Positions, [X, Y]),
    "a list of one": (One, [X]),
    "a tuple of one": (One, (X,)),
    "inputs and labels": (One, [X, LABELS]),
    "inputs and labels in a tuple": (One, (X, LABELS)),
    "inputs and labels, any arguments": (Passed, [X, LABELS]),
    "inputs and labels beside a flag": (Typed, [X, LABELS]),
    "inputs and labels where forward checks": (Checked, [X, LABELS]),
    "inputs, labels and weights": (One, [X, LABELS, torch.ones(4)]),
    "named inputs and labels": (Named, [IDS, LABELS]),
    "several inputs and labels": (Two, [(X, Y), LABELS]),
    "a dataclass by names": (Two, Batch(X, Y)),
    "a dataclass as the one argument": (Fields, Batch(X, Y)),
    "an object": (Fields, SimpleNamespace(left=X, right=Y)),
}


@pytest.mark.parametrize(("kind", "batch"), TAKEN.values(), ids=TAKEN)
def test_a_batch_is_passed_as_forward_accepts_it(kind, batch):
    """By name or by position if `forward` accepts that, else as the only argument."""
    report = dropkit.audit(kind(), batch)

    assert [site.name for site in report.sites if site.was_reached] == ["drop"]
    assert report.stopped is None


ARRAYS = {
    "an array": (One, X.double().numpy()),
    "integers": (Indexed, np.array([[0, 1], [1, 0]])),
    "a foreign byte order": (One, X.numpy().astype(">f8")),
    "a reversed array": (One, X.numpy()[::-1]),
    "named arrays": (Named, {"input_ids": X.numpy(), "attention_mask": Y.double().numpy()}),
    "an encoding of arrays": (Named, Encoding(input_ids=X.numpy(), attention_mask=Y.numpy())),
    "arrays by position": (Two, (X.numpy(), Y.numpy())),
    "an array and labels": (One, [X.numpy(), LABELS.numpy()]),
    "a loader": (One, DataLoader(TensorDataset(X, LABELS), 2)),
    "a loader of inputs alone": (One, DataLoader(X, 2)),
    "a loader of mappings": (Named, DataLoader([{"input_ids": x} for x in X], 2)),
    "a loader of arrays": (One, DataLoader(X.numpy(), 2, collate_fn=np.stack)),
}


@pytest.mark.parametrize(("kind", "batch"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_and_loaders_are_taken_as_predict_takes_them(kind, batch):
    """Floats get the model's dtype; of a loader the first batch is used."""
    report = dropkit.audit(kind(), batch)

    assert [site.name for site in report.sites if site.was_reached] == ["drop"]
    assert report.stopped is None


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(1)], ids=["default", "own"])
def test_a_loader_shuffles_as_if_there_had_been_no_audit(generator):
    """Its generators are restored."""
    loader = DataLoader(torch.arange(20.0), 4, shuffle=True, generator=generator)
    states = [torch.get_rng_state(), None if generator is None else generator.get_state()]

    dropkit.audit(nn.Dropout(0.5), loader)

    assert torch.equal(states[0], torch.get_rng_state())
    assert generator is None or torch.equal(states[1], generator.get_state())


def test_an_empty_loader_is_an_error():
    """The message says what is wanted."""
    with pytest.raises(ValueError, match="inputs must be a loader that yields a batch, got an empty one"):
        dropkit.audit(One(), DataLoader([], 2))


@pytest.mark.parametrize("kind", [One, Two, Whole])
def test_without_a_batch_the_error_says_to_pass_one(kind):
    """And which arguments forward has."""
    with pytest.raises(
        TypeError, match=rf"inputs must be a batch for {kind.__name__}.forward \(.*, got none: pass one"
    ):
        dropkit.audit(kind())


def test_a_model_without_arguments_needs_no_batch():
    """Its forward decides."""
    assert dropkit.audit(Constant()).stopped is None


@pytest.mark.parametrize(
    ("kind", "batch", "message"),
    [
        (
            Named,
            {**IDS, "labels": X},
            r"named as the arguments of Named.forward \(input_ids, attention_mask\), got labels",
        ),
        (Two, {"left": X}, r"named as the arguments of Two.forward \(left, right\), got only left"),
        (Two, {"image": X}, r"named as the arguments of Two.forward \(left, right\), got image"),
        (nn.Sequential(nn.Linear(8, 8)).__class__, {"image": X}, r"got image"),
        (Two, [X, X, X], r"inputs must be what Two.forward takes \(left, right\), got 3 in a list"),
        (Two, [X], r"inputs must be what Two.forward takes \(left, right\), got 1 in a list$"),
        (One, [[], LABELS], r"inputs must be what One.forward takes \(x\), got 2 in a list; give batch\[0\]"),
        (One, [], r"inputs must be what One.forward takes \(x\), got an empty list$"),
        (Defaults, {}, r"inputs must be what Defaults.forward takes \(x, y\), got an empty dict$"),
        (Defaults, [], r"inputs must be what Defaults.forward takes \(x, y\), got an empty list$"),
        (Two, (), r"inputs must be what Two.forward takes \(left, right\), got an empty tuple$"),
        (Named, {}, r"inputs must be what Named.forward takes \(input_ids, attention_mask\), got an empty dict$"),
    ],
)
def test_a_batch_that_forward_does_not_accept_is_an_error(kind, batch, message):
    model = kind() if kind is not nn.Sequential else nn.Sequential(nn.Linear(8, 8))

    with pytest.raises(TypeError, match=message):
        dropkit.audit(model, batch)


@pytest.mark.parametrize("batch", [[X, LABELS], (X, LABELS), [X]], ids=["list", "tuple", "one"])
@pytest.mark.parametrize(
    "wrap", [nn.Sequential, lambda net: torch.jit.script(nn.Sequential(net))], ids=["eager", "script"]
)
def test_a_batch_of_a_loader_is_audited_without_labels(wrap, batch):
    """The report is that of the inputs alone, and model and generator are restored."""
    net = wrap(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)))
    state, generator = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()

    report = dropkit.audit(net, batch)

    assert [site.rate for site in report.sites] == [site.rate for site in dropkit.audit(net, X).sites]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_optional_parts_with_which_forward_fails_are_omitted_with_a_warning():
    with pytest.warns(UserWarning, match="batch was audited without its optional parts, .* RuntimeError"):
        report = dropkit.audit(Scaled(), [X, LABELS])

    assert [site.name for site in report.sites if site.was_reached] == ["drop"]


WRONG = {
    "shapes of inputs": (One, [X[:, :3], LABELS], RuntimeError, "shapes cannot be multiplied"),
    "shapes in a list": (Rows, [X, Y[:3]], RuntimeError, "must match the size"),
    "a list that is too short": (Rows, [X], IndexError, "list index out of range"),
    "a type, in a list": (Unpacking, [X, Y], TypeError, "'Tensor' and 'NoneType'"),
    "a list of the model's own": (Two, [X, Y], TypeError, "can only concatenate list"),
}


@pytest.mark.parametrize(("kind", "batch", "error", "message"), WRONG.values(), ids=WRONG)
def test_an_error_of_the_model_is_raised(kind, batch, error, message):
    """No other arrangement of the batch is audited instead."""
    net = kind()
    if kind is Two:
        net.run = lambda x: [] + x  # noqa: RUF005 - the fault

    with pytest.raises(error, match=message):
        dropkit.audit(net, batch)


def test_a_packed_sequence_is_one_argument():
    packed = pack_padded_sequence(torch.randn(5, 3, 8), torch.tensor([5, 4, 2]))

    report = dropkit.audit(nn.LSTM(8, 8, 2, dropout=0.5), packed)

    assert [site.kind for site in report.sites] == ["LSTM"]


def test_the_command_accepts_what_the_function_accepts(tmp_path):
    """A dict of names, a dict as the only argument, a tuple, inputs with labels."""
    file = tmp_path / "model.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.fc, self.drop, self.out = nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)\n"
        "    def forward(self, x):\n"
        "        x = x['image'] if isinstance(x, dict) else x\n"
        "        return self.out(self.drop(self.fc(x)))\n"
        "x = torch.randn(4, 8)\nnamed, whole, placed, labelled = {'x': x}, {'image': x}, (x,), [x, x[:, 0]]\n"
    )

    for inputs in ("named", "whole", "placed", "labelled"):
        done = CliRunner().invoke(command, [f"{file}:Net", "--inputs", f"{file}:{inputs}"], standalone_mode=False)
        assert (done.return_value, done.exception) == (0, None), done.output


def model(forward, training_only=True):
    class Net(Base):
        def forward(self, x):
            h = self.fc(x)
            return forward(self, h) if self.training or not training_only else h

    return Net()


SMALL = {
    "sum": lambda net, h: net.drop(h.sum()),
    "mean": lambda net, h: F.dropout(h.mean(), 0.5),
    "maximum": lambda net, h: F.dropout(h.max(), 0.5),
    "norm": lambda net, h: F.dropout(h.norm(), 0.5),
    "a loss": lambda net, h: F.dropout(F.mse_loss(h, h * 0), 0.5),
    "one element": lambda net, h: F.dropout(h.sum().reshape(1, 1), 0.5),
    "a slice of one": lambda net, h: F.dropout(h[:1, :1] * 2, 0.5),
    "channels": lambda net, h: F.dropout2d(h.sum().reshape(1, 1, 1, 1), 0.5),
    "alpha": lambda net, h: F.alpha_dropout(h.sum(), 0.5, True),
    "added": lambda net, h: net.drop(h.sum()) + h.mean(),
    "multiplied": lambda net, h: net.drop(h.sum()) * h,
    "multiplied from the left": lambda net, h: h * net.drop(h.sum()),
    "scaled": lambda net, h: net.drop(h.sum()) * 2,
    "stacked": lambda net, h: torch.stack([net.drop(h.sum()), h.mean()]),
    "in place": lambda net, h: F.dropout(h.sum() * 1, 0.5, inplace=True),
    "read by Python": lambda net, h: h * float(net.drop(h.sum()).detach()),
}


@pytest.mark.parametrize("forward", SMALL.values(), ids=SMALL)
def test_dropout_of_a_single_element_is_seen(forward):
    """Its output is used, and is not taken for a mask."""
    report = dropkit.audit(model(forward), X)
    site = next(site for site in report.sites if site.was_reached)

    assert "DRP201" not in [finding.code for finding in report.findings]
    assert (site.visits[0].is_active, site.visits[0].mask_elements) == (True, 1)


def test_a_discarded_dropout_of_a_single_element_is_found():
    def forward(net, h):
        net.drop(h.sum())
        return h.mean()

    assert "DRP201" in [finding.code for finding in dropkit.audit(model(forward), X).findings]


QUIET = {
    "attention": lambda net, h: F.scaled_dot_product_attention(h[None], h[None], h[None]),
    "attention with a mask": lambda net, h: F.scaled_dot_product_attention(
        h[None], h[None], h[None], attn_mask=torch.ones(4, 4, dtype=torch.bool)
    ),
    "flash": lambda net, h: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        h[None, None], h[None, None], h[None, None]
    )[0],
    "dropout, rate 0": lambda net, h: F.dropout(h, 0.0),
    "dropout, evaluating": lambda net, h: torch.dropout(h, 0.5, False),
    "native, rate 0": lambda net, h: torch.native_dropout(h, 0.0, True)[0],
    "native, evaluating": lambda net, h: torch.native_dropout(h, 0.5, False)[0],
    "rrelu, evaluating": lambda net, h: F.rrelu(h),
    "feature dropout, rate 0": lambda net, h: F.dropout1d(h[:, None], 0.0),
}  # fmt: skip


@pytest.mark.parametrize("forward", QUIET.values(), ids=QUIET)
def test_operators_tagged_as_random_may_draw_nothing(forward):
    net = model(forward, training_only=False)

    assert dropkit.audit(net, X).other_random == ()


@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_networks_without_dropout_draw_nothing(layers):
    assert dropkit.audit(nn.LSTM(8, 8, layers), X[None]).other_random == ()


def test_dropout_in_attention_and_noise_are_seen():
    """Attention with dropout is an active site; noise is another random operation."""
    attention = model(lambda net, h: F.scaled_dot_product_attention(h[None], h[None], h[None], dropout_p=0.5))
    noise = model(lambda net, h: h + torch.randn_like(h))

    assert [site.visits[0].is_active for site in dropkit.audit(attention, X).sites if site.was_reached] == [True]
    assert [operation.operator for operation in dropkit.audit(noise, X).other_random] == ["randn_like"]
