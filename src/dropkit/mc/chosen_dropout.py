"""Choose which dropout is active, by the names of modules, and at which rate."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, cast

from torch import nn

from dropkit.arguments import check, did_you_mean


@dataclass(slots=True, eq=False)
class Chosen:
    """What was chosen for the models that a thread runs.

    Attributes:
        p: the rate of every dropout; None for their own.
        modules: the ids of the modules whose dropout is active; None for all.
        depth: in how many of the chosen modules the thread is.
    """

    p: float | None = None
    modules: frozenset[int] | None = None
    depth: int = 0
    _unreached: dict[str, None] = field(default_factory=dict[str, None], init=False)

    @property
    def is_active(self) -> bool:
        """Whether dropout is active in the module that is running."""
        return self.modules is None or self.depth > 0

    def rate(self, own: float) -> float | None:
        """The rate of a dropout, given its own; None if it is not active."""
        return ((own if self.p is None else self.p) or None) if self.is_active else None

    def does_not_reach(self, what: str) -> None:
        """Note that `p` changes nothing for this."""
        if self.p is not None and self.is_active:
            self._unreached[what] = None

    def notes(self) -> list[str]:
        """Notes for the user."""
        return [f"p does not reach {what}" for what in self._unreached]

    def enter(self, module: nn.Module, args: Any) -> None:
        """Begin a chosen module; those of other blocks, of this thread or of others, do not count."""
        if _thread.chosen is self:
            self.depth += 1

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """End a chosen module."""
        if _thread.chosen is self:
            self.depth -= 1


class _ThreadChoice(threading.local):
    """The choice that is in force in a thread; nothing is noted in that of all threads, which has no rate."""

    chosen: Chosen = Chosen()


_thread = _ThreadChoice()


def chosen() -> Chosen:
    """Return the choice that is in force in this thread."""
    return _thread.chosen


@contextmanager
def chosen_dropout(model: nn.Module | None, p: float | None, sites: str | Sequence[str] | None) -> Generator[Chosen]:
    """Choose rate and modules for a `with` block, in this thread.

    Raises:
        ValueError: `p` is out of range, or no module has one of the names.
        TypeError: there are names, but no model.
    """
    check("p", p is None or (isinstance(p, Real) and 0 < p < 1), "in (0, 1)", p)
    if not isinstance(model, nn.Module) and not (model is None and sites is None):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    before = _thread.chosen
    modules = (
        None
        if sites is None or model is None
        else _named(model, cast("Any", sites if isinstance(sites, (list, tuple, set)) else [sites]))
    )
    inside = None if modules is None else frozenset(id(part) for module in modules for part in module.modules())
    _thread.chosen = choice = Chosen(p, inside)
    with ExitStack() as stack:
        for module in modules or ():
            stack.enter_context(module.register_forward_pre_hook(choice.enter, prepend=True))
            stack.enter_context(module.register_forward_hook(choice.leave, always_call=True))
        try:
            yield choice
        finally:
            _thread.chosen = before


def _named(model: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """The modules with these names, each once."""
    names: dict[str, nn.Module] = dict(cast("Any", model.named_modules(remove_duplicate=False)))
    found: dict[int, nn.Module] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance] (checked)
            raise TypeError(f"sites must be names of modules, or patterns of them, got {type(pattern).__name__}")
        fitting = [module for name, module in names.items() if fnmatchcase(name, pattern)]
        wanted = "names of modules of the model, or patterns of them"
        check("sites", bool(fitting), wanted, f"{pattern!r}{did_you_mean(pattern, names)}")
        found |= {id(module): module for module in fitting}
    return list(found.values())
