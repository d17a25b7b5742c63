"""Training flags: what switches them as users do, what they were found to be, and the paths they lead a model down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from dropkit.auditor.module_tree import Held, drops, rate_of
from dropkit.torch_private import FUSED_ENCODER_LAYER, TorchDispatchMode
from dropkit.trace import Phase, Switch


def tell(module: nn.Module, phase: Phase) -> Any:
    """What `train()` or `eval()` returns.

    Raises:
        TypeError: the module has no two modes.
    """
    try:
        return module.train() if phase is Phase.TRAIN else module.eval()
    except NotImplementedError as error:
        raise TypeError(f"model must take train() and eval(), got {type(module).__name__}: {error}") from error


def switch(model: nn.Module, phase: Phase) -> Iterator[Switch]:
    """Tell the model its mode, as users do, and note what does not keep to torch's contract."""
    for name, module in list(cast("Iterator[tuple[str, nn.Module]]", model.named_modules())):
        own = type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
        answer = tell(module, phase) if own or module is model else module
        if answer is not module:
            fault = f"{phase.value}() returns {type(answer).__name__} and not the module"
            yield Switch(name, type(module).__name__, fault)
    # Last, so that no part has the last word.
    tell(model, phase)


def mixed(model: nn.Module, held: Mapping[int, Held]) -> list[str]:
    """Dropouts in training mode in a model in evaluation mode, as they are now."""
    if model.training:
        return []
    return [one.name for one in held.values() if one.registered and rate_of(one.module) and one.module.training]


def fast_paths(held: Mapping[int, Held], run: Callable[[], Any]) -> list[str]:
    """The encoder layers that skip those of their dropouts that are in training mode: seen by running them."""
    suspects = {
        id(one.module): one.name
        for one in held.values()
        if isinstance(one.module, nn.TransformerEncoderLayer)
        and not one.module.training
        and any(drops(inner) and inner.training for inner in one.module.modules())
    }
    if not suspects:
        return []
    skipping: list[str] = []
    running: list[int] = []

    class Fused(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "overloadpacket", None) is FUSED_ENCODER_LAYER and running:
                skipping.append(suspects[running[-1]])
            return func(*args, **(kwargs or {}))

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) in suspects:
            running.append(id(module))

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in suspects:
            running.pop()

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        with torch.no_grad(), Fused():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(skipping))
