"""Flags that are up for one thread: a module reads `training` as true here, and as it was everywhere else.

The flag itself is not touched. While anyone samples from a module it has a class of its own, whose `training` asks who
reads it; afterwards it has its class back.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dropkit.mc.training_flag.detection import gates_dropout
from dropkit.mc.training_flag.other_noise import off

# Operators that drop, or may, in the text of a graph.
_DROPS_IN_SCRIPT = re.compile(r"dropout|bernoulli|aten::(lstm|gru|rnn_tanh|rnn_relu|scaled_dot_product_attention)\b")


class Block:
    """A `with` block, in one thread.

    Attributes:
        raised: the modules whose flags are up, by their ids.
        asked: the other modules that ran.
        off: notes on what those draw in training mode alone.
    """

    def __init__(self) -> None:
        self.raised: dict[int, nn.Module] = {}
        self.asked: dict[int, nn.Module] = {}
        self.off: dict[str, None] = {}


class _Here(threading.local):
    # The blocks that are open in this thread, innermost last.
    blocks: list[Block]

    def __init__(self) -> None:
        self.blocks = []


_here = _Here()
_lock = threading.Lock()
# How many blocks have raised a module, by its id; and its own class.
_raised: dict[int, tuple[int, type[nn.Module]]] = {}


@contextmanager
def raised(before: Block | None = None) -> Generator[Block]:
    """For the length of a `with` block, modules that gate dropout by their own flag find it up in this thread.

    Args:
        before: an earlier block on the same model, whose modules are not asked again.
    """
    mine = Block()
    if before is not None:
        mine.asked, mine.off = before.asked, before.off
    _here.blocks.append(mine)
    hook = register_module_forward_pre_hook(_before)
    try:
        yield mine
    finally:
        hook.remove()
        _here.blocks = [block for block in _here.blocks if block is not mine]
        for module in mine.raised.values():
            _lower(module)


def _before(module: nn.Module, args: Any) -> None:
    if not _here.blocks:
        return
    if isinstance(module, torch.jit.ScriptModule):
        _refuse_scripted(module)
    elif gates_dropout(_own(type(module))):
        if id(module) not in _here.blocks[-1].raised:
            _raise(module)
            _here.blocks[-1].raised[id(module)] = module
    elif id(module) not in _here.blocks[-1].asked:
        _here.blocks[-1].asked[id(module)] = module
        _here.blocks[-1].off.update(dict.fromkeys(off(module)))


def any_raised() -> bool:
    """Whether flags of modules are up in the innermost block of this thread."""
    return bool(_here.blocks and _here.blocks[-1].raised)


def only_raised() -> bool:
    """Whether the module whose code is running is in evaluation mode, and its flag up for this thread alone."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module):
            return _own(type(first)) is not type(first) and not vars(first)["training"]
        frame = frame.f_back
    return False


def _refuse_scripted(module: Any) -> None:
    """TorchScript reads flags of its own and shows no calls.

    Raises:
        TypeError: a scripted module drops.
    """
    if _DROPS_IN_SCRIPT.search(str(module.inlined_graph)):
        raise TypeError(
            f"model must not be scripted where it drops, got {module.original_name} as TorchScript, whose calls cannot "
            "be seen; sample from the module that it was made of"
        )


def _raise(module: nn.Module) -> None:
    with _lock:
        count, kind = _raised.get(id(module), (0, type(module)))
        module.__class__ = _seen_training(kind)
        _raised[id(module)] = count + 1, kind


def _lower(module: nn.Module) -> None:
    with _lock:
        count, kind = _raised.pop(id(module))
        if count > 1:
            _raised[id(module)] = count - 1, kind
        else:
            module.__class__ = kind


class _Unregistered:
    """In front of a class: its `__init_subclass__` is not told of what is none of its family.

    Without `__slots__`: the layout is that of a module, which alone can then be given the class.
    """

    def __init_subclass__(cls) -> None:
        pass


def _own(kind: type[nn.Module]) -> type[nn.Module]:
    return vars(kind).get("_dropkit_own", kind)


@lru_cache(maxsize=4096)
def _seen_training(kind: type[nn.Module]) -> type[nn.Module]:
    """A class like this one, of which the flag is up for threads that sample."""

    def read(self: nn.Module) -> bool:
        return bool(_here.blocks) or vars(self)["training"]

    def write(self: nn.Module, training: bool) -> None:
        vars(self)["training"] = training

    def reduce(self: Any, protocol: Any) -> Any:
        # Copies, and what is saved, are of the module's own class.
        _, _, *state = cast("tuple[Any, ...]", super(like, self).__reduce_ex__(protocol))
        return object.__new__, (kind,), *state

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    like: Any = type(
        kind.__name__,
        (_Unregistered, kind),
        {**names, "training": property(read, write), "__reduce_ex__": reduce, "_dropkit_own": kind},
    )
    return like
