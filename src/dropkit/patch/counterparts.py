"""dropkit's counterpart of a dropout module of torch or of another library, and the change of one into the other."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, cast

import torch

from dropkit.nn import LAYERS, DropBlock2d, DropBlock3d, DropPath, PatchDropout
from dropkit.nn.module import DropoutModule
from dropkit.patch.extended_class import ExtendedClass, extended
from dropkit.patch.fairseq_dropout import RunsFairseqDropout

_OF_TORCH = {layer.counterpart.module: layer.module for layer in LAYERS if layer.counterpart}
_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
_PATH_NAME = re.compile(r"(drop_?path|stochastic_?depth)$", re.IGNORECASE)

# Classes of other libraries by their full name, and how dropkit's module is made from one; None for a module with
# options that dropkit's lacks.
_OF_OTHERS: dict[str, Callable[[Any], torch.nn.Module | None]] = {
    "torchvision.ops.stochastic_depth.StochasticDepth": lambda module: DropPath(module.p, mode=module.mode),
    "torchvision.ops.drop_block.DropBlock2d": lambda module: DropBlock2d(module.p, module.block_size, module.inplace),
    "torchvision.ops.drop_block.DropBlock3d": lambda module: DropBlock3d(module.p, module.block_size, module.inplace),
    "timm.layers.drop.DropPath": lambda module: DropPath(module.drop_prob, scale_by_keep=module.scale_by_keep),
    "timm.layers.drop.DropBlock2d": lambda module: _of_timm_drop_block(module),
    "timm.layers.patch_dropout.PatchDropout": lambda module: _of_timm_patch_dropout(module, False),
    "timm.layers.patch_dropout.PatchDropoutWithIndices": lambda module: _of_timm_patch_dropout(module, True),
}
_FAIRSEQ = "fairseq.modules.fairseq_dropout.FairseqDropout"


def full_name(cls: type) -> str:
    """The dotted name of a class; torch's modules have the short one."""
    module = "torch.nn" if cls.__module__.startswith("torch.nn.modules.") else cls.__module__
    return f"{module}.{cls.__qualname__}"


def is_drop_path(module: torch.nn.Module) -> bool:
    """Whether the class of a module is by its name one that drops whole branches."""
    return _PATH_NAME.search(type(module).__name__) is not None


def of_torch(module: torch.nn.Module) -> type[torch.nn.Module] | None:
    """dropkit's class of the same name, if a module is of exactly torch's class."""
    return None if isinstance(module, DropoutModule) else _OF_TORCH.get(type(module))


def of_another_library(module: torch.nn.Module) -> torch.nn.Module | None:
    """A module of dropkit that does what a module of another library does; None if there is none."""
    make = _OF_OTHERS.get(full_name(type(module)))
    if make is not None:
        return make(module)
    if is_drop_path(module) and not isinstance(module, DropoutModule) and _behaves_as_drop_path(module):
        return DropPath(cast("float", module.drop_prob))
    return None


def has_counterpart(module: torch.nn.Module) -> bool:
    """Whether `convert_other` would change a module."""
    return full_name(type(module)) == _FAIRSEQ or of_another_library(module) is not None


def convert_other(module: torch.nn.Module) -> bool:
    """Turn a module of another library into dropkit's; return whether there is one."""
    if full_name(type(module)) == _FAIRSEQ and not isinstance(module, ExtendedClass):
        module.__class__ = extended(type(module), RunsFairseqDropout, "forward", "forward_by_dropkit")
        return True
    example = of_another_library(module)
    if example is not None:
        become(module, example)
    return example is not None


def become(module: torch.nn.Module, example: torch.nn.Module) -> None:
    """Give a module the class and the arguments of another, which has neither parameters nor buffers.

    It remains the same object, with its hooks and training flag.
    """
    vars(module).update({name: value for name, value in vars(example).items() if name not in _OF_EVERY_MODULE})
    new = type(example)
    for name in [name for name in vars(module) if isinstance(getattr(new, name, None), property)]:
        del vars(module)[name]
    module.__class__ = new


def _of_timm_drop_block(module: Any) -> torch.nn.Module | None:
    if module.gamma_scale != 1 or module.with_noise or not getattr(module, "scale_by_keep", True):
        return None
    # Before timm 1.0.23 channels had masks of their own, and samples could share one.
    options = {"per_channel": not getattr(module, "couple_channels", False)}
    options["batchwise"] = getattr(module, "batchwise", False)
    return DropBlock2d(module.drop_prob, module.block_size, module.inplace, **options)


def _of_timm_patch_dropout(module: Any, return_indices: bool) -> torch.nn.Module:
    return PatchDropout(module.prob, module.num_prefix_tokens, module.ordered, return_indices)


def _behaves_as_drop_path(module: torch.nn.Module) -> bool:
    """Whether a module that holds nothing but `drop_prob` zeroes or doubles whole samples at rate 0.5.

    transformers has such a class in each of many models. Decided by what a copy of the module does, not by its source.
    """
    # transformers marks modules by private attributes.
    own = {name for name in vars(module).keys() - _OF_EVERY_MODULE if not name.startswith("_")}
    if own != {"drop_prob"} or vars(module)["drop_prob"] is None or next(module.children(), None) is not None:
        return False
    probe: Any = copy.deepcopy(module)
    probe.drop_prob = 0.5
    input = torch.ones(64, 2, 2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)  # both kinds of samples occur
        try:
            dropped, kept = probe.train()(input), probe.eval()(input)
        except Exception:  # a class that takes other arguments, and raises whatever it likes
            return False
    if not (torch.is_tensor(dropped) and torch.is_tensor(kept) and dropped.shape == input.shape):
        return False
    rows = dropped.flatten(1)
    is_kept = rows[:, 0] == 2
    one_for_each = torch.equal(rows, 2.0 * is_kept[:, None].expand_as(rows))
    return one_for_each and 0 < int(is_kept.sum()) < len(rows) and torch.equal(kept, input)
