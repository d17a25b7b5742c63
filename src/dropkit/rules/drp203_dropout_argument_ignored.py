"""A dropout rate that a constructor takes and never applies.

A module built with `dropout=0.5` never drops: there is no error and no warning, and a sweep over the rate compares
noise. Build the dropout that the argument promises, or remove the argument.

Arguments that only fill a common signature are not reported: those that a base or a sibling takes too, those of one of
several classes that a condition or a table chooses from, unused `**kwargs` beside them, names that begin with an
underscore, and those that a comment calls unused.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from dropkit.diagnostics import CrossFileCondition, FactCondition, Severity
from dropkit.lint.semantic.alternatives import alternative_classes
from dropkit.lint.semantic.attribute_usage import (
    is_abstract,
    is_admitted,
    is_container,
    is_empty,
    is_used,
    may_be_read,
)
from dropkit.lint.semantic.bases import keepers, saves_hyperparameters, unplain_bases
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition, Write
from dropkit.lint.semantic.expressions import last_name, last_part
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.rate_arguments import argument_for_defaults, rate_arguments
from dropkit.lint.semantic.stored_settings import is_commented_out, unread_settings
from dropkit.lint.semantic.syntax_tree import cached_per_file, end, start
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, if_short
from dropkit.trace import Trace

_ADMITTED = (
    r"unused|not\s+(?:yet\s+)?(?:used|supported|implemented|applied)|ignored|deprecat|compat|placeholder"
    r"|no effect|dummy"
)
# Text before a name that is a base of a class, or a class in a test.
_OTHER_USE = re.compile(r"(?:super|isinstance|issubclass)\s*\([^()]*$|\bclass\s[^\n]*$")
# Decorators that keep the arguments of a constructor, or say that it is not to be called.
_KEEPS = re.compile(r"register|config|hparam|abstract|overload|kwargs|regist", re.IGNORECASE)
_STAND_INS = Vocabulary(
    r"dummy|identity|null|noop|no op|stub|fake|mock|abstract|interface|base|mixin|export|exportable|empty"
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        constructor = owner.methods.get("__init__")
        if constructor is None:
            continue
        rates = rate_arguments(source, owner)
        settings = unread_settings(source, owner) if owner.is_module else []
        if (rates or settings) and _makes_layers(source, owner) and not _excused(source, owner, constructor):
            for rate in rates:
                yield from _judge(source, owner, constructor, rate)
            for write in settings:
                yield from _judge_write(source, owner, write)


def _judge(
    source: SourceFile, owner: ClassDefinition, constructor: FunctionDefinition, rate: ast.arg
) -> Iterator[Violation]:
    uses = [use for use in _uses(source, constructor, rate.arg) if not _only_checks(source, use)]
    # The assignment to `self` that is the only use of the argument.
    write = _stores(source, owner).get(_whole(source, uses[0])) if len(uses) == 1 else None
    if (
        (uses and (write is None or is_used(source, owner, write.attribute)))
        # A comment or docstring says that the argument is not used, or shows a use that was taken out.
        or is_admitted(source, rate)
        or rate.arg.lower() in _admitted(source, owner)
        or is_commented_out(source, owner, rate.arg)
        or _fills_a_signature(source, owner, rate.arg)
        # DRP309 reports the layer that should have it.
        or rate is argument_for_defaults(source, owner)
        or owner.name in alternative_classes(source)
        or _is_kept(source, owner, constructor, rate.arg)
    ):
        return
    if write is None:
        saved = (f"reads:{rate.arg}",) if saves_hyperparameters(source, owner) else ()
        given = FactCondition(refuted_by=(f"alternative:{owner.name}", *saved))
        bases = unplain_bases(source, owner)
        unless = CrossFileCondition(owner.name, "", rate.arg, bases) if bases else None
        yield Violation(rate, if_short(f"argument {rate.arg} is never read"), unless=unless, given=given)
    else:
        yield from _judge_write(source, owner, write, rate.arg)


def _judge_write(source: SourceFile, owner: ClassDefinition, write: Write, argument: str = "") -> Iterator[Violation]:
    """The attribute that only stores a rate, unless something may read it."""
    if not is_admitted(source, write.statement) and not may_be_read(source, owner, write.attribute, as_layer=False):
        message = if_short(f"self.{write.attribute} is set and never read")
        unless = CrossFileCondition(owner.name, write.attribute, argument, unplain_bases(source, owner))
        # Code may read the rate of a trainer or builder, of which nothing else is known.
        read = () if owner.is_module else (f"reads:{write.attribute}",)
        given = FactCondition(refuted_by=(f"alternative:{owner.name}", *read)) if argument or read else None
        yield Violation(write.statement, message, unless=unless, given=given)


def _only_checks(source: SourceFile, use: ast.Name) -> bool:
    """Whether a use only validates the rate: `assert 0 <= dropout <= 1`, `if dropout > 1: raise ...`."""
    for parent in source.parents(use):
        match parent:
            case ast.Assert() | ast.Raise():
                return True
            case ast.If(test=test, body=body, orelse=[]) if test.lineno <= use.lineno <= (test.end_lineno or 0):
                return isinstance(body[-1], ast.Raise)
            case ast.stmt():
                return False
            case _:
                pass
    return False


def _whole(source: SourceFile, use: ast.expr) -> ast.expr:
    """The expression with the same number: `float(dropout)` for `dropout`."""
    match source.parent(use):
        case ast.Call(func=ast.Name(id="float"), args=[inner]) as call if inner is use:
            return call
        case _:
            return use


def _excused(source: SourceFile, owner: ClassDefinition, constructor: FunctionDefinition) -> bool:
    arguments = constructor.node.args
    # Unused *args or **kwargs: the constructor ignores arguments on purpose.
    variadic = [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return (
        any(_KEEPS.search(last_name(decorator)) for decorator in constructor.decorators)
        or is_empty(constructor.body)
        or _STAND_INS.has(owner.name)
        or is_container(owner)
        or (owner.is_module and is_abstract(source, owner))
        or "" in unplain_bases(source, owner)
        or (bool(variadic) and not any(_uses(source, constructor, name) for name in variadic))
        or (not saves_hyperparameters(source, owner) and not keepers(source).isdisjoint(owner.mro))
    )


@cached_per_file
def _makes_layers(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether a class is a Module, or one without bases that makes layers: a builder, a trainer with its model."""
    if owner.is_module or owner.external_bases or owner.node.bases or owner.node.decorator_list:
        return owner.is_module
    return any(
        made.is_module if (made := source.local_class(call.func)) is not None else _is_layer(source.called(call))
        for method in owner.methods.values()
        for call in ast.walk(method.node)
        if isinstance(call, ast.Call)
    )


