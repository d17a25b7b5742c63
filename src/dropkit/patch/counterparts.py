"""dropkit's counterpart of a dropout module of torch or of another library, and the change of one into the other."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, cast

import torch

from dropkit.nn import LAYERS, DropPath
from dropkit.nn.module import DropoutModule

_OF_TORCH = {layer.counterpart.module: layer.module for layer in LAYERS if layer.counterpart}
_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
_PATH_NAME = re.compile(r"(drop_?path|stochastic_?depth)$", re.IGNORECASE)

# Classes of other libraries by their full name, and how dropkit's module is made from one.
_OF_OTHERS: dict[str, Callable[[Any], torch.nn.Module]] = {
    "torchvision.ops.stochastic_depth.StochasticDepth": lambda module: DropPath(module.p, mode=module.mode),
    "timm.layers.drop.DropPath": lambda module: DropPath(module.drop_prob, scale_by_keep=module.scale_by_keep),
}


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


def become(module: torch.nn.Module, example: torch.nn.Module) -> None:
    """Give a module the class and the arguments of another, which has neither parameters nor buffers.

    It remains the same object, with its hooks and training flag.
    """
    vars(module).update({name: value for name, value in vars(example).items() if name not in _OF_EVERY_MODULE})
    new = type(example)
    for name in [name for name in vars(module) if isinstance(getattr(new, name, None), property)]:
        del vars(module)[name]
    module.__class__ = new


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
