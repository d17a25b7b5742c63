"""Regular expressions that are compiled at their first use.

Compiling all of the linter's takes longer than checking a file, which needs few of them.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, AnyStr, cast


def pattern(expression: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return what `re.compile` returns, but compile it when one of its methods is first used.

    Example:
        >>> pattern("[a-z]+").findall("one two")
        ['one', 'two']
    """
    return cast("re.Pattern[AnyStr]", _Uncompiled(expression, flags))


class _Uncompiled:
    """Stands for a compiled pattern: compiles it when an attribute is first read, and keeps each attribute."""

    def __init__(self, expression: Any, flags: int) -> None:
        self._compile = partial(re.compile, expression, flags)

    def __getattr__(self, name: str) -> Any:
        # Called once for each attribute; `re` keeps what it compiled.
        found = getattr(self._compile(), name)
        setattr(self, name, found)
        return found
