"""Choose which dropout is active, by the names of modules, and at which rate."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from dropkit.arguments import check


@dataclass(slots=True, eq=False)
class Chosen:
    """What was chosen for the models that a thread runs.

    Attributes:
        p: the rate of every dropout; None for their own.
        modules: the ids of the modules whose dropout is active; None for all.
        depth: in how many of the chosen modules the thread is.
        has_other_rates: whether the model made masks itself, at a rate that is not known.
    """

    p: float | None = None
    modules: frozenset[int] | None = None
    depth: int = 0
    has_other_rates: bool = False

    @property
    def is_active(self) -> bool:
        """Whether dropout is active in the module that is running."""
        return self.modules is None or self.depth > 0

    def rate(self, own: float, attention: bool = False) -> float | None:
        """The rate of a dropout, given its own; None if it is not active."""
        if not self.is_active:
            return None
        # Attention has no flag: a rate of 0 may mean evaluation mode.
        p = own if self.p is None or (attention and not own) else self.p
        return p or None

    def notes(self) -> list[str]:
        """Notes for the user."""
        if self.p is None or not self.has_other_rates:
            return []
        return ["p does not change the rate of masks that the model makes itself"]


class _ThreadChoice(threading.local):
    """The choice that is in force in a thread."""

    chosen: Chosen

    def __init__(self) -> None:
        self.chosen = Chosen()


_thread = _ThreadChoice()


def chosen() -> Chosen:
    """Return the choice that is in force in this thread."""
    return _thread.chosen


@contextmanager
def chosen_dropout(model: nn.Module, p: float | None, sites: str | Sequence[str] | None) -> Generator[Chosen]:
    """Choose rate and modules for a `with` block, in this thread.

    Raises:
        ValueError: no module has one of the names.
    """
    before = _thread.chosen
    modules = None if sites is None else _named(model, [sites] if isinstance(sites, str) else sites)
    inside = None if modules is None else frozenset(id(part) for module in modules for part in module.modules())
    _thread.chosen = Chosen(p, inside)
    with ExitStack() as stack:
        for module in modules or ():
            stack.enter_context(module.register_forward_pre_hook(_enter, prepend=True))
            stack.enter_context(module.register_forward_hook(_leave, always_call=True))
        try:
            yield _thread.chosen
        finally:
            _thread.chosen = before


def _enter(module: nn.Module, args: Any) -> None:
    _thread.chosen.depth += 1


def _leave(module: nn.Module, args: Any, output: Any) -> None:
    _thread.chosen.depth -= 1


def _named(model: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """The modules with these names, each once."""
    names: dict[str, nn.Module] = dict(cast("Any", model.named_modules(remove_duplicate=False)))
    found: dict[int, nn.Module] = {}
    for pattern in patterns:
        fitting = [module for name, module in names.items() if fnmatchcase(name, pattern)]
        close = get_close_matches(str(pattern), names, 3, 0.3)
        hint = f"; close names are {', '.join(close)}" if close else ""
        check("sites", bool(fitting), "names of modules of the model, or patterns of them", f"{pattern!r}{hint}")
        found |= {id(module): module for module in fitting}
    return list(found.values())