def _is_layer(name: str | None) -> bool:
    return name is not None and name.startswith("torch.nn.") and last_part(name)[:1].isupper()


def _is_kept(source: SourceFile, owner: ClassDefinition, constructor: FunctionDefinition, name: str) -> bool:
    """Whether a decorator or `save_hyperparameters` keeps an argument where something may read it."""
    if any(name in source.text.of(decorator) for decorator in constructor.decorators):
        return True
    is_saved = saves_hyperparameters(source, owner)
    if (constructor.decorators or is_saved) and any(
        may_be_read(source, owner, kept, as_layer=False) for kept in (name, f"_{name}")
    ):
        return True
    saved = [read for cls in owner.mro for read in cls.reads.get("hparams", [])]
    others = (node for node in source.attributes.get("hparams", []) if node not in saved)
    return is_saved and (
        any(_may_read(source, read, name) for read in saved) or any(isinstance(node.ctx, ast.Load) for node in others)
    )


def _may_read(source: SourceFile, read: ast.Attribute, name: str) -> bool:
    """Whether `self.hparams` is passed on, or an item of this name is read."""
    match source.parent(read):
        case ast.Attribute(attr=item) | ast.Subscript(slice=ast.Constant(value=item)):
            return item in (name, "get", "items", "values", "copy")
        case _:
            return True


