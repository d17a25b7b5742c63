"""What `dir()` of a public module shows: its public names, and nothing that it imports for its own use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def public_names(module: Mapping[str, Any]) -> list[str]:
    """Return `__all__`, or the classes and functions of dropkit that the module holds, in alphabetical order.

    Args:
        module: its `globals()`.
    """
    named = module.get("__all__")
    return sorted(name for name in module if _is_public(name, module[name])) if named is None else sorted(named)


def _is_public(name: str, value: Any) -> bool:
    return (
        not name.startswith("_")
        and callable(value)
        and value.__module__.startswith("dropkit.")
        and value is not public_names
    )
