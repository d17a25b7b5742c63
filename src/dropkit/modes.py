"""Modes that hold for a `with` block: training flags of single modules, and whether compiled code runs uncompiled."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

_lock = threading.Lock()
# By the id of a model: how many `evaluation_mode` blocks are open for it, and which modules were in training mode.
_open_blocks: dict[int, tuple[int, list[nn.Module]]] = {}
# How many `force_eager` blocks are open in all threads, and what ends torch's stance.
_eager_blocks, _stance = 0, ExitStack()


@contextmanager
def preserve_training_flags(modules: Iterable[nn.Module]) -> Generator[None]:
    """Restore the training flag of each of these modules at the end of a `with` block.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
        >>> with preserve_training_flags(model.modules()):
        ...     _ = model.eval()
        >>> [module.training for module in model.modules()]
        [True, True, False]
    """
    flags = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in flags:
            if module.training is not training:
                module.training = training


@contextmanager
def evaluation_mode(model: nn.Module) -> Generator[None]:
    """Put each module of a model in evaluation mode for the length of a `with` block; threads may overlap.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
        >>> with evaluation_mode(model):
        ...     print([module.training for module in model.modules()])
        [False, False, False]
        >>> [module.training for module in model.modules()]
        [True, True, False]
    """
    with _lock:
        if id(model) not in _open_blocks:
            _open_blocks[id(model)] = 0, [module for module in model.modules() if module.training]
        blocks, trained = _open_blocks[id(model)]
        _open_blocks[id(model)] = blocks + 1, trained
        for module in trained:
            module.training = False
    try:
        yield
    finally:
        with _lock:
            blocks, trained = _open_blocks.pop(id(model))
            if blocks > 1:
                _open_blocks[id(model)] = blocks - 1, trained
            else:
                for module in trained:
                    module.training = True


@contextmanager
def force_eager() -> Generator[None]:
    """Run compiled code uncompiled until the last such block of any thread has ended.

    torch's stance is one for the process: blocks that overlap must not each restore the one that they met. It imports
    the compiler if nothing has yet, which takes seconds.

    Example:
        >>> with force_eager():
        ...     torch.compile(torch.sin)(torch.zeros(1))
        tensor([0.])
    """
    global _eager_blocks
    with _lock:
        if _eager_blocks == 0:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
        _eager_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _eager_blocks -= 1
            if _eager_blocks == 0:
                _stance.close()
