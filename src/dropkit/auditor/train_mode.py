"""Switch a model between training and evaluation mode, and find what its `train` and `eval` do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from dropkit.auditor.module_tree import ModuleEntry, is_dropout, rate_of
from dropkit.torch_private import FUSED_ENCODER_LAYER, TorchDispatchMode
from dropkit.trace import ModeFault, Phase


def set_mode(module: nn.Module, phase: Phase) -> Any:
    """Call `train()` or `eval()` and return the result.

    Raises:
        TypeError: the module does not support one of the modes.
    """
    try:
        return module.train() if phase is Phase.TRAIN else module.eval()
    except NotImplementedError as error:
        raise TypeError(f"model must take train() and eval(), got {type(module).__name__}: {error}") from error


def switch_mode(model: nn.Module, phase: Phase) -> Iterator[ModeFault]:
    """Switch the mode of a model and of submodules with overrides; yield what violates torch's contract."""
    for name, module in list(cast("Iterator[tuple[str, nn.Module]]", model.named_modules())):
        is_overridden = type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
        result = set_mode(module, phase) if is_overridden or module is model else module
        if result is not module:
            fault = f"{phase.value}() returns {type(result).__name__} and not the module"
            yield ModeFault(name, type(module).__name__, fault)
    # The whole model last, so that an override of a submodule cannot win.
    set_mode(model, phase)


def dropouts_in_train_mode(model: nn.Module, entries: Mapping[int, ModuleEntry]) -> list[str]:
    """Return names of dropouts in training mode if the model is in evaluation mode."""
    if model.training:
        return []
    return [
        entry.name
        for entry in entries.values()
        if entry.is_registered and rate_of(entry.module) and entry.module.training
    ]


def layers_on_fast_path(entries: Mapping[int, ModuleEntry], run: Callable[[], Any]) -> list[str]:
    """Run the model and return the encoder layers whose fast path skips dropouts that are in training mode."""
    candidates = {
        id(entry.module): entry.name
        for entry in entries.values()
        if isinstance(entry.module, nn.TransformerEncoderLayer)
        and not entry.module.training
        and any(is_dropout(inner) and inner.training for inner in entry.module.modules())
    }
    if not candidates:
        return []
    on_fast_path: list[str] = []
    running: list[int] = []

    class FastPathMode(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "overloadpacket", None) is FUSED_ENCODER_LAYER and running:
                on_fast_path.append(candidates[running[-1]])
            return func(*args, **(kwargs or {}))

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) in candidates:
            running.append(id(module))

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in candidates:
            running.pop()

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        with torch.no_grad(), FastPathMode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(on_fast_path))
