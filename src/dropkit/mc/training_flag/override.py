"""Override of training flags for one thread: a module reads `self.training` as true there, and unchanged elsewhere.

The flag itself is not touched. While a thread samples from a module, the module has a class whose `training` is a
property that asks which thread reads it; afterwards it has its own class again.
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

from dropkit.dropout_functions import RECURRENT
from dropkit.mc.training_flag.detection import gates_dropout
from dropkit.mc.training_flag.other_noise import noise_left_off

# Operators in the text of a TorchScript graph that drop, or may drop.
_MAY_DROP = "|".join(sorted([*(function.__name__ for function in RECURRENT), "scaled_dot_product_attention"]))
_DROPS_IN_SCRIPT = re.compile(rf"dropout|bernoulli|aten::({_MAY_DROP})\b")


class Override:
    """A `with` block, in one thread, in which training flags are overridden.

    Attributes:
        modules: the modules whose flags are overridden, by their ids.
        examined: the other modules that ran.
        noise_left_off: notes on random numbers that these draw in training mode alone.
        allowed: the ids of the modules whose flags may be overridden; all if None.
    """

    def __init__(self, allowed: frozenset[int] | None = None) -> None:
        self.allowed = allowed
        self.modules: dict[int, nn.Module] = {}
        self.examined: dict[int, nn.Module] = {}
        self.noise_left_off: dict[str, None] = {}


class _ThreadOverrides(threading.local):
    """The blocks that are open in a thread, innermost last."""

    open: tuple[Override, ...] = ()


_thread = _ThreadOverrides()
_lock = threading.Lock()
# By the id of a module: how many blocks of all threads override its flag, and its own class.
_overridden: dict[int, tuple[int, type[nn.Module]]] = {}


@contextmanager
def override_training_flags(
    previous: Override | None = None, allowed: frozenset[int] | None = None
) -> Generator[Override]:
    """Override the flags of modules that gate dropout by their own `self.training`, in this thread, as they are called.

    Args:
        previous: an earlier block on the same model, whose modules are not examined again.
        allowed: as for `Override`.

    Raises:
        TypeError: a scripted module with dropout is called.
    """
    override = Override(allowed)
    if previous is not None:
        override.examined, override.noise_left_off = previous.examined, previous.noise_left_off
    _thread.open = (*_thread.open, override)
    hook = register_module_forward_pre_hook(_before_forward)
    try:
        yield override
    finally:
        hook.remove()
        _thread.open = tuple(other for other in _thread.open if other is not override)
        for module in override.modules.values():
            _restore_class(module)


def _before_forward(module: nn.Module, args: Any) -> None:
    if not _thread.open:
        return
    override = _thread.open[-1]
    if isinstance(module, torch.jit.ScriptModule):
        _refuse_scripted_dropout(module)
    elif override.allowed is not None and id(module) not in override.allowed:
        return
    elif gates_dropout(_own_class(type(module))):
        if id(module) not in override.modules:
            _override_class(module)
            override.modules[id(module)] = module
    elif id(module) not in override.examined:
        override.examined[id(module)] = module
        override.noise_left_off.update(dict.fromkeys(noise_left_off(module)))


def is_any_overridden() -> bool:
    """Whether the innermost block of this thread overrides the flag of a module."""
    return bool(_thread.open and _thread.open[-1].modules)


def is_override_alone() -> bool:
    """Whether the module that is running is in evaluation mode, and its flag is true only because it is overridden."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module):
            return _own_class(type(first)) is not type(first) and not vars(first)["training"]
        frame = frame.f_back
    return False


@contextmanager
def own_training_flags() -> Generator[None]:
    """Let modules read their own training flags in a `with` block inside the blocks that override them."""
    blocks, _thread.open = _thread.open, ()
    try:
        yield
    finally:
        _thread.open = blocks


def _refuse_scripted_dropout(module: Any) -> None:
    """Raise an error for TorchScript with dropout: a function mode does not see its calls."""
    if _DROPS_IN_SCRIPT.search(str(module.inlined_graph)):
        raise TypeError(
            f"model must not be scripted where it has dropout, got {module.original_name} as TorchScript, of which no "
            "calls can be seen; use the module that was scripted"
        )


def _override_class(module: nn.Module) -> None:
    with _lock:
        count, kind = _overridden.get(id(module), (0, type(module)))
        module.__class__ = _overriding_class(kind)
        _overridden[id(module)] = count + 1, kind


def _restore_class(module: nn.Module) -> None:
    with _lock:
        count, kind = _overridden.pop(id(module))
        if count > 1:
            _overridden[id(module)] = count - 1, kind
        else:
            module.__class__ = kind


class _Unregistered:
    """Keeps the `__init_subclass__` of a module's class from running for its overriding class.

    Without `__slots__`, which would change the memory layout, so that modules could not get the class.
    """

    def __init_subclass__(cls) -> None:
        pass


def _own_class(kind: type[nn.Module]) -> type[nn.Module]:
    return vars(kind).get("_dropkit_own", kind)


@lru_cache(maxsize=4096)
def _overriding_class(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass in which the training flag is true in threads that sample."""

    def read(self: nn.Module) -> bool:
        return bool(_thread.open) or vars(self)["training"]

    def write(self: nn.Module, training: bool) -> None:
        vars(self)["training"] = training

    def reduce(self: Any, protocol: Any) -> Any:
        # Copied and saved modules have their own class.
        _, _, *state = cast("tuple[Any, ...]", super(overriding, self).__reduce_ex__(protocol))
        return object.__new__, (kind,), *state

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    overriding: Any = type(
        kind.__name__,
        (_Unregistered, kind),
        {**names, "training": property(read, write), "__reduce_ex__": reduce, "_dropkit_own": kind},
    )
    return overriding
