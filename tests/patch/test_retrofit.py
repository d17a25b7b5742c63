"""Dropout put into models that have none, or other dropout than is wanted: what changes, and what must not."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

import dropkit
from dropkit.nn import AlphaDropout, DropPath

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def retrofitted() -> nn.Sequential:
    model = plain()
    dropkit.retrofit(model, p=0.5)
    return model


def seeded(model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(5)
    return model(*inputs)


def test_new_dropout_runs_at_its_place():
    """The model computes what it would with the layer written there, with the masks of the same seed."""
    first, activation, last = plain()
    by_hand = nn.Sequential(first, activation, dropkit.nn.Dropout(0.5), last)

    assert torch.equal(seeded(retrofitted(), X), seeded(by_hand, X))


@pytest.mark.parametrize("place", ["before 2", "before-classifier", "after 1", ["1"]], ids=str)
def test_a_place_can_be_named_from_both_sides(place):
    """After a layer and before the next one is the same place."""
    model = plain()

    dropkit.retrofit(model, p=0.5, place=place)

    assert torch.equal(seeded(model, X), seeded(retrofitted(), X))


def test_evaluation_is_that_of_the_model_before():
    """`eval()` and `train()` reach new dropout, which also has the mode of its module from the start."""
    model = plain().eval()
    dropkit.retrofit(model, p=0.5)

    assert torch.equal(model(X), plain()(X))
    assert not torch.equal(model.train()(X), plain()(X))


def test_state_dicts_of_both_models_are_exchangeable():
    """The keys are the same, so a state saved before loads after, and the other way round."""
    model = retrofitted()

    assert list(model.state_dict()) == list(plain().state_dict())
    model.load_state_dict(plain().state_dict(), strict=True)
    plain().load_state_dict(model.state_dict(), strict=True)


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_have_their_own_dropout(copied):
    """A copy drops as the model does, and does not share its rate."""
    model = retrofitted()
    other = copied(model)

    assert torch.equal(seeded(other, X), seeded(model, X))
    dropkit.retrofit(model, p=0.0, place="existing")
    assert not torch.equal(seeded(other, X), plain()(X))


def test_hooks_of_another_process_do_not_replace_the_dropout(monkeypatch):
    """torch numbers hooks from 0 in each process; a hook that is added to an unpickled model leaves the dropout in."""
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    saved = pickle.dumps(retrofitted())
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    model = pickle.loads(saved)

    for _ in range(9):
        model[1].register_forward_hook(lambda module, args, output: None)

    assert torch.equal(seeded(model, X), seeded(retrofitted(), X))


def test_compilers_take_the_model_as_one_graph():
    """Compiled, the model drops as in eager mode."""
    model = nn.Sequential(*retrofitted())
    dropkit.retrofit(model, p=0.3, place="before 0")

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    assert torch.equal(seeded(compiled, X), seeded(model, X))


def test_fx_graphs_follow_the_mode():
    """A traced model drops in training mode and not in evaluation."""
    traced = torch.fx.symbolic_trace(retrofitted())

    assert torch.equal(seeded(traced, X), seeded(retrofitted(), X))
    assert torch.equal(traced.eval()(X), plain()(X))


def test_monte_carlo_sees_new_dropout():
    """Sampling switches it on in a model in evaluation mode, and off again."""
    model = retrofitted().eval()

    with dropkit.mc.sampling():
        assert not torch.equal(model(X), plain()(X))
    assert torch.equal(model(X), plain()(X))


@pytest.mark.parametrize("place", ["after-activations", "before-classifier", "existing", "0", ["before 2", "1*"]])
def test_a_dry_run_returns_the_plan_and_changes_nothing(place):
    """The plan is what is done then; the model is as before."""
    model = nn.Sequential(*plain()[:2], nn.Dropout(0.1), nn.Linear(16, 4))
    before, flags = str(model), [m.training for m in model.modules()]

    plan = dropkit.retrofit(model, "AlphaDropout", 0.3, place, dry_run=True)

    assert str(model) == before
    assert [m.training for m in model.modules()] == flags
    assert str(dropkit.retrofit(model, "AlphaDropout", 0.3, place)) == str(plan)
    assert len(plan) > 0


def test_what_is_there_is_changed_and_not_doubled():
    """Dropout at the place keeps its object and gets kind and rate; a second retrofit changes that of the first."""
    model = nn.Sequential(*plain()[:2], nn.Dropout(0.1, inplace=True), nn.Linear(16, 4))
    dropout = model[2]

    assert str(dropkit.retrofit(model, "AlphaDropout", 0.3)) == (
        "2: Dropout(p=0.1, inplace=True) -> AlphaDropout(p=0.3, inplace=True)"
    )
    assert model[2] is dropout
    assert isinstance(dropout, AlphaDropout)
    again = retrofitted()
    assert str(dropkit.retrofit(again, p=0.2, place="before-classifier")) == (
        "1.dropout_after: Dropout(p=0.5, inplace=False) -> Dropout(p=0.2, inplace=False)"
    )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, 2)
        self.single = nn.LSTM(8, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.attention_dropout = 0.0
        self.path = DropPath(0.1)


def test_existing_reaches_rates_inside_other_modules():
    """Recurrent layers and attention get the rate; what has no effect or is unsure is left with a reason."""
    model = Block()

    changes = dropkit.retrofit(model, p=0.3, place="existing")

    assert (model.lstm.dropout, model.attention.dropout, model.path.p) == (0.3, 0.3, 0.3)
    assert (model.single.dropout, model.attention_dropout) == (0, 0.0)
    assert [left.name for left in changes.left] == ["attention_dropout", "single"]
    dropkit.retrofit(model, p=0.2, place="attention_dropout")
    assert model.attention_dropout == 0.2


def test_a_kind_is_not_changed_into_one_of_another_family():
    """Dropping whole branches and dropping units do not stand for each other, unless the layer is named."""
    model = Block()

    changes = dropkit.retrofit(model, "Dropout", 0.3, "existing")

    assert isinstance(model.path, DropPath)
    assert "path" in [left.name for left in changes.left]
    dropkit.retrofit(model, "Dropout", 0.3, "path")
    assert type(model.path) is dropkit.nn.Dropout


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(),
        nn.Linear(8, 2),
    )  # fmt: skip


@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 8, 8)], ids=["by order", "by example"])
def test_no_dropout_comes_before_a_batch_norm_unless_told(example):
    """The place is left with the reason, whether it is found by order or by data flow; channels drop on maps."""
    model = convolutional()

    changes = dropkit.retrofit(model, "auto", 0.1, example=example)

    assert [str(change) for change in changes] == [
        "after 3: Dropout2d(p=0.1, inplace=False)",
        "after 6: Dropout(p=0.1, inplace=False)",
    ]
    assert [left.name for left in changes.left] == ["1"]
    told = dropkit.retrofit(convolutional(), "auto", 0.1, example=example, before_batch_norm=True)
    assert [change.name for change in told] == ["1", "3", "6"]


class Reversed(nn.Module):
    """Runs its modules in another order than that of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.fc = nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, input):
        return self.norm(self.act(self.fc(input)))


