"""The bases of a class from other files: those known to read nothing, and those that keep the arguments they get."""

from __future__ import annotations

import ast

from dropkit.catalog import MODULE_BASES
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.expressions import last_name, last_part
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Bases that read no attribute of their subclasses.
_WITHOUT_READS = frozenset(
    {
        "object",
        "ABC",
        "Generic",
        "Protocol",
        "PushToHubMixin",
        "GenerationMixin",
        "ModuleUtilsMixin",
        "PyTorchModelHubMixin",
        "ModelHubMixin",
        "PeftAdapterMixin",
        "EmbeddingAccessMixin",
        "Registrable",
    }
)
# The simple names of all these, and of the bases that are torch's Module.
PLAIN_BASES = _WITHOUT_READS | MODULE_BASES
# Functions that keep every argument of their caller.
_ALL = ("locals", "vars", "store_attr", "register_to_config", "_getframe", "currentframe")
_KEEPERS = ("save_hyperparameters", *_ALL)
# Methods that see the arguments of the constructors of subclasses.
_WRAPPERS = frozenset({"__new__", "__call__", "__init_subclass__"})


def unplain_bases(source: SourceFile, owner: ClassDefinition) -> tuple[str, ...]:
    """The simple names of bases from other files that may read attributes; an empty one for a base without a name."""
    names = [(base, name) for cls in owner.mro for base, name in zip(cls.node.bases, cls.bases, strict=True)]
    outside = (
        last_part(name or last_name(base.value if isinstance(base, ast.Subscript) else base))
        for base, name in names
        if source.local_class(base) is None
    )
    return tuple(dict.fromkeys(name for name in outside if name not in PLAIN_BASES))


@cached_per_file
def saves_hyperparameters(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class keeps the arguments of its constructor in `self.hparams` alone."""
    saved = {source.owner(call) for call in source.calls.get("save_hyperparameters", [])}
    others = {source.owner(call) for name in _ALL for call in source.calls.get(name, [])}
    return not saved.isdisjoint(owner.mro) and others.isdisjoint(owner.mro)


@cached_per_file
def keepers(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that keep all arguments of their constructor, or of those of their subclasses."""
    calls = [(keeper, call) for keeper in _KEEPERS for call in source.calls.get(keeper, [])]
    callers = {source.owner(call) for keeper, call in calls if keeper != "vars" or not call.args}
    metaclasses = (cls for cls in source.classes if cls.node.keywords or "__init_subclass__" in cls.methods)
    makers = (cls for cls in source.classes if not cls.is_module and not _WRAPPERS.isdisjoint(cls.methods))
    return callers.union(metaclasses, makers)
