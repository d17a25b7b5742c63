"""Dropout that stays on in evaluation by design: by a marker, by the settings, or by what names and comments say."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePath

from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_names import mentions_dropout
from dropkit.lint.semantic.expressions import last_part, names_in
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noqa import comments
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Names of classes and functions with dropout in evaluation: Monte Carlo dropout, Tacotron's pre-net.
_ALWAYS_ON = Vocabulary(r"mc ?drop(?:out)?|monte ?carlo|pre ?net|always ?on|always drop(?:out)?")
# Names of rates and counts for Monte Carlo dropout.
_RATE = Vocabulary(r"mc (?:p|rate|ratio|prob\w*|samples?)|(?:p|rate) mc")
# More users of a definition than these are not looked at.
_MOST = 32
_DROP = r"drop[ _-]?(?:outs?|path|connect|block)"
_ON = r"(?:on|active|enabled)"
_DONE = r"(?:on|active|activated|enabled|applied|used|kept|done|performed)"
_DOING = r"(?:on|active|enabled|appl(?:y|ies|ying)|us(?:es?|ing)|keeps?|enables?|performs?|do|does)"
# Sentences that mention dropout and say that it stays on, or that this is intended.
_MENTION = pattern(_DROP, re.IGNORECASE)
_INTENT = pattern(
    rf"{_DROP} (?:\w+ )?(?:stays?|remains?|kept) {_ON}\b|\b(?:keeps?|leaves?) (?:the )?{_DROP} {_ON}\b"
    rf"|{_DROP}[^,]{{0,24}}\balways\b.{{0,12}}\b{_DONE}\b|\balways[ -]{_DOING} (?:(?:the|this|its|some|a) )?{_DROP}"
    rf"|\bmonte.?carlo[ -](?:\(mc\)[ -])?{_DROP}|\bmc[ _-]?{_DROP}"
    r"|\bon purpose\b|\b(?:intentional|deliberate)|\bby design\b"
    r"|\b(?:also|even) (?:at|during|in) (?:eval|infer|test|predict)",
    re.IGNORECASE,
)
_BUG = pattern(r"\b(?:bug\w*|fix|fixme|todo|xxx|wrong\w*|mistake\w*|broken)\b|\?", re.IGNORECASE)
_DENIAL = pattern(
    r"\b(?:not(?! (?:only|just)\b)|never|no(?! matter\b)|nor|neither|none|cannot|without|off|inactive"
    r"|disabl\w*|deactivat\w*|only (?:in|at|during|while|when|for) train\w*)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_SENTENCE = pattern(r"(?<=[.!?;])\s+|\n\s*\n")
_MARKER = pattern(r"#\s*dropkit:\s*always-on", re.IGNORECASE)
_MARKER_WORD = pattern(rb"always-on", re.IGNORECASE)


def is_always_on_name(name: str) -> bool:
    """Whether the name of a class or function says that its dropout stays on in evaluation.

    Example:
        >>> [is_always_on_name(name) for name in ("MCDropout", "monte_carlo_forward", "Prenet", "Denoiser", "AlwaysX")]
        [True, True, True, False, False]
    """
    return _ALWAYS_ON.has(name)


def is_marked_always_on(source: SourceFile, node: ast.AST) -> bool:
    """Whether a marker comment or a setting says that dropout stays on here."""
    if any(_is_marked(source, definition) for definition in _around(source, source.function(node))):
        return True
    if not _has_marker(source):
        return False
    lines = _lines_beside(source, node)
    return any(_MARKER.search(_comment(source, number)) for number in lines) or _is_marked_file(source)


@cached_per_file
def is_named_always_on(source: SourceFile, node: ast.AST) -> bool:
    """Whether names, docstrings or comments say that dropout stays on here, which is weaker evidence than a marker.

    The docstrings are those of functions and classes around `node`; the comments are beside `node`.
    """
    around = _around(source, source.function(node))
    return (
        any_name_says(source, node, is_always_on_name)
        or _statement_says(source, source.statement(node), _RATE.has)
        or any(_has_docstring(source, definition) for definition in around)
        or any(_has_comment(source, number) for number in _lines_beside(source, node))
    )


def any_name_says(source: SourceFile, node: ast.AST, says: Callable[[str], bool]) -> bool:
    """Whether a name says so that may tell why a dropout is on.

    The names are those of functions and classes around it and of their bases, of what uses these in the file, those in
    its statement, and that of the file. A dropout layer may be put into a model by a class that does not name it: with
    one, all classes of the file count.
    """
    return (
        _function_says(source, source.function(node), says)
        or _statement_says(source, source.statement(node), says)
        or says(PurePath(source.path).stem)
    )


@cached_per_file
def _function_says(source: SourceFile, function: FunctionDefinition | None, says: Callable[[str], bool]) -> bool:
    around = _around(source, function)
    classes = [definition for definition in around if isinstance(definition, ClassDefinition)]
    bases = [last_part(base) for cls in classes for base in cls.bases if base is not None]
    users = _users(source, _outermost(source, function.node)) if function is not None else []
    others = [cls.name for cls in source.classes] if any(mentions_dropout(cls.name) for cls in classes) else []
    return any(map(says, [*(definition.name for definition in around), *bases, *users, *others]))


@cached_per_file
def _statement_says(source: SourceFile, statement: ast.stmt, says: Callable[[str], bool]) -> bool:
    """Whether a name in a simple statement says so: a target, the rate, what takes the result."""
    is_simple = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr))
    return is_simple and any(map(says, names_in(statement)))


@cached_per_file
def _users(source: SourceFile, name: str) -> list[str]:
    """The functions and classes of this file that name a class or function, or one that does, and so on."""
    users: dict[str, None] = {name: None}
    pending = [name]
    for used in pending:
        for mention in source.mentions.get(used, [])[:_MOST]:
            user = _outermost(source, mention)
            if user and user not in users and len(users) < _MOST:
                users[user] = None
                pending.append(user)
    return list(users)[1:]


def _outermost(source: SourceFile, node: ast.AST) -> str:
    """The name of the outermost function or class that `node` is, or is in; empty at module level."""

    def name(node: ast.AST, parent: ast.AST) -> str | None:
        is_definition = isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        return node.name if is_definition and isinstance(parent, ast.Module) else None

    return source.search_ancestors(node, name, _outermost) or ""


@cached_per_file
def _around(_: SourceFile, function: FunctionDefinition | None) -> list[ClassDefinition | FunctionDefinition]:
    """A function, those around it, and the classes of methods among them, with their bases."""
    around: list[ClassDefinition | FunctionDefinition] = []
    while function is not None:
        around += [function, *(function.owner.mro if function.owner is not None else ())]
        function = function.within
    return around


@cached_per_file
def _is_marked(source: SourceFile, definition: ClassDefinition | FunctionDefinition) -> bool:
    """Whether the marker is on the line of a class, or a setting names it, its base or a function."""
    names = [definition.name]
    if isinstance(definition, ClassDefinition):
        names += [last_part(base) for base in definition.bases if base is not None]
        if _has_marker(source) and _MARKER.search(_comment(source, definition.node.lineno)):
            return True
    return any(fnmatchcase(name, pattern) for name in names for pattern in source.always_on)


@cached_per_file
def _has_docstring(_: SourceFile, definition: ClassDefinition | FunctionDefinition) -> bool:
    node = definition.node
    docstring = None if isinstance(node, ast.Lambda) else ast.get_docstring(node, clean=False)
    return _states_intent(docstring or "")


@cached_per_file
def _has_comment(source: SourceFile, number: int) -> bool:
    comment = _comment(source, number).replace("#", "")
    return _BUG.search(comment) is None and _states_intent(comment)


def _states_intent(prose: str) -> bool:
    """Whether a sentence says that dropout stays on, without a word that denies it or calls it a mistake.

    Example:
        >>> [_states_intent(prose) for prose in ("Dropout is always on.", "MC dropout", "No dropout on purpose")]
        [True, True, False]
        >>> _states_intent("The norm is always applied. Dropout follows.")
        False
    """
    return any(
        _MENTION.search(sentence)
        and _INTENT.search(sentence)
        and not _DENIAL.search(sentence)
        and not _BUG.search(sentence)
        for sentence in (" ".join(part.split()) for part in _SENTENCE.split(prose))
    )


def _lines_beside(source: SourceFile, node: ast.AST) -> set[int]:
    """The lines with comments about `node`: its first and last, and the last line of a comment above."""
    begin = getattr(node, "lineno", 1)
    lines = {begin, getattr(node, "end_lineno", None) or begin}
    above = (begin - 1, source.statement(node).lineno - 1)
    return lines | {line for line in above if _is_only_comment(source, line)}


@cached_per_file
def _comments(source: SourceFile) -> Mapping[int, str]:
    return comments(source.text)


@cached_per_file
def _is_only_comment(source: SourceFile, number: int) -> bool:
    """Whether a line has a comment and nothing else."""
    return number in _comments(source) and source.text.line(number).lstrip(" \t\f").startswith("#")


@cached_per_file
def _comment(source: SourceFile, number: int) -> str:
    """The comment on a line, with the comment lines above it if it has the line to itself."""
    last = number
    while _is_only_comment(source, number) and _is_only_comment(source, number - 1):
        number -= 1
    return "\n".join(_comments(source).get(line, "") for line in range(number, last + 1))


@cached_per_file
def _has_marker(source: SourceFile) -> bool:
    """Whether the word of the marker is anywhere in the text: to find comments, the whole file is tokenized."""
    return _MARKER_WORD.search(source.text.utf8) is not None


@cached_per_file
def _is_marked_file(source: SourceFile) -> bool:
    """Whether the marker is on a line of its own at the head of the file, before its first statement."""
    body = source.tree.body
    has_docstring = bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    first = body[has_docstring].lineno if len(body) > has_docstring else len(source.text.starts) + 1
    return any(_MARKER.search(comment) for number, comment in _comments(source).items() if number < first)
