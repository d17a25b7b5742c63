"""A call in Python as text, so that a result says how to get it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any


def python_call(function: Callable[..., Any], first: Sequence[str], arguments: Mapping[str, Any]) -> str:
    """Return a call of a function of `dropkit`, with the arguments that differ from their defaults.

    Args:
        function: what is called.
        first: the positional arguments, as they are to be shown.
        arguments: the others by name.
    """
    defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    named = [f"{name}={_shown(value)}" for name, value in arguments.items() if value != defaults.get(name, ...)]
    return f"dropkit.{function.__name__}({', '.join([*first, *named])})"


def _shown(value: Any) -> str:
    """Functions by their name, which is what a script calls them; other values as they are typed."""
    return getattr(value, "__name__", None) or repr(value)
