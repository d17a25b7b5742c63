"""Parse text into a SourceFile."""

from __future__ import annotations

import ast
import warnings

from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.source_text import Text


class Unreadable(ValueError):
    """A file that cannot be decoded or parsed; `reason` says why, `line` where, and the message both."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


def parse(text: Text) -> ast.Module:
    """Parse `text`.

    Raises:
        Unreadable: it is not Python of a grammar this interpreter knows.
    """
    with warnings.catch_warnings():
        # Warnings of invalid escapes and the like are not for the user of the linter.
        warnings.simplefilter("ignore")
        try:
            return text.parse()
        except SyntaxError as error:
            raise Unreadable(error.msg, error.lineno) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise Unreadable(str(error) or type(error).__name__) from error


def read(path: str, text: Text, always_on: tuple[str, ...] = ()) -> SourceFile:
    """Parse and index `text`.

    Raises:
        Unreadable: it is not Python of a grammar this interpreter knows.
    """
    tree = parse(text)
    try:
        return SourceFile(path, text, tree, always_on)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error
