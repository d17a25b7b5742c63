"""What a file defines: functions, classes, names and attributes, and where each gets its values."""

from __future__ import annotations

import ast
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from dropkit import catalog

if TYPE_CHECKING:
    from dropkit.lint.semantic.model import SourceFile

FunctionNode: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

# So many classes a mro has at most, which keeps the work on deep hierarchies linear. Those of people end at a
# dozen; of a class with more ancestors it is not known whether it is a Module, and no rule judges it.
_MOST_ANCESTORS = 64


@dataclass(slots=True, eq=False)
class FunctionDefinition:
    """A function, method or lambda; `within` is the function around it, `owner` the class whose method it is."""

    node: FunctionNode
    name: str
    owner: ClassDefinition | None
    within: FunctionDefinition | None
    # Everything bound in it: arguments (None for the value), assignments, imports (a dotted name).
    names: dict[str, list[Binding]] = field(default_factory=dict["str", "list[Binding]"])

    @property
    def parameters(self) -> list[ast.arg]:
        """All of them, in order, without *args and **kwargs."""
        arguments = self.node.args
        return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]

    @property
    def self_name(self) -> str | None:
        """What a method calls its object; None for functions, static and class methods."""
        if self.owner is None or isinstance(self.node, ast.Lambda):
            return None
        for decorator in self.node.decorator_list:
            if isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod"):
                return None
        first = [*self.node.args.posonlyargs, *self.node.args.args][:1]
        return first[0].arg if first else None

    @property
    def method(self) -> FunctionDefinition:
        """The outermost function around it that is still in the same class: a closure's method, or itself."""
        function = self
        while function.owner is None and function.within is not None:
            function = function.within
        return function


@dataclass(slots=True, eq=False)
class Binding:
    """One place where a name gets a value: an expression, an import's dotted name, or something not followed."""

    statement: ast.AST
    value: ast.expr | None = None
    imported: str | None = None
    # What is bound is part of the value, or made from it: unpacking, for, with, augmented assignment.
    derived: bool = False


@dataclass(slots=True, eq=False)
class Write:
    """`self.attribute = value` in a method (or at class level, where `function` is None)."""

    attribute: str
    value: ast.expr | None
    statement: ast.AST
    function: FunctionDefinition | None
    derived: bool = False


