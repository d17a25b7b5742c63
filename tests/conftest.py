"""Fixtures and collection hooks for all tests.

torch is imported only where a test needs it: the linter's tests run where torch is not installed.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import pytest

# Triton reads this when it is imported: without a GPU its kernels are interpreted. Device files say if there is one
# (CUDA, ROCm, WSL), since torch.cuda, which could tell too, would be imported for the tests of the linter as well.
if not [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("kfd"), *Path("/dev").glob("dxg")]:
    os.environ.setdefault("TRITON_INTERPRET", "1")

KERNELS = Path(__file__).parents[1] / "src" / "dropkit" / "kernels"


def pytest_configure(config: pytest.Config) -> None:
    """Allow the warning about the slow reference kernel where the compiled extension was not built."""
    if PathFinder.find_spec("dropkit.kernels._cpu", [str(KERNELS)]) is None:
        config.addinivalue_line("filterwarnings", "ignore:dropkit runs its slow reference kernel on cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `extension` where the extension is missing, and say why it is."""
    marked = [item for item in items if item.get_closest_marker("extension")]
    if marked:
        from dropkit.kernels import cpu

        if cpu.missing is not None:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=cpu.missing))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with a `layer` argument for every layer, one with `shared_layer` for those that torch has too.

    A test that is marked `keeps_or_drops` has no layers that use random numbers instead.
    """
    if {"layer", "shared_layer"} & set(metafunc.fixturenames):
        from dropkit.kernels.params import NoiseParams
        from dropkit.nn import LAYERS

        shared = tuple(layer for layer in LAYERS if layer.counterpart is not None)
        is_marked = metafunc.definition.get_closest_marker("keeps_or_drops") is not None
        every = tuple(layer for layer in LAYERS if not (is_marked and isinstance(layer.params(0.5), NoiseParams)))
        for argument, layers in (("layer", every), ("shared_layer", shared)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, layers, ids=lambda layer: layer.name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch's generator, if anything has imported torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def groups():
    """For each number of ranks a group of processes, which run checks together: `helpers.processes.Ranks`."""
    from helpers.processes import Ranks

    groups = {size: Ranks(size) for size in (2, 3, 4)}
    yield groups
    for group in groups.values():
        group.stop()


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, also beside a build of torch without CUDA."""
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is missing")
    from helpers.torchvision_import import import_torchvision

    return import_torchvision()
