"""install: run torch's own dropout operators on dropkit's kernels, for a whole process.

The kernels are registered in torch's dispatcher for CPU and CUDA tensors, with and without autograd. They run every
call of `aten::dropout` and its family, from Python and from C++, in eager mode, under torch.func and when a compiler
traces. DTensors get dropkit's too; other subclasses with their own `__torch_dispatch__` get torch's.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.compiler.config
from torch import Tensor

from dropkit.kernels import FLOATS
from dropkit.nn import LAYERS
from dropkit.nn.complex_numbers import are_dropped_as_pairs
from dropkit.nn.dispatch import drop
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, dtensor, slices
from dropkit.patch import native_dropout, recurrent
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

# What compilers trace with in place of ordinary tensors.
_TRACED = frozenset({FakeTensor, FunctionalTensor})

# In the key of torch's caches of compiled code. The 1 is the version of the mask specification.
_TAG = "dropkit-install-1"

# torch's builds for AMD call their devices CUDA as well.
_DEVICES = ("CPU", "CUDA")
_TRANSFORMS = "FuncTorchDynamicLayerFrontMode"
_KEYS = (*_DEVICES, *(f"Autograd{device}" for device in _DEVICES), _TRANSFORMS)

# Destroying the library frees its kernels at once, though another thread may be about to enter one. So the last ones
# are kept alive for longer than any thread waits between finding a kernel and entering it.
_alive: deque[Any] = deque(maxlen=10_000)

_lock = threading.Lock()
_library: torch.library.Library | None = None
# Whether `install` was called after the last `uninstall`, and how many `with installed()` blocks are open.
_installed, _blocks = False, 0


def install() -> None:
    """Run every dropout on CPU and CUDA tensors in this process on dropkit's kernels, until `uninstall`.

    Reaches `torch.nn.Dropout*`, `torch.nn.functional.dropout*`, `torch.dropout` and its family, and the dropout inside
    `nn.TransformerEncoderLayer`, `nn.MultiheadAttention`, `F.scaled_dot_product_attention`, `nn.LSTM`, `nn.GRU` and
    `nn.RNN`. Arguments, errors, `train`/`eval` and seeds keep torch's meaning; the masks for a seed are dropkit's. On a
    GPU fused attention, and recurrent networks by cuDNN, keep their own dropout. Functions that are already compiled
    are compiled again. Installing twice is installing once. Processes that are spawned, not forked, start without it.

    Example:
        >>> dropkit.install()
        >>> model = torch.nn.TransformerEncoderLayer(16, 2, batch_first=True)
        >>> model(torch.randn(1, 4, 16)).shape
        torch.Size([1, 4, 16])
        >>> dropkit.uninstall()
    """
    global _installed
    require(INSTALL)
    with _lock:
        _installed = True
        _update()


def uninstall() -> None:
    """Restore torch's dropout, as soon as no `with installed()` block is open. Does nothing if nothing is installed."""
    global _installed
    with _lock:
        _installed = False
        _update()


@contextmanager
def installed() -> Generator[None]:
    """Install for the length of a `with` block. Blocks may overlap, in one thread or in several.

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
        _update()


def _update() -> None:
    """Register or destroy the kernels, as `_installed` and `_blocks` demand. The caller holds the lock."""
    global _library
    is_wanted = _installed or _blocks > 0
    if is_wanted and _library is None:
        _library = torch.library.Library("aten", "IMPL")
        for layer, name in _operators():
            _take_over(_library, layer, name, inplace=name.endswith("_"))
        _alive.extend(native_dropout.take_over(_library, _DEVICES))
        dtensor.teach(partial(_take_over_for_dtensor, _library))
        recurrent.keep_dropout()
        _forget_compiled()
    elif not is_wanted and _library is not None:
        destroy(_library)
        _library = None
        recurrent.restore()
        _forget_compiled()


def _operators() -> Iterator[tuple[Layer, str]]:
    """Each of torch's operators that a layer replaces: its out-of-place and its in-place form."""
    for layer in LAYERS:
        if layer.counterpart is not None and layer.counterpart.operator is not None:
            yield layer, layer.counterpart.operator
            yield layer, layer.counterpart.operator + "_"


def _take_over(library: torch.library.Library, layer: Layer, name: str, inplace: bool) -> None:
    original = getattr(torch.ops.aten, name).default

    def kernel(input: Tensor, p: float, train: bool) -> Any:
        if train and not inplace and 0.0 < p < 1.0 and autograd.is_plain(input):
            return autograd.drop_plain(input, draw_mask(layer, input, p, None, None))
        if (
            not (0.0 <= p <= 1.0)
            or not _can_drop(layer, input)
            or not _is_reached(input)
            or autograd.is_being_exported()
        ):
            if train and p != 0:
                slices.refuse("in torch's own dropout, which runs here,")
            return run_composite(original, input, p, train)
        return drop(layer, input, p, train, inplace)

    def below_autograd(input: Tensor, p: float, train: bool) -> Any:
        if not torch.is_grad_enabled():
            return kernel(input, p, train)
        with torch.no_grad():
            return kernel(input, p, train)

    for device in _DEVICES:
        library.impl(name, kernel, f"Autograd{device}")
        library.impl(name, below_autograd, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        # torch.func decomposes composite operators before any other kernel sees them.
        library.impl(name, kernel, _TRANSFORMS, allow_override=True)
    for key in _KEYS:
        _alive.append(torch.library.get_kernel(original, key))


def _take_over_for_dtensor(library: torch.library.Library, kind: Any) -> None:
    """Replace what DTensor does with operators that reach it: all in inference mode, and `native_dropout` always."""
    if library is not _library:
        return  # uninstalled before torch loaded DTensor

    def rule(layer: Layer, inplace: bool, *call: Any) -> Tensor:
        input, p, train = call[3]
        return drop(layer, input, p, train, inplace)

    for layer, name in _operators():
        layer_rule = partial(rule, layer, name.endswith("_"))
        torch.library.register_torch_dispatch(f"aten::{name}", kind, layer_rule, lib=library)

    def native_rule(*call: Any) -> tuple[Tensor, Tensor]:
        return native_dropout.drop_dtensor(*call[3])

    torch.library.register_torch_dispatch("aten::native_dropout", kind, native_rule, lib=library)


def _forget_compiled() -> None:
    """Make torch compile anew: compiled code, also that in torch's caches on disk, holds the dropout of its time.

    For operators with Python kernels torch also caches to which kernel a traced call dispatches, and never forgets.
    """
    for _, name in _operators():
        forget_dispatch(getattr(torch.ops.aten, name).default)
    config = torch.compiler.config
    tags = [tag for tag in config.cache_key_tag.split() if tag != _TAG]
    config.cache_key_tag = " ".join([*tags, _TAG] if _library is not None else tags)
    if dynamo_is_loaded():
        torch.compiler.reset()


def _can_drop(layer: Layer, input: Tensor) -> bool:
    return input.dtype in FLOATS or are_dropped_as_pairs(layer, input)


def _is_reached(input: Tensor) -> bool:
    """Whether `input` is on the CPU or a GPU, and DTensor or of a type that leaves operators to the dispatcher."""
    cls: Any = type(input)
    is_plain = cls in _TRACED or not sees_operators(cls) or dtensor.is_dtensor(input)
    return is_plain and (input.is_cpu or input.is_cuda)
