"""Training and evaluation: what in source code is a flag of the mode, and what stands under one.

A dropout may be right though its own call says nothing of the mode: the branch it stands in asks, an early return
did, or the rate itself is zero in evaluation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dropkit.facts.definitions import Class, Function
from dropkit.facts.module import Module

# Words that settle that a name is about the mode, or a switch of its own that someone sets on purpose.
_FLAG = re.compile(
    r"train|eval|infer|predict|\btest|_test|is_test|sampl|phase|stage|determinis|montecarlo|monte_carlo|(^|_)mc(_|$)"
    r"|always|switch|use_drop|enable_drop|apply_drop|do_drop|with_drop|drop_on|active|stochastic",
    re.IGNORECASE,
)
# A rate is no flag, whatever else its name says (`train_dropout_rate`).
_RATE = re.compile(r"rate|prob|(^|_)p$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition that must be true (or false) for a place in the code to be reached."""

    test: ast.expr
    holds: bool


def is_flag(name: str) -> bool:
    """Whether a name speaks of the mode.

    Example:
        >>> is_flag("training"), is_flag("is_eval"), is_flag("dropout"), is_flag("train_dropout_rate")
        (True, True, False, False)
    """
    return _FLAG.search(name) is not None and _RATE.search(name) is None


def flags(expression: ast.AST) -> Iterator[str]:
    """The names in `expression` that speak of the mode."""
    for node in ast.walk(expression):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name is not None and is_flag(name):
            yield name


def mentions_mode(expression: ast.AST) -> bool:
    """Whether any name in `expression` speaks of the mode."""
    return next(flags(expression), None) is not None


def guards(module: Module, node: ast.AST) -> Iterator[Guard]:
    """Every condition on the way to `node` in its function: branches, conditionals, and exits that came before."""
    below = node
    for above in module.parents(node):
        if isinstance(above, (ast.If, ast.While)):
            if below is not above.test:
                yield Guard(above.test, below in above.body)
        elif isinstance(above, ast.IfExp):
            if below is not above.test:
                yield Guard(above.test, below is above.body)
        elif isinstance(above, ast.BoolOp):
            for value in _before(above.values, below):
                yield Guard(value, isinstance(above.op, ast.And))
        elif isinstance(above, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            for generator in above.generators:
                for test in generator.ifs:
                    yield Guard(test, True)
        if isinstance(below, ast.stmt):
            block = module.block(below)
            for earlier in block[: block.index(below)] if below in block else ():
                if isinstance(earlier, ast.If) and _leaves(earlier.body):
                    yield Guard(earlier.test, False)
                elif isinstance(earlier, ast.Assert) or (isinstance(earlier, ast.If) and _leaves(earlier.orelse)):
                    yield Guard(earlier.test, True)
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        below = above


def under_mode(module: Module, node: ast.AST) -> bool:
    """Whether a condition on the way to `node` speaks of the mode, in its own words or those of a local name."""
    for guard in guards(module, node):
        if mentions_mode(guard.test):
            return True
        for name in ast.walk(guard.test):
            if isinstance(name, ast.Name):
                value = module.value(name)
                if value is not None and mentions_mode(value):
                    return True
    return False


def follows_mode(module: Module, expression: ast.expr) -> bool:
    """Whether the value of `expression` depends on the mode: itself, or the local name that it is, one step back."""
    if mentions_mode(expression):
        return True
    for name in ast.walk(expression):
        if isinstance(name, ast.Name):
            for binding in module.bindings(name):
                if binding.value is not None and mentions_mode(binding.value):
                    return True
                if isinstance(binding.statement, ast.stmt) and under_mode(module, binding.statement):
                    return True
    return False


def called_under_mode(module: Module, node: ast.AST) -> bool:
    """Whether every call of the method around `node` in its class stands under a condition on the mode."""
    function, owner = module.function(node), module.owner(node)
    calls = owner.own_calls.get(function.method.name, []) if function is not None and owner is not None else []
    return bool(calls) and all(under_mode(module, call) for call in calls)


# Whoever names a class or function so wants dropout at prediction time.
ON_PURPOSE = (
    "*Prenet*", "*PreNet*", "*prenet*", "*pre_net*", "*MCDrop*", "*mc_dropout*", "*MonteCarlo*", "*monte_carlo*",
    "*Bayes*", "*bayes*", "*epistemic*", "*Epistemic*", "*EPISTEMIC*", "*uncertain*", "*Uncertain*", "*always*",
    "*Always*", "*noise*", "*Noise*", "*Consistent*Dropout*",
)  # fmt: skip
_SAID_SO = re.compile(
    r"always.{0,24}(drop|on\b|appl|activ|enabl)|monte.?carlo|\bmc[ _-]?drop|on purpose|intentional|by design"
    r"|(also|even) (at|during|in) (eval|infer|test|predict)|dropkit: *always-on",
    re.IGNORECASE,
)
_MARKER = re.compile(r"#\s*dropkit:\s*always-on", re.IGNORECASE)


def on_purpose(module: Module, node: ast.AST) -> bool:
    """Whether dropout that stays on is wanted here: a name around it, a comment beside it or a marker says so."""
    around: list[Class | Function] = []
    function = module.function(node)
    while function is not None:
        around.append(function)
        if function.owner is not None:
            around.append(function.owner)
            around.extend(function.owner.lineage[1:])
        function = function.within
    called = [one.name for one in around]
    for one in around:
        if isinstance(one, Class):
            called += [base.rsplit(".", 1)[-1] for base in one.bases if base is not None]
    if any(fnmatchcase(name, pattern) for name in called for pattern in (*ON_PURPOSE, *module.always_on)):
        return True
    for one in around:
        if isinstance(one, Class) and _MARKER.search(module.text.line(one.node.lineno)):
            return True
        if not isinstance(one.node, ast.Lambda) and _SAID_SO.search(ast.get_docstring(one.node, clean=False) or ""):
            return True
    span = module.text.span(node)
    for number in {max(span.line - 1, 1), span.line, span.end_line}:
        _, sign, comment = module.text.line(number).partition("#")
        if sign and _SAID_SO.search(sign + comment):
            return True
    return marked_file(module)


def marked_file(module: Module) -> bool:
    """Whether the marker stands on a line of its own at the head of the file, before its first statement."""
    first = module.tree.body[0].lineno if module.tree.body else 1
    body = module.tree.body
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        first = body[1].lineno if len(body) > 1 else len(module.text.starts)
    return any(_MARKER.search(module.text.line(number)) for number in range(1, first))


def _before(values: list[ast.expr], one: ast.AST) -> Iterator[ast.expr]:
    for value in values:
        if value is one:
            return
        yield value


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))
