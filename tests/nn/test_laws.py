"""Every law holds for every listed layer."""

import pytest
from helpers.laws import LAWS

from dropkit import functional, nn
from dropkit.nn import LAYERS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law, layer):
    """A layer is listed only if it obeys."""
    law(layer)


def test_every_layer_is_public():
    """What is listed can be had from dropkit.nn and dropkit.functional, under its own name."""
    modules = {layer.module for layer in LAYERS} | set(nn.FUSED)
    assert modules == {getattr(nn, name) for name in nn.__all__ if name not in ("LAYERS", "FUSED")}
    functions = {layer.function for layer in LAYERS} | {kind.function for kind in nn.FUSED}
    assert functions == {getattr(functional, name) for name in functional.__all__}
