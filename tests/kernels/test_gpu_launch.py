"""Launches of Triton's kernels, without a GPU: the same as by Triton's own call, and without it."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dropkit.kernels import gpu
from dropkit.kernels.gpu import keys, launch

pytestmark = pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing))


@pytest.fixture(scope="module")
def launched():
    """Facts about random calls, in a process where Triton does not interpret."""
    script = Path(__file__).parents[1] / "helpers" / "launched_on_gpus.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_launches_are_those_of_triton(launched):
    """A call launches the kernel that Triton would, with its arguments: whatever ran before, on either maker's GPUs.

    With a C compiler, CUDA's driver gets the same bytes from Triton's own launcher.
    """
    assert launched["compiled"] > 100
    assert launched["different"] == []


def test_a_kernel_is_looked_up_by_triton_once(launched):
    """A second call of a kind goes to the compiled kernel; on a Triton that is not known, every call to Triton."""
    assert launched["by Triton the second time"] == 0
    assert launched["by Triton where it is unknown"] == 2


def test_profilers_see_every_launch(launched):
    """The hooks on launches are called, before and after."""
    assert launched["hooks called"] == 2


def test_an_unknown_triton_is_named(monkeypatch):
    """What makes launches slow, and what makes keys take launches, is said."""
    monkeypatch.setattr(launch, "KNOWN", ((2, 0), (3, 3)))
    monkeypatch.setattr(gpu, "KNOWN", launch.KNOWN)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(keys, "_agree", {0: False})

    assert "launches take longer than with Triton 2.0 to 3.3, which dropkit knows" in gpu.detail()
    assert "keys are drawn on the device" in gpu.detail()


class Kernel:
    """A `triton.jit` function for one tensor, which notes where it was compiled."""

    params = ()

    def __init__(self):
        self.compiled, self.launched = [], []

    def __getitem__(self, grid):
        def call(tensor, key, **constants):
            self.compiled.append(tensor.get_device())
            device = tensor.get_device()
            return SimpleNamespace(function=device, packed_metadata=(), run=lambda *a: self.launched.append(a[4]))

        return call


def test_each_device_has_a_kernel_of_its_own(monkeypatch):
    """Tensors of another device launch there, by what was compiled for it, and the current device stays."""
    current = [0]

    @contextmanager
    def entered(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(launch, "current_gpu", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(launch, "_is_watched", lambda: False)
    monkeypatch.setattr(launch, "_current_stream", lambda: lambda device: current[-1])
    kernel, constants = Kernel(), launch.Constants()
    launcher = launch.Launcher(kernel)
    launcher._can_keep, launcher._inspected = True, [0, 1]

    for device in (0, 1, 1, 0):
        tensor = SimpleNamespace(get_device=lambda at=device: at, data_ptr=lambda: 16, dtype=torch.float32)
        launcher(1, (tensor, 5), constants)

    assert kernel.compiled == [0, 1]
    assert kernel.launched == [1, 0]
    assert current == [0]
