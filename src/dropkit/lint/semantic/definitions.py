"""What a file defines: functions, classes, names and attributes, and where each gets its values."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from dropkit import catalog
from dropkit.lint.semantic.expressions import last_part

FunctionNode: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

# The most classes in a mro, which keeps the work on deep hierarchies linear. Real hierarchies end at a dozen; a class
# with more ancestors counts as no Module, and no rule reports it.
MAX_ANCESTORS = 64


@dataclass(slots=True, eq=False)
class FunctionDefinition:
    """A function, method or lambda; `within` is the function around it, `owner` the class of a method."""

    node: FunctionNode
    name: str
    owner: ClassDefinition | None
    within: FunctionDefinition | None
    # The names bound in it: parameters, assignments, imports, definitions.
    names: dict[str, list[Binding]] = field(default_factory=dict["str", "list[Binding]"])
    # The values that its `return` statements give.
    returns: list[ast.expr] = field(default_factory=list["ast.expr"])

    @property
    def parameters(self) -> list[ast.arg]:
        """All parameters in order, without *args and **kwargs."""
        arguments = self.node.args
        return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]

    @property
    def decorators(self) -> list[ast.expr]:
        """Its decorators; a lambda has none."""
        return [] if isinstance(self.node, ast.Lambda) else self.node.decorator_list

    @property
    def body(self) -> list[ast.stmt]:
        """Its statements; a lambda has none."""
        return [] if isinstance(self.node, ast.Lambda) else self.node.body

    @property
    def self_name(self) -> str | None:
        """The name of a method's object; None for functions, static and class methods."""
        others = ("staticmethod", "classmethod")
        if self.owner is None or any(isinstance(each, ast.Name) and each.id in others for each in self.decorators):
            return None
        first = [*self.node.args.posonlyargs, *self.node.args.args][:1]
        return first[0].arg if first else None

    @property
    def method(self) -> FunctionDefinition:
        """The outermost function around it in the same class: the method of a closure, or itself."""
        function = self
        while function.owner is None and function.within is not None:
            function = function.within
        return function


@dataclass(slots=True, eq=False)
class Binding:
    """A statement that binds a name: to an expression, an imported dotted name, or a value that is not followed."""

    statement: ast.AST
    value: ast.expr | None = None
    imported: str | None = None
    # The value is a part of the expression, or computed from it: unpacking, for, with, augmented assignment.
    derived: bool = False


@dataclass(slots=True, eq=False)
class Write:
    """`self.attribute = value` in a method (or at class level, where `function` is None)."""

    attribute: str
    value: ast.expr | None
    statement: ast.AST
    function: FunctionDefinition | None
    derived: bool = False


@dataclass(eq=False)
class ClassDefinition:
    """A class: its methods, bases and subclasses, and the attributes of `self` that its methods read and set."""

    node: ast.ClassDef
    within: FunctionDefinition | None
    # The dotted name that an expression of this file stands for.
    resolve: Callable[[ast.AST], str | None]
    methods: dict[str, FunctionDefinition] = field(default_factory=dict["str", "FunctionDefinition"])
    writes: dict[str, list[Write]] = field(default_factory=dict["str", "list[Write]"])
    reads: dict[str, list[ast.Attribute]] = field(default_factory=dict["str", "list[ast.Attribute]"])
    # Calls `self.method(...)` in its methods, by name.
    own_calls: dict[str, list[ast.Call]] = field(default_factory=dict["str", "list[ast.Call]"])
    # Itself and the classes of this file that it inherits from, nearest first.
    mro: list[ClassDefinition] = field(default_factory=list["ClassDefinition"])
    # The classes of this file that inherit from it, directly or not.
    subclasses: list[ClassDefinition] = field(default_factory=list["ClassDefinition"])
    # The dotted names of its own bases from other files or libraries.
    own_external_bases: list[str] = field(default_factory=list[str])
    _writes: dict[str, list[Write]] = field(default_factory=dict["str", "list[Write]"])
    _values: dict[str, list[ast.expr | None]] = field(default_factory=dict["str", "list[ast.expr | None]"])

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def bases(self) -> list[str | None]:
        """Dotted names of the bases, in order; None for an unknown one."""
        return [self.resolve(base) for base in self.node.bases]

    @cached_property
    def external_bases(self) -> list[str]:
        """The dotted names of bases from other files or libraries, its own and those of its mro."""
        return [base for cls in self.mro for base in cls.own_external_bases]

    def method(self, name: str) -> FunctionDefinition | None:
        """The method that a call of `name` runs, as far as this file knows."""
        return next((cls.methods[name] for cls in self.mro if name in cls.methods), None)

    def all_writes(self, attribute: str) -> list[Write]:
        """Every `self.attribute = ...` in the class or its bases in this file."""
        if attribute not in self._writes:
            self._writes[attribute] = [write for cls in self.mro for write in cls.writes.get(attribute, [])]
        return self._writes[attribute]

    def values(self, attribute: str) -> list[ast.expr | None]:
        """Every value that the class or its bases in this file set `self.attribute` to; None for an unknown one."""
        if attribute not in self._values:
            self._values[attribute] = [write.value for write in self.all_writes(attribute)]
        return self._values[attribute]

    @cached_property
    def is_module(self) -> bool:
        """Whether its objects are torch Modules: by its bases or, if those are unknown, by its layers and `forward`."""
        return len(self.mro) <= MAX_ANCESTORS and self._looks_like_a_module()

    @property
    def has_mode(self) -> bool:
        """Whether its objects certainly have `training`: they inherit it from a library's Module, or use it."""
        return self.is_module and (
            any(base.startswith(catalog.MODULE_LIBRARIES) for base in self.external_bases)
            or any("training" in cls.reads for cls in self.mro)
            or self._keeps_layers()
        )

    def _looks_like_a_module(self) -> bool:
        for base in self.external_bases:
            last = last_part(base)
            if base.startswith("torch.nn.") and last.lstrip("_")[:1].isupper():
                return True
            if last in catalog.MODULE_BASES and not base.startswith(catalog.OTHER_FRAMEWORKS):
                return True
        is_other = any(base.startswith(("torch.autograd.", "torch.utils.data.")) for base in self.external_bases)
        return any(cls.node.bases for cls in self.mro) and not is_other and self._keeps_layers()

    def _keeps_layers(self) -> bool:
        """Whether it has a `forward`, and layers in attributes."""
        return self.method("forward") is not None and any(
            isinstance(write.value, ast.Call)
            and (self.resolve(write.value.func) or "").startswith(("torch.nn.", "torch_geometric.nn."))
            for cls in self.mro
            for writes in cls.writes.values()
            for write in writes
        )
