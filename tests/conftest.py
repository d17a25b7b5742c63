"""What every test may use."""

import os
import warnings

import pytest
import torch

from dropkit.kernels import cpu
from dropkit.nn import LAYERS

# Before anything imports Triton: without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Without the compiled extension the reference serves, which says so once: here that is no error."""
    if cpu.missing is not None:
        config.addinivalue_line("filterwarnings", "ignore:dropkit runs its slow reference kernel on cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the extension are skipped where it is missing, by name and with the reason."""
    for item in items:
        if cpu.missing is not None and item.get_closest_marker("extension"):
            item.add_marker(pytest.mark.skip(reason=cpu.missing))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `layer` argument is a law: it runs for every listed layer."""
    if "layer" in metafunc.fixturenames:
        metafunc.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


_missing: list[torch.library.Library] = []


@pytest.fixture(scope="session")
def torchvision():
    """torchvision beside a torch without CUDA: its own operators are then missing, and so is its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:
            _missing.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                _missing[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import torchvision
    return torchvision
