"""From text to a module that is indexed."""

from __future__ import annotations

import warnings

from dropkit.facts.module import Module
from dropkit.facts.text import Text


class Unreadable(ValueError):
    """A file that cannot be decoded or parsed; the message says why and where."""


def read(path: str, text: Text, always_on: tuple[str, ...] = ()) -> Module:
    """Parse and index `text`.

    Raises:
        Unreadable: it is not Python of a grammar this interpreter knows.
    """
    with warnings.catch_warnings():
        # Invalid escapes and the like are the file's own affair.
        warnings.simplefilter("ignore")
        try:
            return Module(path, text, text.parse(), always_on)
        except SyntaxError as error:
            raise Unreadable(f"line {error.lineno}: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise Unreadable(str(error) or type(error).__name__) from error
