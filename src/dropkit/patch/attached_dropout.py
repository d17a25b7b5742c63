"""Dropout that is registered in a module, whose hook calls it on the module's output or input.

No key of a state dict changes, unlike with a wrapper, and the dropout belongs to the model in every other respect.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

# Names under which the dropout is registered. No model has them.
AFTER, BEFORE = "dropout_after", "dropout_before"


def attach(module: nn.Module, side: str, dropout: nn.Module) -> None:
    """Register `dropout` in `module`, and let a hook call it: `side` is "after" or "before"."""
    name = AFTER if side == "after" else BEFORE
    module.add_module(name, dropout.train(module.training))
    if side == "after":
        handle = module.register_forward_hook(drop_output)
    else:
        handle = module.register_forward_pre_hook(drop_input, with_kwargs=True)
    # torch numbers hooks anew in each process. The handle keeps the number in use where the model is unpickled; without
    # it a later hook of that number would replace this one.
    setattr(module, f"{name}_hook", handle)


def drop_output(module: nn.Module, args: Any, output: Any) -> Any:
    """Hook: drop the output of `module`, or the first item of a tuple."""
    dropout: Any = getattr(module, AFTER)
    if isinstance(output, tuple):
        whole = cast("tuple[Any, ...]", output)
        items = (dropout(whole[0]), *whole[1:])
        # Of a named tuple, whose class takes the items one by one, the class is kept.
        return cast("Any", type(whole))(*items) if hasattr(whole, "_fields") else items
    return dropout(output)


def drop_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Hook: drop the first argument of `module`."""
    dropout: Any = getattr(module, BEFORE)
    if args:
        return (dropout(args[0]), *args[1:]), kwargs
    name = next(iter(kwargs))
    return args, {**kwargs, name: dropout(kwargs[name])}
