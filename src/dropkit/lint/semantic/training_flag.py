"""Training and evaluation: what in source code is a flag of the mode, and what stands under one.

A dropout may be right though its own call says nothing of the mode: the branch it stands in asks, an early return
did, or the rate itself is zero in evaluation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from dropkit.lint.semantic.definitions import FUNCTIONS, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import is_off
from dropkit.lint.semantic.identifiers import Vocabulary, spoken
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noqa import comments
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Words for the mode, or for a switch of its own that someone sets on purpose: one must be in the name of a flag.
_MODES = (
    r"(?:is|in)?train(?:ing)?|train(?:ed|able|ing)?mode|train(?:ed|able)|(?:is|in)?eval|evalmode|evaluat(?:e|ing|ion)"
    r"|infer(?:ence|ring)?|predict(?:ing|ion)?|(?:is)?test|testing|sampl(?:e|ing)|determinis\w*|stochastic"
    r"|monte ?carlo|mc|always|switch|active"
)
_DROPS = r"drop(?:out|path)?s?"
# Words that may stand beside them. What has any other is about something else: `num_test_samples`, `active_experts`.
_BESIDE = (
    r"is|are|in|at|on|during|not|no|now|currently|do|does|use|using|set|should|for|force|forced|enable|enabled|apply|with"
    r"|keep|add|run|only|if|or|and|model|module|self|the|mode|flag|time|phase|stage|state|status|pass|val|validation|off"
)
_FLAG = re.compile(
    rf"(?:(?:{_BESIDE}|{_DROPS}) )*(?:{_MODES})(?: (?:{_MODES}|{_BESIDE}|{_DROPS}))*"
    rf"|(?:(?:use|enable|apply|do|with) )?{_DROPS} (?:on|enabled|switch)|(?:use|enable|apply|do|with) {_DROPS}"
    r"|(?:n |num )?(?:mc|monte carlo) (?:samples?|passes|iterations)"
)
# What strings that name a mode say, in a comparison: `phase == "train"`.
_MODE_STRING = re.compile(rf"{_MODES}|val|valid|validation|validate|fit|training|prediction")
# Functions for one mode: `forward_train`, `predict_step`, `training_step`.
_SERVES = Vocabulary(
    r"(?:is|in)?(?:train|training)|train(?:ed|able|mode|ing?mode)?|trainer|(?:is|in)?eval\w*|infer\w*|predict\w*|test"
    r"|testing|istest|sampl(?:e|ing)|phase|stage|determinis\w*|monte ?carlo|mc|always|switch|active|stochastic"
    r"|(?:use|enable|apply|do|with) ?(?:drop|dropout)s?|(?:drop|dropout) (?:on|switch)"
)
# A rate is no flag, whatever else its name says (`train_dropout_rate`).
_RATE = Vocabulary(r"\w*rates?|prob\w*|p$")


def is_flag(name: str) -> bool:
    """Whether a name of a value speaks of the mode, and of nothing else.

    Example:
        >>> is_flag("training"), is_flag("is_eval"), is_flag("dropout"), is_flag("train_dropout_rate")
        (True, True, False, False)
        >>> is_flag("constraint"), is_flag("num_test_samples"), is_flag("active_experts"), is_flag("stage")
        (False, False, False, False)
    """
    return _FLAG.fullmatch(spoken(name)) is not None and not _RATE.has(name)


def serves_one_mode(name: str) -> bool:
    """Whether a function's name says which mode it is for.

    Example:
        >>> serves_one_mode("forward_train"), serves_one_mode("predict_step"), serves_one_mode("forward")
        (True, True, False)
    """
    return _SERVES.has(name) and not _RATE.has(name)


def flags(expression: ast.AST) -> Iterator[str]:
    """The names in `expression` that speak of the mode, and the strings that something is compared with."""
    asked_for_none = {node.left for node in ast.walk(expression) if isinstance(node, ast.Compare) and _is_none(node)}
    for node in ast.walk(expression):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name is not None and is_flag(name) and node not in asked_for_none:
            yield name
        elif isinstance(node, ast.Compare):
            yield from (one for one in _strings(node) if _MODE_STRING.fullmatch(spoken(one)))


def _is_none(comparison: ast.Compare) -> bool:
    """`sample is not None`: whether there is one, not which it is."""
    other = comparison.comparators[0]
    return (
        isinstance(comparison.ops[0], (ast.Is, ast.IsNot)) and isinstance(other, ast.Constant) and other.value is None
    )


def _strings(comparison: ast.Compare) -> Iterator[str]:
    for side in (comparison.left, *comparison.comparators):
        for one in side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]:
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                yield one.value


@cached_per_file
def mentions_mode(source: SourceFile, expression: ast.AST) -> bool:
    """Whether anything in `expression` speaks of the mode."""
    return next(flags(expression), None) is not None


def under_mode(source: SourceFile, node: ast.AST) -> bool:
    """Whether a condition on the way to `node` in its function speaks of the mode: a branch, or an exit before it.

    In its own words or those of a local name.
    """

    def step(below: ast.AST, above: ast.AST) -> bool | None:
        if below in _behind_asking(source, above):
            return True
        if any(_asks(source, test) for test in _conditions(below, above)):
            return True
        return False if isinstance(above, FUNCTIONS) else None

    return bool(source.search_ancestors(node, step, under_mode))


@cached_per_file
def follows_mode(source: SourceFile, expression: ast.expr) -> bool:
    """Whether the value of `expression` depends on the mode: itself, or the local name that it is, one step back."""
    return mentions_mode(source, expression) or any(
        _is_set_by_mode(source, name) for name in ast.walk(expression) if isinstance(name, ast.Name)
    )


def depends_on_mode(source: SourceFile, node: ast.AST, p: ast.expr | None = None) -> bool:
    """Whether the mode decides that `node` drops: by a condition on it, around it or around all calls of its method.

    Or by the rate `p`, which is set by the mode, or is a literal zero and never drops.
    """
    is_gated_rate = p is not None and (is_off(p) or follows_mode(source, p))
    return is_gated_rate or under_mode(source, node) or called_under_mode(source, node)


def is_in_one_mode_method(source: SourceFile, node: ast.AST) -> bool:
    """Whether the method around `node` is named after one mode: `forward_train`, `predict_step`."""
    function = source.function(node)
    return function is not None and serves_one_mode(function.method.name)


@cached_per_file
def called_under_mode(source: SourceFile, node: ast.AST) -> bool:
    """Whether every call of the method around `node` in its class stands under a condition on the mode."""
    function, owner = source.function(node), source.owner(node)
    return function is not None and owner is not None and _is_called_under_mode(source, owner, function.method.name)


@cached_per_file
def _is_called_under_mode(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    calls = owner.own_calls.get(name, [])
    return bool(calls) and all(under_mode(source, call) for call in calls)


@cached_per_file
def _asks(source: SourceFile, test: ast.expr) -> bool:
    """Whether a condition speaks of the mode, itself or in what a local name in it was set to."""
    if mentions_mode(source, test):
        return True
    values = (source.value(name) for name in ast.walk(test) if isinstance(name, ast.Name))
    return any(value is not None and mentions_mode(source, value) for value in values)


def _is_set_by_mode(source: SourceFile, name: ast.Name) -> bool:
    """Whether a local name is set to what speaks of the mode, or under a condition that does."""
    bindings, known = source.bindings(name), source.cache(_is_set_by_mode)
    if id(bindings) not in known:
        known[id(bindings)] = any(
            (one.value is not None and mentions_mode(source, one.value))
            or (isinstance(one.statement, ast.stmt) and under_mode(source, one.statement))
            for one in bindings
        )
    return known[id(bindings)]


def _conditions(below: ast.AST, above: ast.AST) -> list[ast.expr]:
    """What `above` asks before it comes to `below`, by its form alone."""
    if isinstance(above, (ast.If, ast.While, ast.IfExp)) and below is not above.test:
        return [above.test]
    if isinstance(above, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        return [test for generator in above.generators for test in generator.ifs]
    return []


def _exits_by_mode(source: SourceFile, statement: ast.stmt) -> bool:
    """Whether a statement may leave the block by the mode: an `if` of which an arm does, or an assertion of a flag.

    Another assertion asks whether all is well, whatever else is named in it.
    """
    if isinstance(statement, ast.If) and (_leaves(statement.body) or _leaves(statement.orelse)):
        return _asks(source, statement.test)
    if not isinstance(statement, ast.Assert):
        return False
    test = statement.test
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    bare = [part.operand if isinstance(part, ast.UnaryOp) else part for part in parts]
    return any(isinstance(part, (ast.Name, ast.Attribute)) and _asks(source, part) for part in bare)


@cached_per_file
def _behind_asking(source: SourceFile, above: ast.AST) -> set[ast.AST]:
    """The parts of `above` that come behind one which speaks of the mode and may end the whole before them."""
    if isinstance(above, ast.BoolOp):
        return _behind(above.values, {one for one in above.values if _asks(source, one)})
    found: set[ast.AST] = set()
    for name in ("body", "orelse", "finalbody"):
        block: Any = getattr(above, name, None)
        if isinstance(block, list):
            asking = {one for one in cast("list[ast.stmt]", block) if _exits_by_mode(source, one)}
            found |= _behind(cast("list[ast.stmt]", block), asking)
    return found


def _behind(parts: Sequence[ast.AST], those: Container[ast.AST]) -> set[ast.AST]:
    first = next((index for index, one in enumerate(parts) if one in those), len(parts))
    return set(parts[first + 1 :])


# Whoever names a class or function so wants dropout at prediction time: Monte Carlo dropout, Tacotron's pre-net.
_ALWAYS_ON = Vocabulary(r"mc ?drop(?:out)?|monte ?carlo|pre ?net|always ?on|always drop(?:out)?")
_DROP = r"drop[ _-]?(?:outs?|path|connect|block)"
_ON = r"(?:on|active|enabled)"
_DONE = r"(?:on|active|activated|enabled|applied|used|kept|done|performed)"
_DOING = r"(?:on|active|enabled|appl(?:y|ies|ying)|us(?:es?|ing)|keeps?|enables?|performs?|do|does)"
# A sentence that speaks of dropout and says that it stays on, or that it is as it is for a reason.
_SPEAKS = re.compile(_DROP, re.IGNORECASE)
_INTENT = re.compile(
    rf"{_DROP} (?:\w+ )?(?:stays?|remains?|kept) {_ON}\b|\b(?:keeps?|leaves?) (?:the )?{_DROP} {_ON}\b"
    rf"|{_DROP}[^,]{{0,24}}\balways\b.{{0,12}}\b{_DONE}\b|\balways[ -]{_DOING} (?:(?:the|this|its|some|a) )?{_DROP}"
    rf"|\bmonte.?carlo[ -](?:\(mc\)[ -])?{_DROP}|\bmc[ _-]?{_DROP}"
    r"|\bon purpose\b|\b(?:intentional|deliberate)|\bby design\b"
    r"|\b(?:also|even) (?:at|during|in) (?:eval|infer|test|predict)",
    re.IGNORECASE,
)
_BUG = re.compile(r"\b(?:bug\w*|fix|fixme|todo|xxx|wrong\w*|mistake\w*|broken)\b|\?", re.IGNORECASE)
_DENIAL = re.compile(
    r"\b(?:not(?! (?:only|just)\b)|never|no(?! matter\b)|nor|neither|none|cannot|without|off|inactive"
    r"|disabl\w*|deactivat\w*|only (?:in|at|during|while|when|for) train\w*)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n\s*\n")
_MARKER = re.compile(r"#\s*dropkit:\s*always-on", re.IGNORECASE)


def named_on_purpose(name: str) -> bool:
    """Whether a class or function of this name is one whose dropout is known to stay on in evaluation.

    Example:
        >>> [named_on_purpose(name) for name in ("MCDropout", "monte_carlo_forward", "Prenet", "Denoiser", "AlwaysX")]
        [True, True, True, False, False]
    """
    return _ALWAYS_ON.has(name)


def on_purpose(source: SourceFile, node: ast.AST) -> bool:
    """Whether a marker or a setting says that dropout which stays on is wanted here."""
    if any(_is_marked(source, one) for one in _around(source, source.function(node))):
        return True
    lines = _lines_beside(source, node)
    return any(_MARKER.search(_comment(source, number)) for number in lines) or marked_file(source)


@cached_per_file
def named_around(source: SourceFile, node: ast.AST) -> bool:
    """Whether words say that dropout is to stay on here, which only a reader can be sure of.

    They are the name of a function or class around `node`, or of a base of one; a docstring of theirs; a comment
    beside `node`.
    """
    around = _around(source, source.function(node))
    bases = (base for one in around if isinstance(one, ClassDefinition) for base in one.bases if base is not None)
    names = [*(one.name for one in around), *(base.rsplit(".", 1)[-1] for base in bases)]
    return (
        any(named_on_purpose(name) for name in names)
        or any(_is_documented_so(source, one) for one in around)
        or any(_is_commented_so(source, number) for number in _lines_beside(source, node))
    )


@cached_per_file
def _around(_: SourceFile, function: FunctionDefinition | None) -> list[ClassDefinition | FunctionDefinition]:
    """A function, those around it, and the classes whose methods they are, with their bases."""
    around: list[ClassDefinition | FunctionDefinition] = []
    while function is not None:
        around += [function, *(function.owner.mro if function.owner is not None else ())]
        function = function.within
    return around


@cached_per_file
def _is_marked(source: SourceFile, one: ClassDefinition | FunctionDefinition) -> bool:
    """Whether the marker stands on the line of a class, or a setting names it, a base of it or a function."""
    names = [one.name]
    if isinstance(one, ClassDefinition):
        names += [base.rsplit(".", 1)[-1] for base in one.bases if base is not None]
        if _MARKER.search(_comment(source, one.node.lineno)):
            return True
    return any(fnmatchcase(name, pattern) for name in names for pattern in source.always_on)


@cached_per_file
def _is_documented_so(_: SourceFile, one: ClassDefinition | FunctionDefinition) -> bool:
    documented = None if isinstance(one.node, ast.Lambda) else ast.get_docstring(one.node, clean=False)
    return _states_intent(documented or "")


@cached_per_file
def _is_commented_so(source: SourceFile, number: int) -> bool:
    comment = _comment(source, number).replace("#", "")
    return _BUG.search(comment) is None and _states_intent(comment)


def _states_intent(prose: str) -> bool:
    """Whether a sentence says that dropout is to stay on: no word of it denies that, or calls it a mistake.

    Example:
        >>> [_states_intent(prose) for prose in ("Dropout is always on.", "MC dropout", "No dropout on purpose")]
        [True, True, False]
        >>> _states_intent("The norm is always applied. Dropout follows.")
        False
    """
    sentences = (" ".join(one.split()) for one in _SENTENCE.split(prose))
    return any(
        _SPEAKS.search(one) and _INTENT.search(one) and not _DENIAL.search(one) and not _BUG.search(one)
        for one in sentences
    )


def _lines_beside(source: SourceFile, node: ast.AST) -> set[int]:
    """The lines whose comments are about `node`: its first and last, and the last one of a comment above."""
    begin = getattr(node, "lineno", 1)
    beside = {begin, getattr(node, "end_lineno", None) or begin}
    return beside | {above - 1 for above in (begin, source.statement(node).lineno) if _stands_alone(source, above - 1)}


@cached_per_file
def _comments(source: SourceFile) -> Mapping[int, str]:
    return comments(source.text)


@cached_per_file
def _stands_alone(source: SourceFile, number: int) -> bool:
    """Whether a line is a comment and nothing else."""
    return number in _comments(source) and source.text.line(number).lstrip(" \t\f").startswith("#")


@cached_per_file
def _comment(source: SourceFile, number: int) -> str:
    """The comment on a line, with all of its lines where it has several of its own."""
    last = number
    while _stands_alone(source, number) and _stands_alone(source, number - 1):
        number -= 1
    return "\n".join(_comments(source).get(one, "") for one in range(number, last + 1))


@cached_per_file
def marked_file(source: SourceFile) -> bool:
    """Whether the marker stands on a line of its own at the head of the file, before its first statement."""
    body = source.tree.body
    documented = bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    first = body[documented].lineno if len(body) > documented else len(source.text.starts) + 1
    return any(_MARKER.search(comment) for number, comment in _comments(source).items() if number < first)


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))
