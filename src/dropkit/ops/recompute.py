"""Activation checkpointing in eager mode: a region that is computed again gets the keys that it drew the first time.

For the second run torch restores its default generators, unless it is told not to, and never one of the caller's own.
So each key is noted with the regions that it is drawn in. torch has no list of these: they are found on the Python
stack, by the code of `torch.utils.checkpoint`, and only where a sign of them is there.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.utils import checkpoint as torchs

from dropkit.torch_private import (
    backward_pass,
    checkpoint_function,
    checkpoint_hook,
    forward_mode_is_enabled,
    functorch_interpreter,
    is_traced,
    saved_tensors_hooks,
    without_dispatch_modes,
)

Key = TypeVar("Key", bound="Tensor | int")


class Notes:
    """The keys that a region drew, in order, and how many of them each later run has had."""

    def __init__(self) -> None:
        self.keys: list[Tensor | int] = []
        self.taken: dict[Any, int] = {}

    def take(self, run: Any) -> Tensor | int | None:
        """The next key for this run; None if the first one drew no more."""
        place = self.taken.get(run, 0)
        self.taken[run] = place + 1
        return _copied(self.keys[place]) if place < len(self.keys) else None


class _Region(NamedTuple):
    """A checkpointed region that is running.

    Attributes:
        owner: torch's record of it, the same object in all runs.
        run: which of its later runs this is; None if it is the first one.
        preserved: whether torch restores its default generators for the later ones.
    """

    owner: Any
    run: Any
    preserved: bool

    @property
    def notes(self) -> Notes:
        try:
            return self.owner._dropkit_notes
        except AttributeError:
            self.owner._dropkit_notes = Notes()
            return self.owner._dropkit_notes


class _Drawing(threading.local):
    now = False


_drawing = _Drawing()


def possible() -> bool:
    """Whether this may be a checkpointed region: hooks on saved tensors, a Function's forward or a backward pass."""
    return saved_tensors_hooks(True) is not None or backward_pass() != -1 or not forward_mode_is_enabled()


def watched() -> bool:
    """Whether a draw would give no tensor that could be kept: a transform's, or one of a compiler that looks on."""
    return functorch_interpreter() is not None or is_traced()


def keyed(draw: Callable[[], Key], default: bool) -> Key:
    """`draw()`, or where a checkpointed region runs again the key that it drew in this place the first time.

    Args:
        draw: draws a key. Not called where the first key serves and no generator's state has to move on.
        default: whether it draws from a default generator of torch.

    Raises:
        RuntimeError: the region did not draw a key in this place, and torch does not restore the generator.
    """
    if _drawing.now:
        return draw()
    key: Any = None
    restored = False
    first: list[Notes] = []
    for region in _regions(sys._getframe(1)):
        if region.run is None:
            first.append(region.notes)
            continue
        key = region.notes.take(region.run)
        restored = default and region.preserved
        # A derivative inside of a region runs it again before it has ended, and further than is of use.
        if key is None and not restored and getattr(region.owner, "forward_completed", True):
            raise RuntimeError(
                "a checkpointed region draws a key as it is computed again that it did not draw the first time, from a "
                "generator that torch does not restore; pass key=, or keep preserve_rng_state=True and no generator="
            )
        break
    # Where torch has restored the state, what is drawn after this depends on it.
    drawn = _draw(draw) if key is None or restored else key
    key = drawn if key is None else key
    for notes in first:
        notes.keys.append(_copied(key))
    return key


def _copied(key: Any) -> Any:
    """Nobody's to write, and nothing that a mode would see."""
    if not isinstance(key, Tensor):
        return key
    with torch.inference_mode(False), without_dispatch_modes():
        return key.clone()


def _draw(draw: Callable[[], Key]) -> Key:
    _drawing.now = True
    try:
        return draw()
    finally:
        _drawing.now = False


def _regions(frame: FrameType | None) -> list[_Region]:
    """Those that run in this thread, the innermost first."""
    regions: list[_Region] = []
    while frame is not None:
        find = _FINDERS.get(id(frame.f_code))
        region = None if find is None else find(frame.f_locals)
        if region is not None:
            regions.append(region)
        frame = frame.f_back
    hooked = _hooked()
    if hooked is None or any(region.owner is hooked.owner for region in regions):
        return regions
    return [hooked, *regions]


def _hooked() -> _Region | None:
    """The region whose hooks are set. torch.distributed begins one in a hook of a module, and not on this stack."""
    hooks = saved_tensors_hooks(True)
    pack = None if hooks is None else inspect.unwrap(hooks[0])
    code = getattr(pack, "__code__", None)
    return _first(_cell(pack, "frame")) if code is not None and code is _CODES.get("pack_hook") else None


def _first(owner: Any) -> _Region:
    return _Region(owner, None, _cell(owner.recompute_fn, "preserve_rng_state"))


def _checkpoint(names: dict[str, Any]) -> _Region | None:
    """`checkpoint(use_reentrant=False)` runs the region."""
    generator = names.get("gen")
    frame = None if generator is None else generator.gi_frame
    return None if frame is None else _first(frame.f_locals["new_frame"])


def _unpack_hook(names: dict[str, Any]) -> _Region | None:
    """Its saved tensors are asked for."""
    owner = names["frame"]
    return _Region(owner, names["gid"], _cell(owner.recompute_fn, "preserve_rng_state"))


def _forward(names: dict[str, Any]) -> _Region | None:
    """`checkpoint(use_reentrant=True)` runs the region."""
    return _Region(names["ctx"], None, names["preserve_rng_state"])


def _backward(names: dict[str, Any]) -> _Region | None:
    """Its backward pass: first the region again, then what that has recorded."""
    if "outputs" in names:
        return None
    return _Region(names["ctx"], backward_pass(), names["ctx"].preserve_rng_state)


def _cell(function: Any, name: str) -> Any:
    """A variable that a function closes over."""
    return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents


def _codes() -> dict[str, CodeType]:
    """By name; what this torch does not have is missing."""
    inner = checkpoint_hook.__init__.__code__.co_consts if checkpoint_hook is not None else ()
    reentrant = torchs.CheckpointFunction
    found = {code.co_name: code for code in inner if isinstance(code, CodeType)}
    checkpoint = inspect.unwrap(cast("Any", checkpoint_function or torchs.checkpoint)).__code__
    return {
        **found,
        "checkpoint": checkpoint,
        "forward": reentrant.forward.__code__,
        "backward": reentrant.backward.__code__,
    }


_CODES = _codes()
_FINDERS = {
    id(_CODES[name]): find
    for name, find in (
        ("checkpoint", _checkpoint), ("unpack_hook", _unpack_hook), ("forward", _forward), ("backward", _backward)
    )
    if name in _CODES
}  # fmt: skip
