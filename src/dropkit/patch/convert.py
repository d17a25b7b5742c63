"""convert: turn the dropout modules of torch, and of other libraries, into dropkit's, in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from dropkit.catalog import DROPOUT_CLASS_NAME
from dropkit.nn.module import DropoutModule
from dropkit.patch import counterparts
from dropkit.patch.changes import Changes, Left, checked_model, described, shown
from dropkit.patch.dropkit_functions import RunsDropkitFunctions
from dropkit.patch.extended_class import ExtendedClass, extended
from dropkit.patch.find_calls import dropout_calls
from dropkit.patch.rate_sites import rates_of_other


@dataclass(frozen=True, slots=True)
class Converted:
    """A module that `convert` changed: its name in the model, its class before, and the module."""

    name: str
    before: type[torch.nn.Module]
    module: torch.nn.Module

    def __str__(self) -> str:
        before = counterparts.full_name(self.before)
        if isinstance(self.module, ExtendedClass):
            return f"{shown(self.name)}: functions that {before} calls -> dropkit.functional"
        return f"{shown(self.name)}: {before} -> dropkit.nn.{described(self.module)}"


def convert(model: torch.nn.Module, *, other_libraries: bool = False, functions: bool = False) -> Changes[Converted]:
    """Turn every `torch.nn` dropout module of `model`, and `model` itself, into the dropkit module of the same name.

    Each module remains the same object, so its hooks, training flag, `p` and `inplace`, and all references to it, are
    kept. What remains of other dropout is listed with the reason, as the attribute `left` of what is returned:
    subclasses of torch's modules, other libraries' modules, the dropout inside `nn.LSTM` and `nn.MultiheadAttention`,
    calls of functions with file and line, and rates that the model may pass to functions.

    Args:
        model: any module; not compiled or scripted.
        other_libraries: turn other libraries' modules into dropkit's, too; their masks then follow from keys, and their
            rates can still be read and set by the old names. They are timm's and transformers' `DropPath` and
            torchvision's `StochasticDepth`; torchvision's `DropBlock2d` and `DropBlock3d` and timm's `DropBlock2d`,
            which then drop the fraction `p` on maps of every size; timm's `PatchDropout`, which then keeps the nearest
            number of tokens, not the next lower one; and fairseq's `FairseqDropout`, which remains of its class.
        functions: let modules whose methods call torch's dropout functions, `F.scaled_dot_product_attention`, or
            recurrent networks run these with dropkit's dropout in training mode: `nn.MultiheadAttention`, `nn.LSTM`,
            `nn.GRU`, `nn.RNN`, transformers' attention, and your own. They get a class derived from their own, under
            its name. Attention that drops then computes its weights; fused kernels have no keys.

    Returns:
        The changed modules, in the order of `model.named_modules()`; a shared module once, by its first name.

    Raises:
        TypeError: `model` is not a module.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.LSTM(4, 4, num_layers=2, dropout=0.3))
        >>> print(dropkit.convert(model))
        0: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.1, inplace=False)
        1: left, the dropout inside LSTM is part of its kernel; functions=True or dropkit.install() reaches it
        >>> print(dropkit.convert(model, functions=True))
        1: functions that torch.nn.LSTM calls -> dropkit.functional
    """
    changes: Changes[Converted] = Changes()
    named = cast("Iterator[tuple[str, torch.nn.Module]]", checked_model(model).named_modules())
    for name, module in named:
        before = type(module)
        new = counterparts.of_torch(module)
        if new is not None:
            module.__class__ = new
        elif other_libraries and counterparts.convert_other(module):
            pass
        elif functions and _calls_functions(module):
            module.__class__ = extended(before, RunsDropkitFunctions, "forward", "forward_by_dropkit")
        else:
            changes.left += _left(name, module, other_libraries)
            continue
        changes.append(Converted(name, before, module))
    return changes


def _calls_functions(module: torch.nn.Module) -> bool:
    """Whether methods of a module call functions that drop, at a rate that is not 0 where that is known."""
    if isinstance(module, (ExtendedClass, DropoutModule)) or "forward" in vars(module):
        return False
    if isinstance(module, torch.nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, torch.nn.MultiheadAttention):
        return module.dropout > 0
    return bool(dropout_calls(type(module)))


def _left(name: str, module: torch.nn.Module, other_libraries: bool) -> list[Left]:
    kind = type(module)
    if isinstance(module, (DropoutModule, ExtendedClass)) or counterparts.full_name(kind).startswith("dropkit."):
        return []
    reach = "functions=True or dropkit.install() reaches it"
    if isinstance(module, torch.nn.RNNBase):
        reason = f"the dropout inside {kind.__name__} is part of its kernel; {reach}"
        return [Left(name, reason)] if _calls_functions(module) else []
    if isinstance(module, torch.nn.MultiheadAttention):
        reason = f"the dropout inside {kind.__name__} is a call of a function; {reach}"
        return [Left(name, reason)] if _calls_functions(module) else []
    if not other_libraries and counterparts.has_counterpart(module):
        return [Left(name, f"{counterparts.full_name(kind)} is another library's; other_libraries=True converts it")]
    if DROPOUT_CLASS_NAME.search(kind.__name__) and next(module.children(), None) is None:
        return [
            Left(name, f"dropkit does not know whether {counterparts.full_name(kind)} does what a layer of its does")
        ]
    calls = dropout_calls(kind)
    if calls:
        return [Left(name, f"it calls {call.function}, {call.place}; {reach}") for call in calls]
    prefix = f"{name}." if name else ""
    return [
        Left(prefix + attribute, "a rate that the model may pass to a function; dropkit.install() reaches torch's")
        for attribute in rates_of_other(module)
        if getattr(module, attribute) > 0
    ]
