"""Facts that one file states for the rest of its project: what its classes are, and what its functions do to modes.

A fact is "kind:name". Each comes with the facts of other files from which it follows; most follow from none.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.lint.semantic.alternatives import alternative_classes
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.model import SourceFile


def facts_of(source: SourceFile) -> list[list[str]]:
    """The facts of a file, each followed by the facts that it depends on."""
    return sorted([list(clause) for clause in dict.fromkeys(_clauses(source))])


def _clauses(source: SourceFile) -> Iterator[tuple[str, ...]]:
    for cls in source.classes:
        if sets_mode(cls):
            yield (f"sets-mode:{cls.name}",)
            yield ("sets-mode:training.setter",)
    for name in alternative_classes(source):
        yield (f"alternative:{name}",)
    for cls in mode_dependent_modules(source):
        yield (f"has-mode:{cls.name}",)


def sets_mode(cls: ClassDefinition) -> bool:
    """Whether the attribute `training` is a property, as far as this file knows."""
    return cls.method("training") is not None
