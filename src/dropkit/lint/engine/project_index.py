"""An index of the classes of a project: which inherit from which, and which attributes are read where.

A dropout that its own class never applies may be applied in another file, by a subclass or by an object that has it;
an argument that is never read may only fill the signature of a base in another file.
A finding with a `CrossFileCondition` is left out if the summaries of all files satisfy the condition.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from dropkit.catalog import MODULE_BASES
from dropkit.diagnostics import CrossFileCondition
from dropkit.lint.semantic.bases import PLAIN_BASES, keepers
from dropkit.lint.semantic.dropout_names import is_likely_attribute, is_rate_name
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.facts import facts_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.receivers import may_be_named, receiver_name
from dropkit.lint.semantic.syntax_tree import cached_per_list

# A class with more relatives than this, in all files, counts as unknown, and nothing is reported.
_MAX_RELATIVES = 128
# Bases of classes that are no Modules.
_NO_MODULES = frozenset({"object", "ABC", "Generic", "Protocol", "Enum", "NamedTuple", "Thread", "Process", "Callback"})


@dataclass(slots=True)
class ClassSummary:
    """What one file says about classes, by their simple names."""

    # Class -> the simple names of its bases.
    bases: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # Class -> the attributes that its methods read of self.
    reads: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # Class -> the rates that its constructor takes.
    arguments: dict[str, list[str]] = field(default_factory=dict["str", "list[str]"])
    # "Class.attribute", read on an object that is known to be of that class.
    reads_by_owners: list[str] = field(default_factory=list[str])
    # "encoder.dropout": attributes that are called on objects of unknown class, by the names of these.
    untyped_calls: list[str] = field(default_factory=list[str])
    # Simple names that the file imports.
    imports: list[str] = field(default_factory=list[str])
    # Classes that keep all arguments of their subclasses: by a metaclass, or by the frame of the caller.
    keepers: list[str] = field(default_factory=list[str])
    # Facts, each with the facts that it follows from: see `ProjectIndex.holds`. Empty until a finding asks for them.
    facts: list[list[str]] = field(default_factory=list["list[str]"])


def summarize_with_facts(source: SourceFile) -> ClassSummary:
    """Summarize also the facts of a file, which takes longer, and which few findings need."""
    summary = summarize(source)
    summary.facts = facts_of(source)
    return summary


def summarize(source: SourceFile) -> ClassSummary:
    """Summarize what `source` says about its own and other classes."""
    summary = ClassSummary()
    for cls in source.classes:
        if cls.within is not None:
            continue
        bases = [_last_name(base) for base in cls.node.bases]
        summary.bases[cls.name] = [base for base in bases if base]
        # A derived class may read attributes that it sets itself for a base in another file.
        is_derived = any(base not in ("Module", "object", "") for base in bases)
        own: set[str] = set() if is_derived else {*cls.writes, *cls.methods}
        read = (name for name in cls.reads if name not in own and is_likely_attribute(name))
        summary.reads[cls.name] = sorted(read)
        constructor = cls.methods.get("__init__")
        taken = [parameter.arg for parameter in constructor.parameters] if constructor is not None else []
        if rates := [name for name in taken if is_rate_name(name)]:
            summary.arguments[cls.name] = rates
    bindings = [binding for bindings in source.names.values() for binding in bindings]
    bindings += [b for function in source.functions for bindings in function.names.values() for b in bindings]
    summary.imports = sorted({b.imported.rsplit(".", 1)[-1] for b in bindings if b.imported})
    summary.reads_by_owners, summary.untyped_calls = _reads_on_objects(source)
    summary.keepers = sorted({cls.name for cls in keepers(source) if cls is not None})
    return summary


def _reads_on_objects(source: SourceFile) -> tuple[list[str], list[str]]:
    """Attributes read on objects other than self: with their class, or if that is unknown those that are called."""
    typed: set[str] = set()
    untyped: set[str] = set()
    for attribute, nodes in source.attributes.items():
        if not is_likely_attribute(attribute):
            continue
        # Sets in a set: many reads share the same, and joining it for each of them would take quadratic time.
        class_sets: set[frozenset[str]] = set()
        for node in nodes:
            if self_attribute(node) is None and isinstance(node.ctx, ast.Load):
                classes = _instance_classes(source, source.latest_values(node.value))
                class_sets.add(classes)
                parent = source.parent(node)
                is_called = isinstance(parent, ast.Call) and parent.func is node
                if not classes and is_called and source.dotted(node) is None:
                    untyped.add(f"{receiver_name(node)}.{attribute}")
        typed.update(f"{name}.{attribute}" for classes in class_sets for name in classes)
    return sorted(typed), sorted(untyped)


class ProjectIndex:
    """The class summaries of many files, joined. If they are not complete, a class without one may still be found."""

    def __init__(self, summaries: Iterable[ClassSummary], is_complete: bool = True) -> None:
        self.is_complete = is_complete
        self.bases: dict[str, set[str]] = {}
        self.subclasses: dict[str, set[str]] = {}
        self.reads: dict[str, set[str]] = {}
        self.reads_by_owners: set[str] = set()
        # Class -> the numbers of the files that import or define it.
        self.files_naming: dict[str, set[int]] = {}
        # Attribute -> the numbers of the files that call it on an object of unknown class, and the name of the object.
        self.files_calling: dict[str, set[tuple[int, str]]] = {}
        self.arguments: dict[str, set[str]] = {}
        self.keepers: set[str] = set()
        self._families: dict[tuple[str, int], set[str]] = {}
        self._facts: set[str] = set()
        # Package -> the files whose names it has, too; and back.
        self.exports: dict[str, set[str]] = {}
        self.exported_by: dict[str, set[str]] = {}
        clauses: list[list[str]] = []
        for number, summary in enumerate(summaries):
            self.reads_by_owners.update(summary.reads_by_owners)
            clauses += summary.facts
            self.keepers.update(summary.keepers)
            for call in summary.untyped_calls:
                receiver, _, attribute = call.rpartition(".")
                self.files_calling.setdefault(attribute, set()).add((number, receiver))
            for name, arguments in summary.arguments.items():
                self.arguments.setdefault(name, set()).update(arguments)
            for name in (*summary.imports, *summary.bases):
                self.files_naming.setdefault(name, set()).add(number)
            for name, attributes in summary.reads.items():
                self.reads.setdefault(name, set()).update(attributes)
            for name, bases in summary.bases.items():
                self.bases.setdefault(name, set()).update(bases)
                for base in bases:
                    self.subclasses.setdefault(base, set()).add(name)
        self._infer(clauses)

    def _infer(self, clauses: list[list[str]]) -> None:
        """Collect all facts that follow from the clauses."""
        for package, _, module in (
            head[len("exports:") :].partition(".") for head, *_ in clauses if head[:8] == "exports:"
        ):
            self.exports.setdefault(package, set()).add(module)
            self.exported_by.setdefault(module, set()).add(package)
        while True:
            pending = [clause for clause in clauses if clause[0] not in self._facts]
            new = {head for head, *body in pending if all(map(self.holds, body))}
            if not new:
                return
            self._facts |= new
            clauses = pending

    def holds(self, fact: str) -> bool:
        """Whether a fact holds, about a class, one of its bases, or a function.

        "sets-mode:C": its attribute `training` is a property with a setter. "has-mode:C": it has dropout or batch
        normalisation. "no-module:C": the project defines it and all its bases, and none is a Module. For the others
        see `semantic/facts.py` and `semantic/handed_models.py`, and for names `semantic/module_names.py`.
        """
        kind, _, name = fact.partition(":")
        if kind == "no-module":
            family = self._family(name, self.bases) - _NO_MODULES
            return bool(family) and family.isdisjoint(MODULE_BASES) and all(each in self.bases for each in family)
        if kind in ("sets-mode", "has-mode") and "." not in name:
            return any(f"{kind}:{each}" in self._facts for each in self._family(name, self.bases))
        return any(f"{kind}:{each}" in self._facts for each in self.aliases(name))

    def aliases(self, name: str) -> set[str]:
        """The names under which files may speak of the same.

        Those of a class are its bases and subclasses, those of a package the files whose names it has. "*.method" is
        the method of an object whose class is unknown there.
        """
        if "|" in name:  # One of these.
            return {alias for each in name.split("|") for alias in self.aliases(each)}
        head, dot, last = name.partition(".")
        heads = self._family(head, self.bases) | self._family(head, self.subclasses)
        if dot:
            heads |= self._family(head, self.exports) | self._family(head, self.exported_by)
            heads |= {"*"} if head[:1].isupper() and not last.startswith("_") else set()
        return {f"{each}{dot}{last}" for each in heads}

    def satisfies(self, condition: CrossFileCondition) -> bool:
        """Whether any of what `condition` names is so."""
        subclasses, bases = self._family(condition.owner, self.subclasses), self._family(condition.owner, self.bases)
        return (
            max(len(subclasses), len(bases)) > _MAX_RELATIVES
            or (self.is_complete and bool(self.unknown_bases(condition)))
            or (bool(condition.attribute) and self._is_read(condition, subclasses, bases))
            or (bool(condition.argument) and self._is_taken(condition, bases))
        )

    def unknown_bases(self, condition: CrossFileCondition) -> set[str]:
        """The bases of the condition, and theirs, that no file defines, or that keep all arguments."""
        bases = {base for name in condition.bases for base in self._family(name, self.bases)}
        return {base for base in bases if base in self.keepers or (base not in self.bases and base not in PLAIN_BASES)}

    def _is_read(self, condition: CrossFileCondition, subclasses: set[str], bases: set[str]) -> bool:
        """Whether a base, a subclass or an owner reads the attribute."""
        attribute = condition.attribute
        if any(attribute in self.reads.get(name, ()) for name in (subclasses | bases) - {condition.owner}):
            return True
        calling = self.files_calling.get(attribute, set())
        return any(
            f"{name}.{attribute}" in self.reads_by_owners
            or any(
                number in self.files_naming.get(name, ()) and may_be_named(receiver, name)
                for number, receiver in calling
            )
            for name in subclasses
        )

    def _is_taken(self, condition: CrossFileCondition, bases: set[str]) -> bool:
        """Whether a base takes the argument, or another class that inherits from one of the same bases."""
        siblings = {name for base in condition.bases for name in self._family(base, self.subclasses)}
        return any(
            condition.argument in self.arguments.get(name, ()) for name in (siblings | bases) - {condition.owner}
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


# An attribute has the same list of values at each of its reads.
@cached_per_list
def _instance_classes(_: SourceFile, values: list[ast.expr | None]) -> frozenset[str]:
    """The simple names of the classes that an object with these values (`self.encoder`, `model`) may be of."""
    calls = (value for value in values if isinstance(value, ast.Call))
    return frozenset(name for call in calls if (name := _last_name(call.func))[:1].isupper())


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