@dataclass(slots=True, eq=False)
class ClassDefinition:
    """A class: its bases by dotted name (None where not known), methods, and what is done to `self`."""

    node: ast.ClassDef
    source: SourceFile
    within: FunctionDefinition | None
    methods: dict[str, FunctionDefinition] = field(default_factory=dict["str", "FunctionDefinition"])
    writes: dict[str, list[Write]] = field(default_factory=dict["str", "list[Write]"])
    reads: dict[str, list[ast.Attribute]] = field(default_factory=dict["str", "list[ast.Attribute]"])
    # Calls self.method(...) of its own, by name.
    own_calls: dict[str, list[ast.Call]] = field(default_factory=dict["str", "list[ast.Call]"])

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def bases(self) -> list[str | None]:
        """Dotted names of the bases, in order."""
        return [self.source.dotted(base) for base in self.node.bases]

    @property
    def mro(self) -> list[ClassDefinition]:
        """Itself and the classes of this file that it inherits from, nearest first."""
        return self.source.mros[self]

    @property
    def subclasses(self) -> list[ClassDefinition]:
        """The classes of this file that inherit from it, near or far."""
        return self.source.subclasses.get(self, [])

    def method(self, name: str) -> FunctionDefinition | None:
        """The method that a call of `name` runs, as far as this file knows."""
        for one in self.mro:
            if name in one.methods:
                return one.methods[name]
        return None

    def all_writes(self, attribute: str) -> list[Write]:
        """Every `self.attribute = ...` here or in bases of this file."""
        known = self.source.cache(ClassDefinition.all_writes)
        key = self, attribute
        if key not in known:
            known[key] = [write for one in self.mro for write in one.writes.get(attribute, [])]
        return known[key]

    def values(self, attribute: str) -> list[ast.expr | None]:
        """Everything that `self.attribute` is set to here or in bases of this file."""
        known = self.source.cache(ClassDefinition.values)
        key = self, attribute
        if key not in known:
            known[key] = [write.value for write in self.all_writes(attribute)]
        return known[key]

    @property
    def roots(self) -> list[str]:
        """The dotted names that its mro ends in: bases from other files or libraries."""
        known = self.source.cache(ClassDefinition.roots)
        if self not in known:
            known[self] = [root for one in self.mro for root in one._own_roots()]
        return known[self]

    def _own_roots(self) -> list[str]:
        """The dotted names of its own bases from other files or libraries."""
        known = self.source.cache(ClassDefinition._own_roots)
        if self not in known:
            known[self] = [
                root
                for base, name in zip(self.node.bases, self.bases, strict=True)
                if (root := name or self._unbound(base)) is not None and self.source.local_class(base) is None
            ]
        return known[self]

    def _unbound(self, base: ast.expr) -> str | None:
        """The name of a base that this file does not bind: from a star import, or the file is a piece of another."""
        return base.id if isinstance(base, ast.Name) and not self.source.bindings(base) else None

    @property
    def is_module(self) -> bool:
        """Whether its objects are torch Modules, by their bases or, where those are unknown, by what they do."""
        known = self.source.is_module_by_class.get(self.node)
        if known is None:
            known = self.source.is_module_by_class[self.node] = self._looks_like_a_module()
        return known

    @property
    def has_mode(self) -> bool:
        """Whether its objects surely have `training`: by a base of torch or of what is made for it, or by their use."""
        return self.is_module and (
            any(root.startswith(catalog.MODULE_LIBRARIES) for root in self.roots)
            or any("training" in one.reads for one in self.mro)
            or self._keeps_layers()
        )

    def _looks_like_a_module(self) -> bool:
        if len(self.mro) > _MOST_ANCESTORS:
            return False
        for root in self.roots:
            last = root.rsplit(".", 1)[-1]
            if root.startswith("torch.nn.") and last.lstrip("_")[:1].isupper():
                return True
            if last in catalog.MODULE_BASES and not root.startswith(catalog.NO_MODULES):
                return True
        if not any(one.node.bases for one in self.mro) or any(
            root.startswith(("torch.autograd.", "torch.utils.data.")) for root in self.roots
        ):
            return False
        # A base that is not known, a forward, and layers kept in self.
        return self._keeps_layers()

    def _keeps_layers(self) -> bool:
        return self.method("forward") is not None and any(
            isinstance(write.value, ast.Call)
            and (self.source.dotted(write.value.func) or "").startswith(("torch.nn.", "torch_geometric.nn."))
            for one in self.mro
            for writes in one.writes.values()
            for write in writes
        )


def mros(classes: list[ClassDefinition]) -> dict[ClassDefinition, list[ClassDefinition]]:
    """For each class itself and the classes of its file that it inherits from, nearest first."""
    bases = {one: [known for base in one.node.bases if (known := one.source.local_class(base))] for one in classes}
    return {one: _ancestors(one, bases) for one in classes}


def subclasses(mros: dict[ClassDefinition, list[ClassDefinition]]) -> dict[ClassDefinition, list[ClassDefinition]]:
    """For each class those of its file that inherit from it, near or far."""
    found: dict[ClassDefinition, list[ClassDefinition]] = {}
    for subclass, mro in mros.items():
        for one in mro[1:]:
            found.setdefault(one, []).append(subclass)
    return found


def _ancestors(one: ClassDefinition, bases: dict[ClassDefinition, list[ClassDefinition]]) -> list[ClassDefinition]:
    found = {one: None}
    pending = deque([one])
    while pending:
        for base in bases[pending.popleft()]:
            if base not in found:
                found[base] = None
                pending.append(base)
                if len(found) > _MOST_ANCESTORS:
                    return list(found)
    return list(found)
