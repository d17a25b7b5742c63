"""Which files may state facts that findings ask for, by their names and the words in their text.

Parsing a file to find its facts takes a thousand times longer than searching it for words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# Searching a text for each name is faster than splitting it into words, up to this many names.
_MAX_SEARCHES = 32
# What takes all fields of a record, in a file that unpacks settings.
_WHOLE = (b"asdict", b"vars(", b"__dict__", b"fields(")


class FactSearch:
    """The search for files that define or name classes, or that state facts.

    Args:
        classes: names of classes.
        facts: as of `ProjectIndex.holds`.
    """

    def __init__(self, classes: Iterable[str], facts: set[str]) -> None:
        self.facts = facts
        self._classes = {name.encode() for name in classes}
        self._files: set[str] = set()
        self._texts: set[bytes] = set()
        # Function -> the modules, or classes, of which files may call it.
        self._calls: dict[bytes, set[bytes]] = {}
        for kind, _, name in (fact.partition(":") for fact in facts):
            if "|" not in name:  # One of several facts, which are searched for, too.
                self._add(kind, name)

    def _add(self, kind: str, name: str) -> None:
        head, dot, last = name.partition(".")
        word, is_class = head.encode(), head[:1].isupper()
        match kind:
            case "sets-mode" if last == "setter":
                self._texts.add(b".setter")
            case "unpacks":
                self._texts.update(_WHOLE)
            case "gets":
                self._files.add(head)
            case "passes":
                self._calls.setdefault(last.partition(":")[0].encode(), set()).add(word)
            case _ if head == "*":
                self._texts.add(f".{last}(".encode())
            case "alternative" | "reads" | "uses":
                self._texts.add(word)
            case "models":
                self._texts |= {word + b"(", b"(" + word}
            case "evaluates" | "guards" | "given":
                self._calls.setdefault(last.encode(), set()).add(word)
            case _ if dot and is_class:
                self._texts |= {b"class " + word, b"@" + word}
            case _ if dot:
                self._files |= {head, f"{head}.*"} if last == "*" else {head}
            case _:
                self._texts.add(b"class " + word)

    def may_state(self, path: str, data: bytes) -> bool:
        """Whether a file may state any of the facts."""
        folder, stem = Path(path).parent.name, Path(path).stem
        names = {folder if stem == "__init__" else stem, f"{folder}.*"}
        return (
            not names.isdisjoint(self._files)
            or any(text in data for text in self._texts)
            or any(_calls(stem, data, function, of) for function, of in self._calls.items() if function in data)
        )

    def may_name(self, data: bytes) -> bool:
        """Whether a text may name any of the classes."""
        if len(self._classes) <= _MAX_SEARCHES:
            return any(name in data for name in self._classes)
        return not self._classes.isdisjoint(re.findall(rb"\w+", data))


def _calls(stem: str, data: bytes, function: bytes, owners: set[bytes]) -> bool:
    """Whether a file may call a function of a module, or the method of a class, or, as a package, import it."""
    if not any(owner in data for owner in owners):
        return False
    # A package may only import a function; a file may call it by another name.
    call = rb"\b" if stem == "__init__" else rb"(?:\s*\(|\s+as\b)"
    return re.search(rb"\b(?<!def )" + re.escape(function) + call, data) is not None and any(
        re.search(rb"\b" + re.escape(owner) + rb"\b", data) is not None for owner in owners if owner in data
    )
