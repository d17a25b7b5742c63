"""The training flag in source code: which names mean training or evaluation mode, and which code depends on the mode.

A dropout without a flag of its own may still follow the mode: a condition around it tests a flag, a statement before it
returns in evaluation, or its rate is zero in evaluation.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

from dropkit.lint.semantic.always_on import is_marked_always_on
from dropkit.lint.semantic.definitions import FUNCTIONS, Binding, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import is_off, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary, words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file, cached_per_list, exits

# Words for the mode, or for another switch that is set on purpose. The name of a flag contains one.
_MODES = (
    r"(?:is|in)?train(?:ing)?|train(?:ed|able|ing)?mode|train(?:ed|able)|(?:is|in)?eval|evalmode|evaluat(?:e|ing|ion)"
    r"|infer(?:ence|ring)?|predict(?:ing|ion)?|(?:is)?test|testing|sampl(?:e|ing)|determinis\w*|stochastic"
    r"|monte ?carlo|mc|always|switch|active"
)
_DROPS = r"drop(?:out|path)?s?"
# Words that may stand beside them. A name with any other word is no flag: `num_test_samples`, `active_experts`.
_OTHER_WORDS = (
    r"is|are|in|at|on|during|not|no|now|currently|do|does|use|using|set|should|for|force|forced|enable|enabled|apply|with"
    r"|keep|add|run|only|if|or|and|model|module|self|the|mode|flag|time|phase|stage|state|status|pass|val|validation|off"
)
_FLAG = pattern(
    rf"(?:(?:{_OTHER_WORDS}|{_DROPS}) )*(?:{_MODES})(?: (?:{_MODES}|{_OTHER_WORDS}|{_DROPS}))*"
    rf"|(?:(?:use|enable|apply|do|with) )?{_DROPS} (?:on|enabled|switch)|(?:use|enable|apply|do|with) {_DROPS}"
    r"|(?:n |num )?(?:mc|monte carlo) (?:samples?|passes|iterations)"
)
# Strings that name a mode, in a comparison: `phase == "train"`.
_MODE_STRING = pattern(rf"{_MODES}|val|valid|validation|validate|fit|training|prediction")
# Functions for one mode: `forward_train`, `predict_step`, `training_step`.
_ONE_MODE = Vocabulary(
    r"(?:is|in)?(?:train|training)|train(?:ed|able|mode|ing?mode)?|trainer|(?:is|in)?eval\w*|infer\w*|predict\w*|test"
    r"|testing|istest|sampl(?:e|ing)|phase|stage|determinis\w*|monte ?carlo|mc|always|switch|active|stochastic"
    r"|(?:use|enable|apply|do|with) ?(?:drop|dropout)s?|(?:drop|dropout) (?:on|switch)"
)
# A rate is no flag, whatever other words are in its name (`train_dropout_rate`).
_IS = (ast.Is, ast.IsNot)
_RATE = Vocabulary(r"\w*rates?|prob\w*|p$")


def is_flag(name: str) -> bool:
    """Whether a value of this name is a flag of the mode.

    Example:
        >>> is_flag("training"), is_flag("is_eval"), is_flag("dropout"), is_flag("train_dropout_rate")
        (True, True, False, False)
        >>> is_flag("constraint"), is_flag("num_test_samples"), is_flag("active_experts"), is_flag("stage")
        (False, False, False, False)
    """
    return _FLAG.fullmatch(words_of(name)) is not None and not _RATE.has(name)


def serves_one_mode(name: str) -> bool:
    """Whether the name of a function says that it runs in one mode only.

    Example:
        >>> serves_one_mode("forward_train"), serves_one_mode("predict_step"), serves_one_mode("forward")
        (True, True, False)
    """
    return _ONE_MODE.has(name) and not _RATE.has(name)


def flags(expression: ast.AST) -> Iterator[str]:
    """Yield the names of flags in `expression`, and strings that name a mode in its comparisons."""
    # `sample is not None` does not test the value.
    identities = (
        node for node in ast.walk(expression) if isinstance(node, ast.Compare) and isinstance(node.ops[0], _IS)
    )
    compared_with_none = {node.left for node in identities if literal(node.comparators[0]) is None}
    for node in ast.walk(expression):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name is not None and is_flag(name) and node not in compared_with_none:
            yield name
        elif isinstance(node, ast.Compare):
            yield from (text for text in _strings(node) if _MODE_STRING.fullmatch(words_of(text)))


def _strings(comparison: ast.Compare) -> Iterator[str]:
    for side in (comparison.left, *comparison.comparators):
        for element in side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]:
            if isinstance(element, ast.Constant) and isinstance(element.value, str):
                yield element.value


@cached_per_file
def mentions_mode(source: SourceFile, expression: ast.AST) -> bool:
    """Whether a flag of the mode is in `expression`."""
    return next(flags(expression), None) is not None


def under_mode(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` runs in its function under a condition on the mode: in a branch, or after a conditional exit."""

    def step(node: ast.AST, parent: ast.AST) -> bool | None:
        if node in _after_tests(source, parent) or any(_tests_mode(source, test) for test in _conditions(node, parent)):
            return True
        return False if isinstance(parent, FUNCTIONS) else None

    return bool(source.search_ancestors(node, step, under_mode))


