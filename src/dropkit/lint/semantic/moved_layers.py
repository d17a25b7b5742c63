"""Layers that are moved where they are set: `nn.Dropout(p).to(device)`, `self.drop = self.drop.cuda()`.

A move returns the layer itself, or one that computes the same: `torch.compile(layer)`, `weight_norm(layer)`.
"""

from __future__ import annotations

import ast

from dropkit.lint.semantic.definitions import Write
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.model import SourceFile

# Methods of Modules that return the module itself.
MOVES = frozenset(
    {"to", "cuda", "cpu", "xpu", "npu", "mps", "ipu", "mtia", "half", "float", "double", "bfloat16", "type", "to_empty",
     "train", "eval", "requires_grad_", "apply", "share_memory"}
)  # fmt: skip
# Functions that return their first argument, or a layer of the same kind around it.
_WRAPPERS = frozenset(
    {"compile", "script", "optimize", "weight_norm", "spectral_norm", "orthogonal", "quant_noise", "deepcopy",
     "convert_sync_batchnorm", "DataParallel", "DistributedDataParallel", "checkpoint_wrapper"}
)  # fmt: skip


def unmoved(source: SourceFile, value: ast.expr | None) -> ast.expr | None:
    """The layer that a value is, without the moves around it."""
    while isinstance(value, ast.Call):
        if isinstance(value.func, ast.Attribute) and value.func.attr in MOVES and source.called(value) is None:
            value = value.func.value
        elif value.args and source.last_name(value) in _WRAPPERS:
            value = value.args[0]
        else:
            break
    return value


def is_moved_by(source: SourceFile, node: ast.AST, parent: ast.AST | None) -> bool:
    """Whether `parent` is a move of the layer `node`, or the method of a move."""
    match parent:
        case ast.Attribute(attr=name):
            return name in MOVES
        case ast.Call(func=ast.Attribute() as method) if method is node:
            return method.attr in MOVES
        case ast.Call(args=[first, *_]) if first is node:
            return source.last_name(parent) in _WRAPPERS
        case _:
            return False


def moves_itself(source: SourceFile, write: Write) -> bool:
    """Whether a write keeps the layer that the attribute has: `self.drop = self.drop.to(device)`, `self.x = self.x`."""
    pending = [write.value]
    for value in pending:
        layer = unmoved(source, value)
        if isinstance(layer, ast.IfExp):
            pending += [layer.body, layer.orelse]
        elif self_attribute(layer) != write.attribute or write.derived:
            return False
    return True


def moved(source: SourceFile, layer: ast.AST) -> ast.AST:
    """A layer with the moves around it: `nn.Dropout(p).to(device)` for `nn.Dropout(p)`."""
    node, parent = layer, source.parent(layer)
    while is_moved_by(source, node, parent):
        assert parent is not None, "a move is a node"
        node, parent = parent, source.parent(parent)
    return node


def is_only_moved(source: SourceFile, read: ast.Attribute) -> bool:
    """Whether a read of `self.attribute` only moves the layer: the result is discarded, or kept as the same."""
    node = moved(source, read)
    while isinstance(choice := source.parent(node), ast.IfExp) and choice.test is not node:
        node = moved(source, choice)
    match source.parent(node):
        case ast.Expr():
            return node is not read
        case ast.Assign(targets=[target]):
            return self_attribute(target) == read.attr
        case _:
            return False
