"""Every law holds for every listed layer."""

import pkgutil
from importlib import import_module

import pytest
import torch
from helpers.composed_laws import COMPOSED_LAWS
from helpers.laws import LAWS, applies

from dropkit import catalog, functional, nn
from dropkit.nn import COMPOSED, LAYERS

EACH = [record for layer in LAYERS for record in (layer, *layer.variants)]
PAIRS = [
    pytest.param(law, layer, id=f"{layer.name}, {dict(layer.options)}-{law.__name__}")
    for law in LAWS
    for layer in EACH
    if applies(law, layer)
]


@pytest.mark.parametrize(("law", "record"), PAIRS)
def test_law(law, record):
    """Every listed layer, and every variant of one with its options, obeys every law of layers of its kind."""
    law(record)


EACH_COMPOSED = [record for layer in COMPOSED for record in (layer, *layer.variants)]


@pytest.mark.parametrize("composed", EACH_COMPOSED, ids=lambda layer: f"{layer.name}, {dict(layer.arguments)}")
@pytest.mark.parametrize("law", COMPOSED_LAWS, ids=lambda law: law.__name__)
def test_law_of_composed_layers(law, composed):
    """Every listed composed layer, and every variant of one, obeys the laws of those."""
    law(composed)


MODULES = [
    cls
    for file in pkgutil.iter_modules(nn.__path__)
    for cls in vars(import_module(f"dropkit.nn.{file.name}")).values()
    if isinstance(cls, type) and issubclass(cls, torch.nn.Module) and cls.__module__.endswith(f".{file.name}")
    if getattr(cls, "_function", None) is not None
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_layer_is_public(module):
    """The module is in dropkit.nn, the function in dropkit.functional, and the linter knows it: see CONTRIBUTING.md."""
    name, function = module.__name__, module._function.__name__

    assert getattr(nn, name, None) is module, f"import {name} in src/dropkit/nn/__init__.py"
    assert getattr(functional, function, None) is module._function, f"import {function} in src/dropkit/functional.py"
    if module is not nn.GaussianNoise:  # which is no dropout
        assert f"torch.nn.functional.{function}" in catalog.FUNCTIONALS, f"add {function} in src/dropkit/catalog.py"


def test_every_layer_is_listed():
    """Each module with a function is that of a layer, of a composed one or a fused one."""
    composed = {layer.module for layer in COMPOSED if layer.function is not None}
    assert {layer.module for layer in LAYERS} | composed | set(nn.FUSED) == set(MODULES)
