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
from collections.abc import Hashable, Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

import torch
from torch import nn

from dropkit.dropout_functions import NORMS, RECURRENT, dropout_functions

_SPEAKS_OF_DROPOUT = re.compile(r"drop|stochastic_?depth|survival|bernoulli|\brand\b|rand_like|uniform_", re.IGNORECASE)
# Statistics and what else is kept across batches change with the flag.
_KEEPS_STATISTICS = re.compile(r"norm(?!aliz)|ema\b|quantiz", re.IGNORECASE)
# What draws noise of other kinds, which counts in a class that is called after dropout.
_DRAWS = re.compile(r"randn|\bnormal_?\b|poisson|exponential_|multinomial")
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
    if _KEEPS_STATISTICS.search(kind.__name__):
        return False
    named = _SPEAKS_OF_DROPOUT.search(kind.__name__) is not None
    return any(_gates(function, named) for function in _methods(kind))


def _methods(kind: type[nn.Module]) -> Iterator[FunctionType]:
    """What the class and its bases define, down to what torch and dropkit do: theirs hand the flag to functions."""
    for base in kind.__mro__:
        if base is nn.Module or base.__module__.startswith(("torch.nn.", "dropkit.nn.")):
            return
        for name, value in vars(base).items():
            function: Any = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and name not in _NOT_THE_FORWARD:
                yield function


def _gates(function: FunctionType, named: bool) -> bool:
    if "training" not in names_of(function.__code__):
        return False
    tree = parsed(function)
    texts = [" ".join(names_of(function.__code__))] if tree is None else _hanging_on_the_flag(tree, function)
    return any(_SPEAKS_OF_DROPOUT.search(text) or (named and _DRAWS.search(text)) for text in texts)


def names_of(code: CodeType) -> set[str]:
    """The names, also of functions inside; `training` among them or not is what most classes are told apart by."""
    names = {*code.co_names, *code.co_varnames}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_of(constant)
        elif constant == "training":  # as in getattr(self, "training")
            names.add(constant)
        elif isinstance(constant, tuple):  # the names of keywords
            names.update(one for one in cast("tuple[Any, ...]", constant) if isinstance(one, str))
    return names


def parsed(function: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The source; None where there is none, as for code that was made by `exec`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    first = tree.body[0] if tree.body else None
    return first if isinstance(first, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def _hanging_on_the_flag(tree: ast.FunctionDef | ast.AsyncFunctionDef, function: FunctionType) -> Iterator[str]:
    """For every read of the flag, the source of what it decides; none where that is a function which is handed it."""
    arguments = [*tree.args.posonlyargs, *tree.args.args]
    self = arguments[0].arg if arguments else ""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=ast.Name(id=name), attr="training", ctx=ast.Load())
                | ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=name), ast.Constant(value="training"), *_])
            ) if name == self:
                decided = _decided(node, tree, parents)
                if not (isinstance(decided[0], ast.Call) and _is_handed(_meant(decided[0].func, function))):
                    yield "\n".join(map(ast.unparse, decided))
            case _:
                pass


def _decided(node: ast.AST, function: ast.AST, parents: dict[ast.AST, ast.AST]) -> list[ast.AST]:
    while node is not function:
        parent = parents[node]
        if isinstance(parent, ast.keyword):
            parent = parents[parent]
        if isinstance(parent, ast.Call) and node is not parent.func:
            return [parent]
        if isinstance(parent, ast.IfExp):
            return [_statement(parent, parents)]
        if isinstance(parent, ast.If) and node is parent.test:
            return _guarded(parent, parents)
        if isinstance(parent, ast.Assign):
            return [function]
        node = parent
    return [function]


def _meant(callee: ast.expr, function: FunctionType) -> Any:
    """The object that a name in a function stands for; None for what only a call of it could tell."""
    if isinstance(callee, ast.Attribute):
        return getattr(_meant(callee.value, function), callee.attr, None)
    if not isinstance(callee, ast.Name):
        return None
    free = inspect.getclosurevars(function)
    # What is imported inside is mostly torch's functional, by its usual name.
    return {"F": nn.functional, "torch": torch, **free.builtins, **free.globals, **free.nonlocals}.get(callee.id)


def _is_handed(callee: Any) -> bool:
    return callable(callee) and isinstance(callee, Hashable) and callee in _handed()


@lru_cache(maxsize=1)
def _handed() -> frozenset[Any]:
    """What is handed the flag, and shows a function mode the call: the mode rewrites the flag where it is for dropout.

    For statistics it must stay as it is. Functions of other packages are Python that no mode sees.
    """
    seen = {one for one in dropout_functions() if not getattr(one, "__module__", "").startswith("torchvision")}
    return frozenset(seen | set(RECURRENT) | set(NORMS))


def _guarded(branch: ast.If, parents: dict[ast.AST, ast.AST]) -> list[ast.AST]:
    """What runs or not: the branches, and where one leaves the function, what follows as well."""
    after: list[ast.AST] = []
    if any(isinstance(last, (ast.Return, ast.Continue)) for last in (branch.body[-1], *branch.orelse[-1:])):
        block: list[ast.stmt] = getattr(parents[branch], "body", [])
        after = [*block[block.index(branch) + 1 :]] if branch in block else []
    return [branch, *after]


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node
