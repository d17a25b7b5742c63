"""Which kernel a device uses, and the warnings and reasons where that is a slow one."""

import ctypes
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.kernel_grid import by_reference

from dropkit import kernels
from dropkit.functional import dropout
from dropkit.kernels import cpu, gpu, reference
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import inverted
from dropkit.ops import inductor

LEVELS = [name for name, runs_here in cpu.levels().items() if runs_here]


def without_extension(monkeypatch):
    """Let the CPU use the reference kernel."""
    monkeypatch.setattr(kernels, "_drop_on_cpu", reference.drop)
    monkeypatch.setattr(kernels, "dropped_on_cpu", kernels.dropped)


def test_the_reference_leaves_gradients_to_its_callers(monkeypatch):
    """The gradient of an in-place call is that of one dropout, though the reference runs torch's operators."""
    without_extension(monkeypatch)
    x = torch.ones(64, requires_grad=True)

    output = dropout(x * 1, 0.5, inplace=True, key=3)
    output.sum().backward()

    assert torch.equal(x.grad, output)


def test_compiled_code_on_disk_runs_without_the_extension(monkeypatch):
    """Code that inductor cached when the extension existed calls the kernel that exists now."""
    without_extension(monkeypatch)
    monkeypatch.setattr(cpu, "_drop", None)
    output = torch.empty(64)

    inductor.drop_v1(torch.ones(64), torch.tensor(3), *inverted(0.5), None, 0, out=output)

    assert torch.equal(output, by_reference(torch.ones(64), Mask(3, inverted(0.5))))


@pytest.mark.extension
def test_running_on_one_thread_warns_once_with_the_reason(monkeypatch):
    """Without torch's thread pool the kernel still runs, with one warning."""
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace())
    spec = importlib.util.spec_from_file_location("dropkit.kernels.alone", cpu.__file__)
    alone = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(alone)
    finally:
        monkeypatch.undo()
        cpu._cpu.use_pool(cpu._torch_parallel_for())
    monkeypatch.setattr(cpu, "single_threaded", alone.single_threaded)
    monkeypatch.setattr(kernels, "_drop_on_cpu", kernels._drop_on_one_thread)
    monkeypatch.setattr(kernels, "dropped_on_cpu", kernels.dropped)

    with pytest.warns(
        kernels.SlowKernelWarning, match=r"runs on one thread: torch 2\..* exports no torch_parallel_for"
    ) as warned:
        first, second = dropout(torch.ones(64), key=7), dropout(torch.ones(64), key=7)

    assert len(warned) == 1
    assert torch.equal(first, second)
    assert alone.detail().endswith(f"one thread, because {alone.single_threaded}")


@pytest.mark.parametrize(("spec", "gil", "reason"), [
    (None, 0, "is missing, since dropkit was installed from a wheel without it"),
    (None, 1, "is not built for free-threaded Python"),
    ("there", 0, "cannot be loaded (wrong ELF class)"),
])  # fmt: skip
def test_a_missing_extension_says_why(spec, gil, reason, monkeypatch):
    """The reasons differ: not built, not available for this Python, or built for another machine."""
    monkeypatch.setattr(cpu, "PathFinder", SimpleNamespace(find_spec=lambda name, path: spec))
    monkeypatch.setattr(cpu, "sysconfig", SimpleNamespace(get_config_var=lambda name: gil))

    assert f"the compiled extension {reason}" in cpu._why_missing(ImportError("wrong ELF class"))


@pytest.mark.parametrize(("module", "detail"), [
    (SimpleNamespace(__version__="3.4.0+rocm"), "Triton 3.4.0+rocm"),
    (None, "Triton, which cannot be imported"),
])  # fmt: skip
def test_triton_is_known_by_its_module(module, detail, monkeypatch):
    """Triton is found by its module: torch's builds for AMD include it under another distribution name."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: fails())
    monkeypatch.setitem(sys.modules, "triton", module)

    assert gpu.detail().startswith(detail)


def fails():
    raise importlib.metadata.PackageNotFoundError("triton")


WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["dropkit.kernels._cpu"] = None
import torch
from dropkit.functional import dropout
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first, second = dropout(torch.ones(8), key=7), dropout(torch.ones(8), key=7)
assert first.tolist() == [2, 2, 0, 0, 0, 2, 0, 2], first
print(*[f"{w.category.__name__}: {w.message}" for w in caught], sep="\\n")
"""


@pytest.mark.slow
def test_falling_back_warns_once_with_the_reason():
    """Without the compiled kernel the reference gives the same masks, with one warning."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "SlowKernelWarning: dropkit runs its slow reference kernel on cpu: the compiled extension"
    )


@pytest.mark.extension
def test_every_device_has_a_kernel():
    """A device uses the first kernel that supports it, and the last kernel supports every device."""
    assert kernels.kernel_for("cpu").name == "cpu"
    assert kernels.kernel_for("meta").name == "meta"
    assert kernels.KERNELS[-1].devices is None
    assert kernels.why_slow("cpu") is None
    assert kernels.why_slow("abacus") == "no kernel was written for this device"


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_the_environment_forces_a_level(name):
    """DROPKIT_CPU_LEVEL chooses the instruction set of a process."""
    code = "from dropkit.kernels import cpu; print(cpu.level())"
    environment = os.environ | {cpu.LEVEL: name}

    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == name


def test_an_unknown_level_is_refused():
    """The error names the variable, the possible values and the given one."""
    with pytest.raises(ValueError, match=rf"DROPKIT_CPU_LEVEL must be one of {', '.join(LEVELS)} .* got 'sse9'"):
        cpu.use_level("sse9")
