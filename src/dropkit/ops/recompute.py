"""Activation checkpointing in eager mode: a region that is computed again gets the keys that it drew the first time.

For the second run torch restores its default generators, unless it is asked not to, and no generator of the caller's.
So each key is recorded for the regions that it is drawn in. torch has no list of them: they are found on the Python
stack, by the code objects of `torch.utils.checkpoint`, and only if a cheap test says that there may be one.
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
from torch.utils import checkpoint as torch_checkpoint

from dropkit.ops import slices
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


class KeyRecord:
    """The keys that a region drew, in order, and how many of them each later run has used."""

    def __init__(self) -> None:
        self.keys: list[Tensor | int] = []
        self.used: dict[Any, int] = {}

    def take(self, run: Any) -> Tensor | int | None:
        """The next key for this run; None if the first run drew no more."""
        position = self.used.get(run, 0)
        self.used[run] = position + 1
        return _copied(self.keys[position]) if position < len(self.keys) else None


class _Region(NamedTuple):
    """A checkpointed region that is running.

    Attributes:
        owner: torch's object for the region, the same in all runs.
        run: identifies a later run; None for the first.
        is_rng_preserved: whether torch restores its default generators for later runs.
    """

    owner: Any
    run: Any
    is_rng_preserved: bool

    @property
    def record(self) -> KeyRecord:
        try:
            return self.owner._dropkit_keys
        except AttributeError:
            self.owner._dropkit_keys = KeyRecord()
            self._keep_slices()
            return self.owner._dropkit_keys

    def _keep_slices(self) -> None:
        """Run the region again under the parts of its first run: backward may run after their block, or in a thread."""
        if not slices.is_used:
            return
        name = "recompute_fn" if hasattr(self.owner, "recompute_fn") else "run_function"
        setattr(self.owner, name, _under(slices.state.parts, getattr(self.owner, name)))


class _State(threading.local):
    is_drawing = False


_state = _State()


def may_be_checkpointed() -> bool:
    """Whether a checkpointed region may run: there are hooks on saved tensors, or a Function's forward or backward."""
    return saved_tensors_hooks(True) is not None or backward_pass() != -1 or not forward_mode_is_enabled()


def cannot_record_keys() -> bool:
    """Whether a drawn key would be no ordinary tensor, but one of a transform or of a compiler that traces."""
    return functorch_interpreter() is not None or is_traced()


def same_key_when_recomputed(draw: Callable[[], Key], default: bool) -> Key:
    """`draw()`, or in a later run of a checkpointed region the key that its first run drew at this point.

    Args:
        draw: draws a key. Not called if there is a key of the first run and no generator's state has to advance.
        default: whether `draw` uses a default generator of torch.

    Raises:
        RuntimeError: the first run drew no key at this point, and torch does not restore the generator.
    """
    if _state.is_drawing:
        return draw()
    key: Any = None
    is_restored = False
    first_runs: list[KeyRecord] = []
    for region in _regions(sys._getframe(1)):
        if region.run is None:
            first_runs.append(region.record)
            continue
        key = region.record.take(region.run)
        is_restored = default and region.is_rng_preserved
        # A derivative inside a region runs it again before its first run ends, and further than the first run got.
        if key is None and not is_restored and getattr(region.owner, "forward_completed", True):
            raise RuntimeError(
                "a checkpointed region draws a key as it is computed again that it did not draw the first time, from a "
                "generator that torch does not restore; pass key=, or keep preserve_rng_state=True and no generator="
            )
        break
    # If torch has restored the generator, it must advance, since later draws in the region depend on its state.
    drawn = _draw(draw) if key is None or is_restored else key
    key = drawn if key is None else key
    for record in first_runs:
        record.keys.append(_copied(key))
    return key


def keep_slices() -> None:
    """Note the parts that hold now for the regions that run; called before others are stated inside of a region."""
    for region in _regions(sys._getframe(1)):
        _ = region.record


def _under(parts: tuple[slices.Part, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with slices.Holding(parts):
            return function(*args, **kwargs)

    vars(run)["__wrapped__"] = function  # for `inspect.unwrap`
    return run


def _copied(key: Any) -> Any:
    """A copy that nobody else can write to, made without any mode seeing it."""
    if not isinstance(key, Tensor):
        return key
    with torch.inference_mode(False), without_dispatch_modes():
        return key.clone()


def _draw(draw: Callable[[], Key]) -> Key:
    _state.is_drawing = True
    try:
        return draw()
    finally:
        _state.is_drawing = False


def _regions(frame: FrameType | None) -> list[_Region]:
    """The regions that run in this thread, innermost first."""
    regions: list[_Region] = []
    while frame is not None:
        find = _FINDERS.get(id(frame.f_code))
        region = None if find is None else find(frame.f_locals)
        if region is not None:
            regions.append(region)
        frame = frame.f_back
    innermost = _region_of_hooks()
    if innermost is None or any(region.owner is innermost.owner for region in regions):
        return regions
    return [innermost, *regions]


def _region_of_hooks() -> _Region | None:
    """The region that set the hooks on saved tensors; torch.distributed starts one in a module hook, off this stack."""
    hooks = saved_tensors_hooks(True)
    pack = None if hooks is None else inspect.unwrap(hooks[0])
    code = getattr(pack, "__code__", None)
    if code is None or code is not _CODES.get("pack_hook"):
        return None
    return _first_run(_closure_variable(pack, "frame"))


def _first_run(owner: Any) -> _Region:
    return _Region(owner, None, _is_rng_preserved(owner))


def _is_rng_preserved(owner: Any) -> bool:
    # Without the wrapper of `_keep_slices`.
    return _closure_variable(inspect.unwrap(owner.recompute_fn), "preserve_rng_state")


def _checkpoint(local: dict[str, Any]) -> _Region | None:
    """The first run under `checkpoint(use_reentrant=False)`."""
    generator = local.get("gen")
    frame = None if generator is None else generator.gi_frame
    return None if frame is None else _first_run(frame.f_locals["new_frame"])


def _unpack_hook(local: dict[str, Any]) -> _Region | None:
    """A later run under `checkpoint(use_reentrant=False)`: backward asks for a saved tensor."""
    owner = local["frame"]
    return _Region(owner, local["gid"], _is_rng_preserved(owner))


def _forward(local: dict[str, Any]) -> _Region | None:
    """The first run under `checkpoint(use_reentrant=True)`."""
    return _Region(local["ctx"], None, local["preserve_rng_state"])


def _backward(local: dict[str, Any]) -> _Region | None:
    """A later run under `checkpoint(use_reentrant=True)`, until it has recorded `outputs` and starts their backward."""
    if "outputs" in local:
        return None
    return _Region(local["ctx"], backward_pass(), local["ctx"].preserve_rng_state)


def _closure_variable(function: Any, name: str) -> Any:
    """The value of a variable in a function's closure."""
    return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents


def _codes() -> dict[str, CodeType]:
    """The code objects of torch's checkpointing by name, without those that this torch lacks."""
    inner = checkpoint_hook.__init__.__code__.co_consts if checkpoint_hook is not None else ()
    reentrant = torch_checkpoint.CheckpointFunction
    hooks = {code.co_name: code for code in inner if isinstance(code, CodeType)}
    checkpoint = inspect.unwrap(cast("Any", checkpoint_function or torch_checkpoint.checkpoint)).__code__
    return {
        **hooks,
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
