"""Which classes an object may be of whose attribute is read: `encoder.dropout(x)` where no assignment says what it is.

The name of the object decides, `encoder` may be a `TextEncoder`, and what else is read of it: a class without `head`
is not that of an object with `obj.head(x)`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from dropkit.catalog import FUNCTIONALS
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_names import is_layer_class, is_rate_name
from dropkit.lint.semantic.expressions import last_name, last_part, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary, words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
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


# Names of objects that hold settings: their attributes are not layers.
_SETTINGS = Vocabulary(
    r"\w*confs?|\w*configs?|configuration|cfgs?|\w*args?|arguments?|opts?|options?|\w*params?|parameters|hps?"
    r"|settings?|kws?|kwargs|specs?|prune\w*|flags"
)
# Names of models that are trained and evaluated.
_MODEL = pattern(
    r"(^|_)(model|net|network|classifier|module|cnn|mlp|rnn|lstm|gru|transformer|bert|clf)(_|$|\d)|[nN]et$|Model$"
)


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads of an attribute through other objects than self: their classes, by simple name, and those of no known."""

    classes: frozenset[str]
    unknown: list[ast.Attribute]


@cached_per_file
def reads_of_objects(source: SourceFile, attribute: str, as_layer: bool) -> Reads | None:
    """The reads of an attribute of this name; None if anything may be read."""
    classes: set[str] = set()
    unknown: list[ast.Attribute] = []
    for node in source.attributes.get(attribute, []):
        if isinstance(node.ctx, ast.Del):
            return None
        if isinstance(node.ctx, ast.Store) or (_only_measures(source, node) if as_layer else False):
            continue
        if self_attribute(node) is not None:
            # In a method of another class it is that class's own; in a function it is anyone's.
            if source.owner(node) is None:
                return None
            continue
        last = last_name(node.value) if not isinstance(node.value, ast.Call) else ""
        if source.dotted(node) is not None or is_settings_name(last):
            continue
        values = source.latest_values(node.value)
        names = {_class_name(source, value) for value in values or [node.value]}
        if any(not name[:1].isupper() for name in names):
            unknown.append(node)
        classes |= names
    return Reads(frozenset(classes), unknown) if len(unknown) <= MOST else None


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


def is_model_name(name: str) -> bool:
    """Whether a name is one of a model.

    Example:
        >>> [is_model_name(name) for name in ("model", "self_net", "ResNet", "BertModel", "loader")]
        [True, True, True, True, False]
    """
    return _MODEL.search(name) is not None


def is_settings_name(name: str) -> bool:
    """Whether an object of this name holds settings."""
    return _SETTINGS.has(name)


def _class_name(source: SourceFile, value: ast.expr | None) -> str:
    """The simple name of the class of a value; empty if it is unknown."""
    return last_part(source.called(value) or "") or _annotated_class(source, value)


def _only_measures(source: SourceFile, node: ast.Attribute) -> bool:
    """Whether a read is of a rate, not of a layer that is applied: `nn.Dropout(o.dropout)`, `o.dropout.p`, a test."""
    above = source.parent(node)
    match above:
        case ast.Compare() | ast.BinOp() | ast.UnaryOp() | ast.FormattedValue():
            return True
        case ast.Attribute(attr=name):
            return name in ("p", "inplace", "rate", "drop_prob")
        case ast.keyword(arg=str(name)):
            return name == "p" or is_rate_name(name)
        case ast.Call() if above.func is not node:
            name = source.last_name(above)
            is_function = (source.called(above) or "") in FUNCTIONALS and above.args[0] is not node
            return is_function or is_layer_class(name) or name in ("print", "float", "isinstance", "hasattr", "repr")
        case ast.If() | ast.IfExp():
            return above.test is node
        case _:
            return False


def _annotated_class(source: SourceFile, value: ast.expr | None) -> str:
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
        word and word[0] == part[0] and _is_in_order(word, part) for part in words_of(name).split() for word in words
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
