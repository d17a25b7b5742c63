"""What every test may use."""

import pytest
import torch

from dropkit.nn import LAYERS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `layer` argument is a law: it runs for every listed layer."""
    if "layer" in metafunc.fixturenames:
        metafunc.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