def test_an_example_shows_what_the_order_hides():
    """With an example, the data flow counts."""
    assert len(dropkit.retrofit(Reversed(), p=0.1, dry_run=True)) == 1

    assert len(dropkit.retrofit(Reversed(), p=0.1, example=X)) == 0


def test_the_run_of_an_example_leaves_no_trace():
    """Statistics, modes, gradients, hooks, frozen parameters and torch's generator are as before."""
    model = convolutional()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    flags, state = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()

    dropkit.retrofit(
        model, p=0.1, place="residual-branches", example=torch.randn(2, 3, 8, 8, generator=torch.Generator())
    )

    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model[0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.shortcut, self.second = nn.Linear(8, 8), copy.deepcopy(self.branch)
        self.bias = nn.Linear(8, 8)

    def forward(self, input):
        first = input + self.branch(input) + self.bias.weight[0]
        return self.shortcut(first) + self.second(first)


def test_residual_branches_are_found():
    """The longer addend of a sum of two that come from one tensor is the branch; a skip connection is never dropped."""
    model = Residual()

    changes = dropkit.retrofit(model, "DropPath", 0.5, "residual-branches", example=X)

    assert [change.name for change in changes] == ["branch.2", "second.2"]


def mlp(depth: int, *dropout: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(64, 64), nn.ReLU(), *copy.deepcopy(dropout))]
    return nn.Sequential(nn.LayerNorm(64), *hidden, nn.Linear(64, 5), nn.Tanh())


