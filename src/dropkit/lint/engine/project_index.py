"""An index of the classes of a project: which inherit from which, and which attributes are read where.

A dropout that its own class never applies may be applied in another file, by a subclass or by the object that holds
it. Each file leaves a `ClassSummary`; a finding with a `CrossFileCondition` is dropped if the index satisfies it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dropkit.diagnostics import CrossFileCondition
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Names that a dropout or its rate may have. Other attributes are left out, so that summaries stay small.
_LIKELY_NAME = re.compile(r"d[ro]|dp|mask|reg|^d\d?$|^p$|rate|prob", re.IGNORECASE)

# Classes with more relatives than this, in all files, are not judged.
_MAX_RELATIVES = 128


@dataclass(slots=True)
class ClassSummary:
    """What one file tells about classes, by their simple names."""

    # Class -> the simple names of its bases.
    bases: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # Class -> the attributes that its methods read of self.
    reads: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # "Class.attribute", read on an object that is known to be of that class.
    reads_by_owners: list[str] = field(default_factory=list[str])
    # Attributes that are called on objects of unknown class: self.encoder.dropout(x).
    untyped_calls: list[str] = field(default_factory=list[str])
    # Simple names that the file imports.
    imports: list[str] = field(default_factory=list[str])


def summarize(source: SourceFile) -> ClassSummary:
    """Summarize what `source` tells about its own and other classes."""
    summary = ClassSummary()
    for class_ in source.classes:
        if class_.within is not None:
            continue
        bases = [_last_name(base) for base in class_.node.bases]
        summary.bases[class_.name] = [base for base in bases if base]
        # A derived class may read attributes that it sets itself for a base in another file.
        is_derived = any(base not in ("Module", "object", "") for base in bases)
        own: set[str] = set() if is_derived else {*class_.writes, *class_.methods}
        read = (name for name in class_.reads if name not in own and _LIKELY_NAME.search(name))
        summary.reads[class_.name] = sorted(read)
    bindings = [binding for bindings in source.names.values() for binding in bindings]
    bindings += [b for function in source.functions for bindings in function.names.values() for b in bindings]
    summary.imports = sorted({b.imported.rsplit(".", 1)[-1] for b in bindings if b.imported})
    summary.reads_by_owners, summary.untyped_calls = _reads_on_objects(source)
    return summary


def _reads_on_objects(source: SourceFile) -> tuple[list[str], list[str]]:
    """The attributes that are read on other objects than self: with their class where it is known, and calls else."""
    typed: set[str] = set()
    untyped: set[str] = set()
    for attribute, nodes in source.attributes.items():
        if _LIKELY_NAME.search(attribute) is None:
            continue
        # Sets in a set: many reads share one, and joining it again for each would take quadratic time.
        class_sets: set[frozenset[str]] = set()
        for node in nodes:
            if self_attribute(node) is None and isinstance(node.ctx, ast.Load):
                classes = _classes_of(source, node.value)
                class_sets.add(classes)
                parent = source.parent(node)
                is_called = isinstance(parent, ast.Call) and parent.func is node
                if not classes and is_called and source.dotted(node) is None:
                    untyped.add(attribute)
        typed.update(f"{name}.{attribute}" for classes in class_sets for name in classes)
    return sorted(typed), sorted(untyped)


class ProjectIndex:
    """The class summaries of many files, joined."""

    def __init__(self, summaries: Iterable[ClassSummary]) -> None:
        self.bases: dict[str, set[str]] = {}
        self.subclasses: dict[str, set[str]] = {}
        self.reads: dict[str, set[str]] = {}
        self.reads_by_owners: set[str] = set()
        # Class -> the numbers of the files that import or define it.
        self.files_naming: dict[str, set[int]] = {}
        # Attribute -> the numbers of the files that call it on an object of unknown class.
        self.files_calling: dict[str, set[int]] = {}
        self._families: dict[tuple[str, int], set[str]] = {}
        for number, summary in enumerate(summaries):
            self.reads_by_owners.update(summary.reads_by_owners)
            for attribute in summary.untyped_calls:
                self.files_calling.setdefault(attribute, set()).add(number)
            for name in (*summary.imports, *summary.bases):
                self.files_naming.setdefault(name, set()).add(number)
            for name, attributes in summary.reads.items():
                self.reads.setdefault(name, set()).update(attributes)
            for name, bases in summary.bases.items():
                self.bases.setdefault(name, set()).update(bases)
                for base in bases:
                    self.subclasses.setdefault(base, set()).add(name)

    def satisfies(self, condition: CrossFileCondition) -> bool:
        """Whether a base, a subclass or an owner of `condition.owner` reads `condition.attribute` in some file."""
        owner, attribute = condition.owner, condition.attribute
        subclasses, bases = self._family(owner, self.subclasses), self._family(owner, self.bases)
        if max(len(subclasses), len(bases)) > _MAX_RELATIVES:
            return True
        if any(attribute in self.reads.get(name, ()) for name in (subclasses | bases) - {owner}):
            return True
        calling = self.files_calling.get(attribute, set())
        return any(
            f"{name}.{attribute}" in self.reads_by_owners or not calling.isdisjoint(self.files_naming.get(name, ()))
            for name in subclasses
        )

    def _family(self, name: str, edges: dict[str, set[str]]) -> set[str]:
        """`name` and the classes that `edges` lead to from it, up to the limit."""
        key = name, id(edges)
        if key not in self._families:
            family, pending = {name}, [name]
            while pending and len(family) <= _MAX_RELATIVES:
                new = edges.get(pending.pop(), set()) - family
                family |= new
                pending += new
            self._families[key] = family
        return self._families[key]


def _classes_of(source: SourceFile, object_: ast.expr) -> frozenset[str]:
    """The simple names of the classes that `object_` (`self.encoder`, `model`) may be an instance of."""
    attribute = self_attribute(object_)
    if attribute is not None:
        owner = source.owner(object_)
        return _classes_of_attribute(source, owner, attribute) if owner is not None else frozenset()
    return _constructed_classes([source.value(object_) if isinstance(object_, ast.Name) else object_])


@cached_per_file
def _classes_of_attribute(_: SourceFile, owner: ClassDefinition, attribute: str) -> frozenset[str]:
    return _constructed_classes(owner.values(attribute))


def _constructed_classes(values: list[ast.expr | None]) -> frozenset[str]:
    calls = (value for value in values if isinstance(value, ast.Call))
    return frozenset(name for call in calls if (name := _last_name(call.func))[:1].isupper())


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
