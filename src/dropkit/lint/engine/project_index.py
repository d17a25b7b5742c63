"""What other files say of a class: who inherits from it, and who reads its attributes.

A dropout that its own class never applies may be applied by a subclass, or by the object that holds it, in another
file. Each file leaves an `Account`; a finding with a question stands when no account answers it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dropkit.diagnostics import CrossFileCondition
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.model import SourceFile, once

# What a dropout or its rate may be called; others are not told of, and stay unanswered.
_LIKELY = re.compile(r"d[ro]|dp|mask|reg|^d\d?$|^p$|rate|prob", re.IGNORECASE)

# So many relatives of a class, in all files, are looked at.
_MOST_RELATIVES = 128


@dataclass(slots=True)
class Account:
    """What one file says of classes, by their simple names."""

    # Class -> the simple names of its bases.
    bases: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # Class -> attributes that its methods read of self.
    reads: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # "Class.attribute" read on an object known to be of that class.
    held: list[str] = field(default_factory=list[str])
    # Attributes called on objects of no known class: self.encoder.dropout(x).
    loose: list[str] = field(default_factory=list[str])
    # Simple names that the file imports.
    imports: list[str] = field(default_factory=list[str])


def account(source: SourceFile) -> Account:
    """What `source` says of its own classes and of others'."""
    told = Account()
    for one in source.classes:
        bases = [_last(base) for base in one.node.bases]
        if one.within is None:
            told.bases[one.name] = [base for base in bases if base]
            # What a class reads of itself and does not set is set by whoever inherits from it.
            derives = any(base not in ("Module", "object", "") for base in bases)
            own: set[str] = set() if derives else {*one.writes, *one.methods}
            told.reads[one.name] = sorted(name for name in one.reads if name not in own and _LIKELY.search(name))
    names = [binding for bindings in source.names.values() for binding in bindings]
    names += [b for function in source.functions for bindings in function.names.values() for b in bindings]
    told.imports = sorted({one.imported.rsplit(".", 1)[-1] for one in names if one.imported})
    held: set[str] = set()
    loose: set[str] = set()
    for attribute, nodes in source.attributes.items():
        if _LIKELY.search(attribute) is None:
            continue
        holders: set[frozenset[str]] = set()
        for node in nodes:
            if self_attribute(node) is None and isinstance(node.ctx, ast.Load):
                classes = _classes(source, node.value)
                holders.add(classes)
                above = source.parent(node)
                if not classes and isinstance(above, ast.Call) and above.func is node and source.dotted(node) is None:
                    loose.add(attribute)
        held.update(f"{name}.{attribute}" for classes in holders for name in classes)
    told.held, told.loose = sorted(held), sorted(loose)
    return told


class Answers:
    """What many accounts say together."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self.bases: dict[str, set[str]] = {}
        self.subclasses: dict[str, set[str]] = {}
        self.reads: dict[str, set[str]] = {}
        self.held: set[str] = set()
        # Class -> the files that import or define it, by number; attribute -> those that call it on unknown objects.
        self.named: dict[str, set[int]] = {}
        self.loose: dict[str, set[int]] = {}
        self._families: dict[tuple[str, int], set[str]] = {}
        for number, told in enumerate(accounts):
            self.held.update(told.held)
            for attribute in told.loose:
                self.loose.setdefault(attribute, set()).add(number)
            for name in (*told.imports, *told.bases):
                self.named.setdefault(name, set()).add(number)
            for name, attributes in told.reads.items():
                self.reads.setdefault(name, set()).update(attributes)
            for name, bases in told.bases.items():
                self.bases.setdefault(name, set()).update(bases)
                for base in bases:
                    self.subclasses.setdefault(base, set()).add(name)

    def to(self, question: CrossFileCondition) -> bool:
        """Whether a base, a subclass or a holder of `question.owner` reads `question.attribute` in some file."""
        owner, attribute = question.owner, question.attribute
        subclasses, bases = self._family(owner, self.subclasses), self._family(owner, self.bases)
        # Of a class with so many relatives it is not known who reads what.
        if max(len(subclasses), len(bases)) > _MOST_RELATIVES:
            return True
        if any(attribute in self.reads.get(name, ()) for name in (subclasses | bases) - {owner}):
            return True
        loose = self.loose.get(attribute, set())
        return any(
            f"{name}.{attribute}" in self.held or not loose.isdisjoint(self.named.get(name, ())) for name in subclasses
        )

    def _family(self, name: str, steps: dict[str, set[str]]) -> set[str]:
        """`name` and all that is reached from it, as far as it is looked at."""
        key = name, id(steps)
        if key not in self._families:
            found, pending = {name}, [name]
            while pending and len(found) <= _MOST_RELATIVES:
                more = steps.get(pending.pop(), set()) - found
                found |= more
                pending += more
            self._families[key] = found
        return self._families[key]


def _classes(source: SourceFile, holder: ast.expr) -> frozenset[str]:
    """The simple names of the classes whose objects `holder` (`self.encoder`, `model`) is made from."""
    attribute = self_attribute(holder)
    owner = source.owner(holder) if attribute is not None else None
    if attribute is not None:
        return _held(source, owner, attribute) if owner is not None else frozenset()
    return _made([source.value(holder) if isinstance(holder, ast.Name) else holder])


@once
def _held(_: SourceFile, owner: ClassDefinition, attribute: str) -> frozenset[str]:
    return _made(owner.values(attribute))


def _made(values: list[ast.expr | None]) -> frozenset[str]:
    calls = (value for value in values if isinstance(value, ast.Call))
    return frozenset(name for call in calls if (name := _last(call.func))[:1].isupper())


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
