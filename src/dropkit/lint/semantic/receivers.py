"""Which classes an object may be of whose attribute is read: `encoder.dropout(x)` where no assignment says what it is.

The name of the object decides, `encoder` may be a `TextEncoder`, and what else is read of it: a class without `head`
is not that of an object with `obj.head(x)`.
"""

from __future__ import annotations

import ast

from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.expressions import last_name, last_part, self_attribute
from dropkit.lint.semantic.identifiers import words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Names of objects that say nothing about their class.
_ANY = frozenset(
    {"model", "module", "net", "network", "m", "mod", "mdl", "layer", "block", "backbone", "base", "inner", "wrapped",
     "core", "body", "parent", "child", "sub", "submodule", "part", "component", "l", "obj", "instance", "super"}
)  # fmt: skip
# What every Module has, and so tells no class.
_OF_EVERY_MODULE = frozenset(
    {"training", "train", "eval", "to", "cuda", "cpu", "half", "float", "parameters", "named_parameters", "modules",
     "named_modules", "children", "named_children", "buffers", "state_dict", "load_state_dict", "apply", "zero_grad",
     "requires_grad_", "forward", "register_forward_hook", "config", "device", "dtype"}
)  # fmt: skip


def may_be_named(receiver: str, name: str) -> bool:
    """Whether an object of the name `receiver` may be of the class `name`.

    Example:
        >>> [may_be_named(receiver, "TextEncoder") for receiver in ("encoder", "self_enc", "model", "decoder")]
        [True, True, True, False]
    """
    words = [word.rstrip("s") for word in words_of(receiver).split() if not word.isdigit()]
    return not words or not _ANY.isdisjoint(words) or _shares_word(words, name)


def may_be(source: SourceFile, read: ast.Attribute, cls: ClassDefinition) -> bool:
    """Whether the object of `read`, whose class is unknown, may be of the class `cls`."""
    receiver = receiver_name(read)
    if not may_be_named(receiver, cls.name) and any(
        may_be_named(receiver, other.name) for other in source.classes if read.attr in other.writes
    ):
        return False
    others = _read_beside(source, read)
    has_all = all(_has(cls, attribute) for attribute in others)
    # Of an object of another name, only what else it has tells that it may be one.
    return has_all and (bool(others) or may_be_named(receiver, cls.name))


def receiver_name(read: ast.Attribute) -> str:
    """The last name of the object of `read`: "layers" for `self.layers[0].dropout`."""
    return last_name(read.value.value if isinstance(read.value, ast.Subscript) else read.value)


def annotated_class(source: SourceFile, value: ast.expr | None) -> str:
    """The simple name of the class that the annotation of a parameter says; empty if there is none."""
    if not isinstance(value, ast.Name):
        return ""
    annotations = [b.statement.annotation for b in source.bindings(value) if isinstance(b.statement, ast.arg)]
    if len(annotations) != 1 or annotations[0] is None:
        return ""
    text = annotations[0]
    name = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else last_name(text)
    return "" if last_part(name) in ("Module", "Any") else last_part(name)


def _shares_word(words: list[str], name: str) -> bool:
    """Whether a word, or an abbreviation of one ("attn" of "attention"), is in the name of a class."""
    return any(
        word and word[0] == part[0] and _is_in_order(word, part)
        for part in words_of(name).split()
        for word in words
    )


def _is_in_order(letters: str, word: str) -> bool:
    remaining = iter(word)
    return all(letter in remaining for letter in letters)


def _has(cls: ClassDefinition, attribute: str) -> bool:
    """Whether objects of a class may have an attribute; bases of other files may set any."""
    is_known = all(base.startswith("torch.nn.") or base == "object" for base in cls.external_bases)
    return not is_known or any(attribute in known.writes or attribute in known.methods for known in cls.mro)


def _read_beside(source: SourceFile, read: ast.Attribute) -> set[str]:
    """What else is read of the same object: in the class for an attribute of self, else in the function."""
    scope = source.owner(read) if self_attribute(read.value) is not None else source.function(read)
    return _reads_by_object(source).get((scope, ast.dump(read.value)), set()) - _OF_EVERY_MODULE - {read.attr}


@cached_per_file
def _reads_by_object(source: SourceFile) -> dict[tuple[object, str], set[str]]:
    """The attributes that are read of names and of attributes of self, by scope and expression."""
    reads: dict[tuple[object, str], set[str]] = {}
    for attribute, nodes in source.attributes.items():
        for node in nodes:
            is_own = self_attribute(node.value) is not None
            if is_own or (isinstance(node.value, ast.Name) and node.value.id != "self"):
                scope = source.owner(node) if is_own else source.function(node)
                reads.setdefault((scope, ast.dump(node.value)), set()).add(attribute)
    return reads
