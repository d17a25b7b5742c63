"""Loading kernels while a graph is captured, with a stand-in for CUDA's driver."""

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from dropkit.kernels import gpu
from dropkit.kernels.gpu import capture, launch


@pytest.fixture
def mode(monkeypatch):
    """A function that returns the mode of this thread, which captures; 0 is the strictest."""
    current = ctypes.c_int(0)

    def exchange(pointer):
        given = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int)).contents
        given.value, current.value = current.value, given.value

    monkeypatch.setattr(capture, "_exchange", lambda: exchange)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    return lambda: current.value


def test_the_stream_of_the_device_is_asked(monkeypatch):
    """Whether a tensor's device is captured depends on the current stream of that device."""
    current = [1]
    captured = {0: True, 1: False}

    class Entered:
        def __init__(self, device):
            self.index = device.index

        def __enter__(self):
            current.append(self.index)

        def __exit__(self, *_):
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", Entered)
    monkeypatch.setattr(capture, "current_gpu", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captured[current[-1]])

    assert [capture.is_captured(torch.device("cuda", index)) for index in (0, 1)] == [True, False]
    assert current == [1]


def test_loading_relaxes_a_capture(mode):
    """In the block the thread may load kernels; afterwards its mode is what it was, also after an error."""
    with capture.loading():
        assert mode() == capture.RELAXED
    assert mode() == 0
    with pytest.raises(ZeroDivisionError), capture.loading():
        raise ZeroDivisionError

    assert mode() == 0


@pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing))
def test_launches_may_load(mode, monkeypatch):
    """Kernels are launched in such a block, on the device that is current and on another one."""
    current = [0]
    monkeypatch.setattr(launch, "current_gpu", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext(current.append(index)))
    seen = []
    kernel = {(3,): lambda tensor: seen.append((current[-1], mode()))}
    for index in (0, 1):
        launch.Launcher(kernel)(3, (SimpleNamespace(get_device=lambda at=index: at),), launch.Constants())

    assert seen == [(0, capture.RELAXED), (1, capture.RELAXED)]
    assert mode() == 0


def test_nothing_happens_without_a_capture(mode, monkeypatch):
    """Outside of a capture the mode stays."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    with capture.loading():
        assert mode() == 0
