"""Which modules gate dropout by their own flag, and how the flag is overridden."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.mc_models import Attention, DropPath, inputs, spread
from torch import Tensor, nn

from dropkit import catalog, dropout_functions, mc
from dropkit.mc.training_flag import detection
from dropkit.mc.training_flag.detection import gates_dropout

X = inputs(4)


class Auxiliary(nn.Module):
    """A flag that decides what is returned, and has nothing to do with dropout."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = nn.functional.dropout(x, 0.5, training=self.training)
        if self.training:
            return y, x
        return y


class Statistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return x


class EarlyReturn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.rand_like(x) < 0.5
        return x * mask


class NamesItsFlag(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        training = self.training
        return self.dropout_by_hand(x, training)

    def dropout_by_hand(self, x: Tensor, on: bool) -> Tensor:
        return x * torch.empty_like(x).bernoulli_(0.5) if on else x


def dropout(x: Tensor, training: bool) -> Tensor:
    """A function of the user with the name of torch's."""
    return x * torch.bernoulli(torch.full_like(x, 0.5)) if training else x


class OwnFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.training)


class ImportsInside(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.dropout(x, 0.5, self.training)


class GaussianDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.randn_like(x)) if self.training else x


class Sampled(nn.Module):
    """Noise that is no dropout, as in an autoencoder."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class AsksByName(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if getattr(self, "training", False) else x


class OwnNorm(nn.BatchNorm1d):
    """Keeps statistics, and has a dropout rate as well."""

    drop = 0.1

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 - self.drop if self.training else 1)


@pytest.mark.parametrize(
    ("kind", "gates"),
    [
        (Attention, True), (DropPath, True), (EarlyReturn, True), (NamesItsFlag, True), (Auxiliary, False),
        (OwnFunction, True), (ImportsInside, False), (GaussianDropout, True), (Sampled, False),
        (Statistics, False), (OwnNorm, False), (nn.Dropout, False), (nn.LSTM, False), (nn.RReLU, False),
        (nn.MultiheadAttention, False), (nn.TransformerEncoderLayer, False), (AsksByName, True),
    ],
)  # fmt: skip
def test_only_flags_that_gate_dropout_are_overridden(kind: type[nn.Module], gates: bool) -> None:
    """Not those of statistics or outputs, nor where the flag is an argument that can be rewritten."""
    assert gates_dropout(kind) is gates


class ByOneFlag(nn.Module):
    """Statistics and a mask that the module makes, both by one flag, passed by position or by name."""

    def __init__(self, norm: Callable[..., Tensor], named: bool) -> None:
        super().__init__()
        self.norm, self.flag = norm, {F.batch_norm: "training", F.instance_norm: "use_input_stats"}[norm]
        self.named, self.inner = named, nn.BatchNorm1d(8)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.named:
            x = self.norm(x, running_mean=self.mean, running_var=self.var, **{self.flag: self.training})
        else:
            x = self.norm(x, self.mean, self.var, None, None, self.training)
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("norm", [F.batch_norm, F.instance_norm])
def test_statistics_do_not_change_where_the_flag_is_overridden(norm: Callable[..., Tensor], named: bool) -> None:
    """The function that keeps them runs in evaluation mode; a layer that the user trains does not."""
    model, x = ByOneFlag(norm, named).eval(), torch.randn(6, 8, 5)
    expected = model(x)

    with mc.sampling():
        y = model(x)
    assert (y == 0).any()
    torch.testing.assert_close(y[y != 0], expected[y != 0])
    assert not model.mean.any()
    assert not model.inner.running_mean.any()

    model.inner.train()
    with mc.sampling():
        model(x)
    assert not model.mean.any()
    assert model.inner.running_mean.any()

    model.inner.eval()
    assert mc.predict(model, x, 5, "regression", seed=0).variance.any()
    assert not model.mean.any()


def test_the_overriding_class_is_not_registered() -> None:
    """`__init_subclass__` does not run for it, whatever arguments it needs."""
    names: list[str] = []

    class Registered(nn.Module):
        def __init_subclass__(cls, name: str) -> None:
            names.append(name)

    class Masked(Registered, name="masked"):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x

    model = Masked().eval()
    with mc.sampling():
        assert spread(model, X) > 0
    assert names == ["masked"]
    assert type(model) is Masked


def test_code_without_source_is_classified_by_its_names() -> None:
    """The compiled code of a class that `exec` made still holds the names that it reads."""
    names: dict[str, type[nn.Module]] = {}
    lines = "class {}(nn.Module):\n    def forward(self, x):\n        return {} if self.training else x\n"
    exec(lines.format("Drops", "x * torch.bernoulli(x)") + lines.format("Adds", "x + 1"), globals(), names)

    assert gates_dropout(names["Drops"])
    assert not gates_dropout(names["Adds"])


def test_what_was_imported_before_does_not_matter(torchvision) -> None:  # type: ignore[no-untyped-def]
    """Functions of torchvision are Python code that no mode sees, whether the catalog knows them or not."""
    for cached in (gates_dropout, detection._taking_flag, dropout_functions.dropout_functions):
        cached.cache_clear()
    assert gates_dropout(torchvision.ops.StochasticDepth)
    assert gates_dropout(torchvision.ops.DropBlock2d)


@pytest.mark.parametrize("name", sorted({*catalog.FUNCTIONALS, *catalog.DROPOUT_MODULES, *catalog.DROPOUT_PATHS}))
def test_every_dropout_of_the_catalog_is_known_by_its_name(name: str) -> None:
    """A flag that gates one of these gates dropout."""
    assert detection._MENTIONS_DROPOUT.search(name.rpartition(".")[2])