@pytest.mark.parametrize("model", [mlp(1), mlp(3), mlp(2, nn.Dropout(0.9))], ids=["block", "deep", "with dropout"])
def test_feed_forward_blocks_drop_units_for_the_whole_batch(model):
    """Output and gradients are those of plain layers with one mask for all rows; names and evaluation are kept."""
    x, keys = torch.randn(512, 64), list(model.state_dict())
    kept = [layer for layer in copy.deepcopy(model) if not isinstance(layer, nn.Dropout)]

    dropkit.retrofit(model, "FeedForward", 0.5)

    torch.manual_seed(5)
    expected = kept[0](x)
    for layer in kept[1:]:
        expected = layer(expected)
        if isinstance(layer, nn.ReLU):
            expected = dropkit.functional.dropout(expected, 0.5, noise_shape=(1, 64))
    output = seeded(model, x)
    assert torch.allclose(output, expected, atol=1e-5)  # the order of sums differs
    grads = [
        torch.autograd.grad(y.square().sum(), w)[0] for y, w in ((output, model[1].weight), (expected, kept[1].weight))
    ]
    assert torch.allclose(*grads, atol=1e-3, rtol=1e-3)
    assert list(model.state_dict()) == keys
    assert torch.equal(model.eval()(x), nn.Sequential(*kept).eval()(x))
    assert torch.equal(seeded(pickled(model.train()), x), output)


def test_rates_may_differ_along_the_places():
    """A list of rates gives one to each place, in order."""
    model = nn.Sequential(plain(), nn.ReLU(), nn.Linear(4, 4))

    dropkit.retrofit(model, p=[0.1, 0.2])

    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.1, 0.2]


def test_outputs_that_are_tuples_drop_their_first_item():
    """The rest of a tuple passes as it is."""
    model = nn.LSTM(8, 8)
    dropkit.retrofit(nn.ModuleDict({"lstm": model}), "Dropout", 0.5, "after lstm")

    output, (h, _) = model(X)

    assert (output == 0).any()
    assert not (h == 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kind": "Dropuot"},
            "kind must be the name of a layer .*, got 'Dropuot'; did you mean Dropout\\?",
        ),
        ({"kind": nn.Linear}, "kind must be the name of a layer"),
        ({"kind": "DropoutAdd"}, "kind must be the name of a layer"),
        ({"p": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
        ({"p": [0.1, 0.2]}, "p must be one rate, or one for each of the 1 changes, got 2 rates"),
        ({"place": "after-activation"}, "got 'after-activation'; did you mean after-activations\\?"),
        ({"place": "nowhere"}, "place must be one of 'after-activations', .*, got 'nowhere'"),
        ({"place": "beside 1"}, "place must be .*, got 'beside 1'"),
        ({"place": "residual-branches"}, "example must be an input of the model .*, got None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_errors_name_the_argument(arguments, message):
    """An impossible request fails before anything is changed."""
    model = plain()

    with pytest.raises(ValueError, match=message):
        dropkit.retrofit(model, **arguments)
    assert str(model) == str(plain())
