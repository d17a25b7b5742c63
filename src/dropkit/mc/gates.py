"""Which modules gate dropout by their own `self.training`, where no function of torch is handed the flag.

DropPath, attention with `dropout_p=self.p if self.training else 0.0` and masks made by hand read the flag themselves;
batch norm, auxiliary heads and losses do too, and must not be switched. So the source of a class is read: a flag counts
if what hangs on it speaks of dropout, or draws a mask.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

from torch import nn

from dropkit.callables import known

_SPEAKS_OF_DROPOUT = re.compile(r"drop|stochastic_?depth|survival|bernoulli|\brand\b|rand_like|uniform_", re.IGNORECASE)
# Statistics and what else is kept across batches change with the flag.
_KEEPS_STATISTICS = re.compile(r"norm(?!aliz)|ema\b|quantiz", re.IGNORECASE)
# What is handed the flag, and does nothing else with it: a function mode rewrites it where it is for dropout, and it
# must stay where it is for statistics.
_HANDED = frozenset({function.name for function in known().values() if function.training is not None}) | {
    "lstm", "gru", "rnn_tanh", "rnn_relu", "batch_norm", "instance_norm",
}  # fmt: skip
_NOT_THE_FORWARD = frozenset({"__init__", "train", "eval", "extra_repr", "__repr__"})


@lru_cache(maxsize=4096)
def gates_dropout(kind: type[nn.Module]) -> bool:
    """Whether modules of this class must be seen in training mode for their dropout to draw.

    Example:
        >>> class Noisy(nn.Module):
        ...     def forward(self, x):
        ...         return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x
        >>> gates_dropout(Noisy), gates_dropout(nn.Dropout), gates_dropout(nn.BatchNorm1d)
        (True, False, False)
    """
    return not _KEEPS_STATISTICS.search(kind.__name__) and any(_gates(function) for function in _methods(kind))


def _methods(kind: type[nn.Module]) -> Iterator[FunctionType]:
    """What the class and its bases define, down to what torch and dropkit do: theirs hand the flag to functions."""
    for base in kind.__mro__:
        if base is nn.Module or base.__module__.startswith(("torch.nn.", "dropkit.nn.")):
            return
        for name, value in vars(base).items():
            function: Any = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and name not in _NOT_THE_FORWARD:
                yield function


def _gates(function: FunctionType) -> bool:
    if "training" not in _names(function.__code__):
        return False
    tree = _parsed(function)
    if tree is None:
        return _SPEAKS_OF_DROPOUT.search(" ".join(_names(function.__code__))) is not None
    return any(_SPEAKS_OF_DROPOUT.search(text) for text in _hanging_on_the_flag(tree))


def _names(code: CodeType) -> set[str]:
    """The names, also of functions inside; `training` among them or not is what most classes are told apart by."""
    names = {*code.co_names, *code.co_varnames}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
        elif isinstance(constant, tuple):  # the names of keywords
            names.update(one for one in cast("tuple[Any, ...]", constant) if isinstance(one, str))
    return names


def _parsed(function: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The source; None where there is none, as for code that was made by `exec`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    first = tree.body[0] if tree.body else None
    return first if isinstance(first, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def _hanging_on_the_flag(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """For every read of the flag, the source of what it decides."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    self = arguments[0].arg if arguments else ""
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr="training", ctx=ast.Load()) if name == self:
                yield _decided(node, function, parents)
            case _:
                pass


def _decided(node: ast.AST, function: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    while node is not function:
        parent = parents[node]
        if isinstance(parent, ast.keyword):
            parent = parents[parent]
        if isinstance(parent, ast.Call) and node is not parent.func:
            return "" if _is_handed(parent.func) else ast.unparse(parent)
        if isinstance(parent, ast.IfExp):
            return ast.unparse(_statement(parent, parents))
        if isinstance(parent, ast.If) and node is parent.test:
            return _guarded(parent, parents)
        if isinstance(parent, ast.Assign):
            return ast.unparse(function)
        node = parent
    return ast.unparse(function)


def _is_handed(callee: ast.expr) -> bool:
    """A function of torch by its name; a method of the module's own may do what it likes."""
    if isinstance(callee, ast.Attribute):
        return callee.attr in _HANDED and not (isinstance(callee.value, ast.Name) and callee.value.id == "self")
    return isinstance(callee, ast.Name) and callee.id in _HANDED


def _guarded(branch: ast.If, parents: dict[ast.AST, ast.AST]) -> str:
    """What runs or not: the branches, and where one leaves the function, what follows as well."""
    text = ast.unparse(branch)
    if any(isinstance(last, (ast.Return, ast.Continue)) for last in (branch.body[-1], *branch.orelse[-1:])):
        block: list[ast.stmt] = getattr(parents[branch], "body", [])
        after = block[block.index(branch) + 1 :] if branch in block else []
        text += "\n".join(map(ast.unparse, after))
    return text


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node