def _uses(source: SourceFile, constructor: FunctionDefinition, name: str) -> list[ast.Name]:
    """The uses of a name in the body of a constructor."""
    return source.names_between(name, start(constructor.body[0]), end(constructor.node))


@cached_per_file
def _stores(_: SourceFile, owner: ClassDefinition) -> dict[ast.expr | None, Write]:
    """The attributes that are set once, by what they are set to."""
    once = [writes[0] for writes in reversed(owner.writes.values()) if len(writes) == 1 and not writes[0].derived]
    return {write.value: write for write in once}


@cached_per_file
def _admitted(source: SourceFile, owner: ClassDefinition) -> set[str]:
    """The words of a class that stand before "unused" and the like, on the same line or the line above."""
    words: set[str] = set()
    above = ""
    for line in source.text.of(owner.node).lower().split("\n"):
        places = [match.start() for match in re.finditer(_ADMITTED, line)]
        if places:
            words.update(re.findall(r"\w+", line[: places[-1]]))
            if ":" not in line[: places[0]]:
                words.update(re.findall(r"\w+", above))
        above = line
    return words


def _fills_a_signature(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    """Whether a base, a sibling of the same base, or a class that stands for the same slot takes the argument too."""
    takers, slots = _takers(source)[name], _slots_of_takers(source, name)
    return (
        len(owner.subclasses) > MOST
        or any(cls in takers for cls in (*owner.mro[1:], *owner.subclasses))
        or any(slots[slot] > 1 for slot in _slots(source, owner))
    )


@cached_per_file
def _takers(source: SourceFile) -> dict[str, dict[ClassDefinition, None]]:
    """By the name of an argument, the classes whose constructors take it."""
    takers: dict[str, dict[ClassDefinition, None]] = {}
    for cls in source.classes:
        constructor = cls.methods.get("__init__")
        for parameter in constructor.parameters if constructor is not None else ():
            takers.setdefault(parameter.arg, {})[cls] = None
    return takers


@cached_per_file
def _slots_of_takers(source: SourceFile, name: str) -> Counter[str]:
    """The number of classes with such an argument that have each slot."""
    return Counter(slot for cls in _takers(source)[name] for slot in _slots(source, cls))


def _slots(source: SourceFile, owner: ClassDefinition) -> set[str]:
    """The bases that make siblings of two classes; and "", if the class is used as a value."""
    bases = {base for base in owner.bases if base and last_part(base) not in ("Module", "object")}
    return bases | {""} if owner.name in _values(source) else bases


@cached_per_file
def _values(source: SourceFile) -> set[str]:
    """The names that are used as values: in a table, as an argument, in an assignment."""
    text = source.text.utf8.decode()
    matches = re.finditer(r"(?:[=:,(\[]|\breturn)\s*(\w+)\s*(?=[,)\]}\n])", text)
    return {name[1] for name in matches if not _OTHER_USE.search(text[max(name.start() - 159, 0) : name.start() + 1])}


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for name, attribute, value in trace.unused_rates:
        yield TraceViolation(name, f"holds {attribute}={value:g}, and nothing in it drops")


RULE = Rule(
    code="DRP203",
    name="dropout-argument-ignored",
    message="dropout rate is taken but never applied",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout=0.5):  # DRP203
        super().__init__()
        self.hidden = nn.Linear(width, width)
+        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 2)

    def forward(self, x):
-        return self.output(torch.relu(self.hidden(x)))
+        return self.output(self.dropout(torch.relu(self.hidden(x))))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
            unseen="an argument that was not kept leaves no trace",
        ),
        Example(
            """
import torch
+import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.dropout = dropout  # DRP203
        self.output = nn.Linear(width, 2)

    def forward(self, x):
-        return self.output(torch.relu(x))
+        return self.output(F.dropout(torch.relu(x), self.dropout, training=self.training))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
        ),
    ),
)