@cached_per_file
def follows_mode(source: SourceFile, expression: ast.expr) -> bool:
    """Whether the value of `expression` depends on the mode: through a flag, or a local name that is set by one."""
    return mentions_mode(source, expression) or any(
        _are_set_by_mode(source, source.bindings(name)) for name in ast.walk(expression) if isinstance(name, ast.Name)
    )


def depends_on_mode(source: SourceFile, node: ast.AST, p: ast.expr | None = None) -> bool:
    """Whether the mode decides if `node` drops: by a condition around it or around all calls of its method.

    The rate `p` may decide, too: it depends on the mode, or is a literal zero.
    """
    is_gated_rate = p is not None and (is_off(p) or follows_mode(source, p))
    return is_gated_rate or under_mode(source, node) or called_under_mode(source, node)


def is_in_one_mode_method(source: SourceFile, node: ast.AST) -> bool:
    """Whether the name of the method around `node` says that it runs in one mode only."""
    function = source.function(node)
    return function is not None and serves_one_mode(function.method.name)


@cached_per_file
def readers_of_training(source: SourceFile) -> set[FunctionDefinition]:
    """The methods that read `training` of any object."""
    functions = [source.function(node) for node in source.attributes.get("training", [])]
    return {function.method for function in functions if function is not None}


@cached_per_file
def called_under_mode(source: SourceFile, node: ast.AST) -> bool:
    """Whether the method around `node` is called in its class, and only under conditions on the mode."""
    function, owner = source.function(node), source.owner(node)
    return function is not None and owner is not None and _is_called_under_mode(source, owner, function.method.name)


@cached_per_file
def _is_called_under_mode(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    calls = owner.own_calls.get(name, [])
    return bool(calls) and all(under_mode(source, call) for call in calls)


@cached_per_file
def runs_in_both_modes(source: SourceFile, helper: str) -> bool:
    """Whether a function is called, and by Modules only, none of which asks for the mode before it calls."""
    calls = [call for call in source.calls.get(helper, []) if isinstance(call.func, ast.Name)]
    if not calls or any(source.module(call) is None for call in calls):
        return False
    return not any(
        under_mode(source, call) or follows_mode(source, call) or is_marked_always_on(source, call) for call in calls
    )


@cached_per_file
def owners_of_gated(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes with a functional dropout that `self.training` switches."""
    dropouts = dropout_calls(source, DropoutForm.FUNCTION)
    return {source.owner(dropout.call) for dropout in dropouts if self_attribute(dropout.training) == "training"}


@cached_per_file
def _tests_mode(source: SourceFile, test: ast.expr) -> bool:
    """Whether a condition names a flag, or a local name in it is set to one."""
    if mentions_mode(source, test):
        return True
    values = (source.value(name) for name in ast.walk(test) if isinstance(name, ast.Name))
    return any(value is not None and mentions_mode(source, value) for value in values)


@cached_per_list
def _are_set_by_mode(source: SourceFile, bindings: list[Binding]) -> bool:
    """Whether a local name is set to a flag, or under a condition on the mode."""
    return any(
        (binding.value is not None and mentions_mode(source, binding.value))
        or (isinstance(binding.statement, ast.stmt) and under_mode(source, binding.statement))
        for binding in bindings
    )


def _conditions(node: ast.AST, parent: ast.AST) -> list[ast.expr]:
    """The conditions of `parent` under which its part `node` runs."""
    if isinstance(parent, (ast.If, ast.While, ast.IfExp)) and node is not parent.test:
        return [parent.test]
    if isinstance(parent, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        return [test for generator in parent.generators for test in generator.ifs]
    return []


def _exits_by_mode(source: SourceFile, statement: ast.stmt) -> bool:
    """Whether a statement leaves the block depending on the mode: an `if` that may exit, or an assertion of a flag."""
    if isinstance(statement, ast.If) and (exits(statement.body) or exits(statement.orelse)):
        return _tests_mode(source, statement.test)
    if not isinstance(statement, ast.Assert):
        return False
    test = statement.test
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    bare = [part.operand if isinstance(part, ast.UnaryOp) else part for part in parts]
    return any(isinstance(part, (ast.Name, ast.Attribute)) and _tests_mode(source, part) for part in bare)


@cached_per_file
def _after_tests(source: SourceFile, parent: ast.AST) -> set[ast.AST]:
    """The parts of `parent` that run only depending on an earlier part that tests the mode."""
    if isinstance(parent, ast.BoolOp):
        return _after_first(parent.values, partial(_tests_mode, source))
    parts: set[ast.AST] = set()
    for name in ("body", "orelse", "finalbody"):
        block: Any = getattr(parent, name, None)
        if isinstance(block, list):
            parts |= _after_first(cast("list[ast.stmt]", block), partial(_exits_by_mode, source))
    return parts


def _after_first(parts: Sequence[ast.AST], decides: Callable[[Any], bool]) -> set[ast.AST]:
    first = next((index for index, part in enumerate(parts) if decides(part)), len(parts))
    return set(parts[first + 1 :])
