"""Looking up a private name of torch: with a substitute, or with an error where the name is missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any, NoReturn

import torch

# The releases of torch that the test suite was run on.
TESTED = "2.10 to 2.14"

DROPOUT = "dropout in eager mode"
OPERATORS = "dropout under torch.compile, torch.export, torch.func and forward-mode differentiation"
VMAP = "dropout under torch.func.vmap"
INDUCTOR = "dropkit's own calls in the code that inductor writes"
CHECKPOINT = "dropout in regions under torch.utils.checkpoint"
EXPORT = "torch.export"
INSTALL = "dropkit.install"
MC = "Monte Carlo dropout"
AUDIT = "dropkit.audit"
AUDIT_AND_MC = f"{AUDIT} and {MC}"
NESTED = "dropout of nested tensors"
DTENSOR = "dropout of DTensors"
FX = "dropkit's modules under torch.fx"


class UnsupportedTorchError(RuntimeError):
    """This release of torch lacks a private name that a feature of dropkit needs."""


class SlowTorchWarning(UserWarning):
    """This release of torch lacks a private name, and dropkit replaces it at a cost."""


@dataclass(frozen=True, slots=True)
class Use:
    """Why dropkit looks a private name of torch up.

    Attributes:
        feature: what needs it.
        is_found: whether this release of torch has it.
        otherwise: what happens without it, a clause; None if the feature raises.
    """

    feature: str
    is_found: bool
    otherwise: str | None


# Every name that was looked up, as `module:attribute`.
NAMES: dict[str, Use] = {}
# Getters of the private attributes that are read of objects.
ATTRIBUTES: dict[str, Callable[[Any], Any]] = {}


def require(feature: str) -> None:
    """Raise before a feature that cannot work on this torch changes anything.

    Raises:
        UnsupportedTorchError: a name is missing that the feature needs.
    """
    for name, use in NAMES.items():
        if feature in use.feature and not use.is_found and use.otherwise is None:
            raise UnsupportedTorchError(_refusal(name, feature))


def missing() -> list[str]:
    """A sentence for each name that this torch lacks, with the consequence."""
    return [
        f"torch {torch.__version__} has no {_plain(name)}: {use.otherwise or f'{use.feature} is refused'}."
        for name, use in NAMES.items()
        if not use.is_found
    ]


def find(name: str, feature: str, substitute: Any = None, otherwise: str | None = None, costs: bool = True) -> Any:
    """The object of this name in torch.

    Args:
        name: `module:attribute`.
        feature: what needs it.
        substitute: returned if torch lacks the name and `otherwise` is given.
        otherwise: the consequence, a clause; if None, any use of the result raises.
        costs: whether the consequence is worth a warning.
    """
    try:
        value = resolve_name(name)
    except (ImportError, AttributeError):
        NAMES[name] = Use(feature, False, otherwise)
    else:
        NAMES[name] = Use(feature, True, otherwise)
        return value
    if otherwise is None:
        return _Missing(name, feature)
    if costs:
        _warn(f"torch {torch.__version__} has no {_plain(name)}: {otherwise} ({TESTED} were tested)")
    return substitute


def find_base(name: str, feature: str) -> Any:
    """As `find`, for a class that dropkit derives from."""
    value = find(name, feature)
    if not isinstance(value, _Missing):
        return value
    return type(name.rpartition(".")[2], (), {"__init__": value.__call__, "apply": value.__call__})


def attribute(name: str, feature: str) -> Callable[[Any], Any]:
    """A getter of an attribute that objects of torch have and their classes do not."""

    def get(owner: Any) -> Any:
        try:
            return getattr(owner, name)
        except AttributeError:
            raise UnsupportedTorchError(_refusal(f"{type(owner).__name__}:{name}", feature)) from None

    ATTRIBUTES[name] = get
    return get


class _Missing:
    """Stands for a name that this torch lacks: any use of it raises."""

    def __init__(self, name: str, feature: str) -> None:
        vars(self)["refusal"] = _refusal(name, feature)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedTorchError(vars(self)["refusal"])

    def __getattr__(self, name: str) -> NoReturn:
        raise UnsupportedTorchError(vars(self)["refusal"])


def _plain(name: str) -> str:
    return name.replace(":", ".")


def _refusal(name: str, feature: str) -> str:
    return f"{feature} must have a torch with {_plain(name)} ({TESTED} were tested), got torch {torch.__version__}"


@cache
def _warn(text: str) -> None:
    warnings.warn(text, SlowTorchWarning, stacklevel=4)
