"""The recipe of CONTRIBUTING.md for a new layer, followed twice: the laws hold for a layer that this file makes."""

from dataclasses import replace

import pytest
import torch
from helpers.composed_laws import COMPOSED_LAWS
from helpers.laws import LAWS, applies

from dropkit import random
from dropkit.functional import dropout
from dropkit.kernels.params import inverted
from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dispatch import call
from dropkit.nn.draw_key import draw_key
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.layer import Layer
from dropkit.nn.module import DropoutModule
from dropkit.torch_private import TorchDropout


def drop_column(input, p=0.5, training=True, inplace=False, *, generator=None, key=None):
    """Zero whole columns of each matrix of a batch."""
    return call(COLUMNS, input, p, training, inplace, generator, key)


class DropColumn(DropoutModule, TorchDropout):
    """The module of `drop_column`."""

    _function = staticmethod(drop_column)


COLUMNS = Layer(
    function=drop_column,
    module=DropColumn,
    make_params=inverted,
    mask_shape=lambda shape: (shape[0], 1, shape[2]),
    example_shape=(8, 3, 16),
)


class DropHalves(DynamicRate):
    """Drop the two halves of the features by two keys that are derived from one."""

    def __init__(self, p=0.5):
        super().__init__()
        check_probability(p)
        self.p = p

    def forward(self, input, *, generator=None, key=None):
        key = draw_key(input, self.p, self.training, generator, key)
        keys = (None, None) if key is None else (random.fold_in(key, half) for half in range(2))
        halves = zip(input.chunk(2, -1), keys, strict=True)
        return torch.cat([dropout(x, self.rate, self.training, key=of_half) for x, of_half in halves], -1)

    def extra_repr(self):
        return f"p={self.p}"


def _ones(dtype):
    return (torch.ones(4, 32, dtype=dtype),)


HALVES = ComposedLayer(module=DropHalves, inputs=_ones, dropped=lambda output, module: output == 0)


@pytest.mark.parametrize("law", [law for law in LAWS if applies(law, COLUMNS)], ids=lambda law: law.__name__)
def test_a_layer_is_one_record(law):
    """A layer with a mask shape of its own obeys every law, without another line."""
    law(COLUMNS)


@pytest.mark.parametrize("law", COMPOSED_LAWS, ids=lambda law: law.__name__)
def test_a_composed_layer_is_one_record(law):
    """So does one that is made of calls of other layers."""
    law(HALVES)


class Biased(DropHalves):
    """Drops more than p."""

    def forward(self, input, **source):
        return dropout(super().forward(input, **source), 0.1, self.training and self.p > 0, key=1)


class Forgetful(DropHalves):
    """Ignores the key."""

    def forward(self, input, *, generator=None, key=None):
        return super().forward(input, generator=generator)


class AlwaysOn(DropHalves):
    """Drops in eval mode too."""

    def forward(self, input, **source):
        self.training = True
        return super().forward(input, **source)


@pytest.mark.parametrize(
    ("module", "law"),
    [
        (Biased, "the_realised_rate_is_p"),
        (Forgetful, "equal_keys_give_equal_bits"),
        (AlwaysOn, "eval_and_p_0_drop_nothing"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_laws_find_a_broken_composed_layer(module, law):
    """A layer that breaks the contract fails the law that states it."""
    (broken,) = (function for function in COMPOSED_LAWS if function.__name__ == law)
    with pytest.raises(AssertionError):
        broken(replace(HALVES, module=module))
