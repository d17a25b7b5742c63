"""Every law holds for every listed layer."""

import pkgutil
from importlib import import_module

import pytest
import torch
from helpers.laws import LAWS

from dropkit import catalog, functional, nn
from dropkit.nn import LAYERS

VARIANTS = [variant for layer in LAYERS for variant in layer.variants]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law, layer):
    """Every listed layer obeys every law."""
    law(layer)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.name}, {dict(variant.options)}")
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_with_options(law, variant):
    """So does every listed variant, with its options."""
    law(variant)


MODULES = [
    cls
    for file in pkgutil.iter_modules(nn.__path__)
    for cls in vars(import_module(f"dropkit.nn.{file.name}")).values()
    if isinstance(cls, type) and issubclass(cls, torch.nn.Module) and cls.__module__.endswith(f".{file.name}")
    if hasattr(cls, "function")
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_layer_is_public(module):
    """The module is in dropkit.nn, the function in dropkit.functional, and the linter knows it: see CONTRIBUTING.md."""
    name, function = module.__name__, module.function.__name__

    assert getattr(nn, name, None) is module, f"import {name} in src/dropkit/nn/__init__.py"
    assert getattr(functional, function, None) is module.function, f"import {function} in src/dropkit/functional.py"
    assert f"torch.nn.functional.{function}" in catalog.FUNCTIONALS, f"add {function} in src/dropkit/catalog.py"


def test_every_layer_is_listed():
    """Each module is that of a layer or a fused one."""
    assert {layer.module for layer in LAYERS} | set(nn.FUSED) == set(MODULES)
