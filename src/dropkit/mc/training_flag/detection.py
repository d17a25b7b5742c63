"""Detection of modules that gate dropout by their own `self.training`, with no function of torch that takes the flag.

A class gates dropout if the source that depends on its flag mentions dropout or draws a mask.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Hashable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import nn

from dropkit.dropout_functions import NORMS, RECURRENT, dropout_functions
from dropkit.mc.training_flag.function_source import first_argument, names_in
from dropkit.mc.training_flag.known_values import Frame

# Every dropout of the catalog by its name, and the functions that draw a mask.
_MENTIONS_DROPOUT = re.compile(
    r"drop|zoneout|stochastic_?depth|survival|bernoulli|\brand\b|rand_like|uniform_", re.IGNORECASE
)
# Classes whose flag also changes statistics, or other state that lasts across batches.
_KEEPS_STATISTICS = re.compile(r"norm(?!aliz)|ema\b|quantiz", re.IGNORECASE)
# Other noise, which counts as dropout in a class that is named after it.
_DRAWS_NOISE = re.compile(r"randn|\bnormal_?\b|poisson|exponential_|multinomial")
_NOT_IN_FORWARD = frozenset({"__init__", "train", "eval", "extra_repr", "__repr__"})


@lru_cache(maxsize=4096)
def gates_dropout(kind: type[nn.Module]) -> bool:
    """Whether modules of this class must read their flag as true for their dropout to be active.

    Example:
        >>> class Noisy(nn.Module):
        ...     def forward(self, x):
        ...         return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x
        >>> gates_dropout(Noisy), gates_dropout(nn.Dropout), gates_dropout(nn.BatchNorm1d)
        (True, False, False)
    """
    if _KEEPS_STATISTICS.search(kind.__name__):
        return False
    is_named_after_dropout = _MENTIONS_DROPOUT.search(kind.__name__) is not None
    return any(_gates(function, is_named_after_dropout) for function in _methods(kind))


def _methods(kind: type[nn.Module]) -> Iterator[FunctionType]:
    """The functions of the class and its bases, up to those of torch and dropkit, which pass the flag to functions."""
    for base in kind.__mro__:
        if base is nn.Module or base.__module__.startswith(("torch.nn.", "dropkit.nn.")):
            return
        for name, value in vars(base).items():
            function: Any = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and name not in _NOT_IN_FORWARD:
                yield function


def _gates(function: FunctionType, is_named_after_dropout: bool) -> bool:
    if "training" not in names_in(function.__code__):
        return False
    frame = Frame.of(function, (), {}, training=True)
    texts = [" ".join(names_in(function.__code__))] if frame is None else _controlled_sources(frame)
    return any(
        _MENTIONS_DROPOUT.search(text) or (is_named_after_dropout and _DRAWS_NOISE.search(text)) for text in texts
    )


def _controlled_sources(frame: Frame) -> Iterator[str]:
    """Yield the source that is controlled by each `self.training`; skip reads that are only passed to a function."""
    tree, self = frame.source.tree, first_argument(frame.source.tree)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=ast.Name(id=name), attr="training", ctx=ast.Load())
                | ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=name), ast.Constant(value="training"), *_])
            ) if name == self:
                controlled = _controlled(node, tree, parents)
                callee = frame.value(controlled[0].func) if isinstance(controlled[0], ast.Call) else None
                if not isinstance(callee, Hashable) or callee not in _taking_flag():
                    yield "\n".join(map(ast.unparse, controlled))
            case _:
                pass


def _controlled(node: ast.AST, function: ast.AST, parents: dict[ast.AST, ast.AST]) -> list[ast.AST]:
    """The nodes that depend on an expression: a call, a statement, branches, or the whole function."""
    while node is not function:
        parent = parents[node]
        if isinstance(parent, ast.keyword):
            parent = parents[parent]
        if isinstance(parent, ast.Call) and node is not parent.func:
            return [parent]
        if isinstance(parent, ast.IfExp):
            return [_statement(parent, parents)]
        if isinstance(parent, ast.If) and node is parent.test:
            return _branches(parent, parents)
        if isinstance(parent, ast.Assign):
            return [function]
        node = parent
    return [function]


@lru_cache(maxsize=1)
def _taking_flag() -> frozenset[Any]:
    """Functions that take `training` as an argument; the function mode sees these calls, and rewrites it for dropout.

    For functions with statistics the argument must stay as it is. Functions of other packages are Python code that a
    function mode does not see.
    """
    functions = dropout_functions()
    visible = {f for f in functions if not getattr(f, "__module__", "").startswith("torchvision")}
    return frozenset(visible | set(RECURRENT) | set(NORMS))


def _branches(branch: ast.If, parents: dict[ast.AST, ast.AST]) -> list[ast.AST]:
    """Both branches, and where one of them leaves the block, also what follows."""
    after: list[ast.AST] = []
    if any(isinstance(last, (ast.Return, ast.Continue)) for last in (branch.body[-1], *branch.orelse[-1:])):
        block: list[ast.stmt] = getattr(parents[branch], "body", [])
        after = [*block[block.index(branch) + 1 :]] if branch in block else []
    return [branch, *after]


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node
