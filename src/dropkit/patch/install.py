"""install: torch's own dropout operators run on dropkit's kernels, for a whole process.

The kernels are registered at torch's dispatcher for CPU and CUDA tensors, with and without autograd, so whatever calls
`aten::dropout` and its family, from Python or from C++, arrives here: in eager mode, under torch.func, and where a
compiler traces. Subclasses that take operators apart themselves get torch's own kernel.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.compiler.config
from torch import Tensor

from dropkit.kernels import FLOATS
from dropkit.nn import LAYERS
from dropkit.nn.layer import Layer
from dropkit.ops import autograd
from dropkit.patch import native, recurrent
from dropkit.torch_private import (
    INSTALL,
    FakeTensor,
    FunctionalTensor,
    destroy,
    dynamo_is_loaded,
    forget_dispatch,
    require,
    run_composite,
    sees_operators,
)

# What compilers put in the place of ordinary tensors.
_TRACED = frozenset({FakeTensor, FunctionalTensor})

# In the key of torch's caches of compiled code. The 1 is the version of the mask specification.
_TAG = "dropkit-install-1"

# torch's builds for AMD call their devices CUDA as well.
_DEVICES = ("CPU", "CUDA")
_TRANSFORMS = "FuncTorchDynamicLayerFrontMode"
_KEYS = (*_DEVICES, *(f"Autograd{device}" for device in _DEVICES), _TRANSFORMS)

# Taking a kernel back frees it at once, though another thread may have been on its way into it. So the last ones are
# held for longer than any thread waits between finding a kernel and entering it.
_alive: deque[Any] = deque(maxlen=10_000)

_lock = threading.Lock()
_library: torch.library.Library | None = None
# Who wants it: `install` until `uninstall`, and so many `with installed()` blocks.
_asked, _blocks = False, 0


def install() -> None:
    """Run every dropout on CPU and CUDA tensors in this process on dropkit's kernels, until `uninstall`.

    Reaches `torch.nn.Dropout*`, `torch.nn.functional.dropout*`, `torch.dropout` and its family, and the dropout inside
    `nn.TransformerEncoderLayer`, `nn.MultiheadAttention`, `F.scaled_dot_product_attention`, `nn.LSTM`, `nn.GRU` and
    `nn.RNN`. Arguments, errors, `train`/`eval` and seeds mean what they mean in torch; the masks for a seed are
    dropkit's. On a GPU fused attention, and recurrent networks by cuDNN, keep their own dropout. Compiled functions are
    reached too: those that are compiled already are compiled again. Installing twice is installing once. Processes that
    are spawned, not forked, begin without it.

    Example:
        >>> dropkit.install()
        >>> model = torch.nn.TransformerEncoderLayer(16, 2, batch_first=True)
        >>> model(torch.randn(1, 4, 16)).shape
        torch.Size([1, 4, 16])
        >>> dropkit.uninstall()
    """
    global _asked
    require(INSTALL)
    with _lock:
        _asked = True
        _follow()


def uninstall() -> None:
    """Give torch its dropout back, once no `with installed()` block is left; where nothing is installed do nothing."""
    global _asked
    with _lock:
        _asked = False
        _follow()


@contextmanager
def installed() -> Generator[None]:
    """`install` for the length of a `with` block. Blocks may overlap, in one thread or in several.

    Example:
        >>> with dropkit.installed():
        ...     y = torch.nn.functional.dropout(torch.ones(4))
    """
    require(INSTALL)
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(blocks: int) -> None:
    global _blocks
    with _lock:
        _blocks += blocks
        _follow()


def _follow() -> None:
    """Bring the dispatcher to what is wanted. The caller holds the lock."""
    global _library
    wanted = _asked or _blocks > 0
    if wanted and _library is None:
        _library = torch.library.Library("aten", "IMPL")
        for layer in LAYERS:
            if layer.aten is not None:
                _take_over(_library, layer, layer.aten, inplace=False)
                _take_over(_library, layer, layer.aten + "_", inplace=True)
        _alive.extend(native.take_over(_library, _DEVICES))
        recurrent.mend()
        _forget_compiled()
    elif not wanted and _library is not None:
        destroy(_library)
        _library = None
        recurrent.restore()
        _forget_compiled()


def _take_over(library: torch.library.Library, layer: Layer, name: str, inplace: bool) -> None:
    original = getattr(torch.ops.aten, name).default

    def kernel(input: Tensor, p: float, train: bool) -> Any:
        if not (0.0 <= p <= 1.0) or input.dtype not in FLOATS or not _is_reached(input) or autograd.exporting():
            return run_composite(original, input, p, train)
        return layer.drop(input, p, train, inplace)

    def below_autograd(input: Tensor, p: float, train: bool) -> Any:
        with torch.no_grad():
            return kernel(input, p, train)

    for device in _DEVICES:
        library.impl(name, kernel, f"Autograd{device}")
        library.impl(name, below_autograd, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        # torch.func takes composite operators apart before any other kernel sees them.
        library.impl(name, kernel, _TRANSFORMS, allow_override=True)
    for key in _KEYS:
        _alive.append(torch.library.get_kernel(original, key))


def _forget_compiled() -> None:
    """What was compiled holds the dropout of its time: let it be compiled anew, and find no such code on disk.

    Nor may the way to a kernel be remembered that tracing found then: torch forgets it for Python kernels alone.
    """
    for layer in LAYERS:
        if layer.aten is not None:
            for name in (layer.aten, layer.aten + "_"):
                forget_dispatch(getattr(torch.ops.aten, name).default)
    config = torch.compiler.config
    tags = [tag for tag in config.cache_key_tag.split() if tag != _TAG]
    config.cache_key_tag = " ".join([*tags, _TAG] if _library is not None else tags)
    if dynamo_is_loaded():
        torch.compiler.reset()


def _is_reached(input: Tensor) -> bool:
    """Whether `input` is on a device of ours, and of no subclass that takes operators apart and knows torch's alone."""
    kind: Any = type(input)
    plain = kind in _TRACED or not sees_operators(kind)
    return plain and (input.is_cpu or input.is_cuda)
