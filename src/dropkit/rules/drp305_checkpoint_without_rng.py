"""Activation checkpointing with `preserve_rng_state=False` over code with dropout.

Training is noisier and ends with a worse model; there is no error and no warning. Checkpointing runs its function again
in the backward pass. Without the random state, dropout then uses another mask than in the forward pass, and the
gradients are wrong. Leave the argument at True, unless the function contains nothing random.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.attribute_usage import classes_using
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, literal, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Place, Trace

_CHECKPOINTS = ("checkpoint", "checkpoint_sequential", "checkpoint_wrapper")
# torch's layers whose `dropout` is above 0 by default.
_DROP_BY_DEFAULT = ("torch.nn.Transformer", "torch.nn.TransformerEncoderLayer", "torch.nn.TransformerDecoderLayer")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call in source.all_calls if b"preserve_rng_state" in source.text.utf8 else ():
        flag = argument(call, None, "preserve_rng_state")
        if flag is not None and literal(flag) is False and _reruns_dropout(source, call):
            yield Violation(call, fix=Fix("Pass preserve_rng_state=True", (replace(source, flag, "True"),)))


def _reruns_dropout(source: SourceFile, call: ast.Call) -> bool:
    """Whether the checkpointed function drops; if that is unknown, whether the enclosing class does."""
    name = source.called(call) or ""
    is_checkpoint = name.startswith(("torch.utils.checkpoint.", "torch.distributed.")) and name.endswith(_CHECKPOINTS)
    keywords = (keyword.value for keyword in call.keywords if keyword.arg in ("function", "functions", "module"))
    function = next(iter([*call.args, *keywords]), None)
    if not is_checkpoint or function is None:
        return False
    drops = _drops_when_called(source, function)
    return drops if drops is not None else source.owner(call) in _dropping_classes(source)


def _drops_when_called(source: SourceFile, function: ast.expr) -> bool | None:
    """Whether calling `function` drops, directly or in functions of this file that it calls; None if unknown."""
    is_known = True
    seen: set[ast.AST] = set()
    pending = [function]
    for callee in pending:
        # Long call chains are not followed.
        if len(pending) > MOST:
            return None
        bodies = _code_run_by(source, callee)
        is_known &= bool(bodies)
        for body in [body for body in bodies if body not in seen]:
            drops, callees = _inside(source, body)
            if drops:
                return True
            is_known &= drops is not None
            pending += callees
        seen.update(bodies)
    return False if is_known else None


def _code_run_by(source: SourceFile, run: ast.expr) -> list[ast.AST]:
    """The code that calling `run` runs: functions, lambdas, constructed layers. Empty if unknown."""
    for _ in range(MOST):
        attribute, owner = self_attribute(run), source.owner(run)
        if attribute is not None and owner is not None:
            method = owner.method(attribute)
            values = [value for value in owner.values(attribute) if value is not None]
            return [method.node] if method is not None else [*values] if len(values) <= MOST else []
        match run:
            case ast.Subscript(value=inner):
                run = inner
            case ast.Call(args=[inner, *_]) if (source.called(run) or "").endswith("partial"):
                run = inner
            case ast.Call() | ast.Lambda():
                return [run]
            case ast.Name() if not (source.dotted(run) or "").startswith("torch."):
                value = _set_to(source, run)
                if not isinstance(value, ast.expr):
                    return [value] if value is not None else []
                run = value
            case _:
                return [run] if (source.dotted(run) or "").startswith("torch.") else []
    return []


def _set_to(source: SourceFile, name: ast.Name) -> ast.AST | None:
    """The function, loop iterable or expression that a name is bound to."""
    for binding in reversed(source.bindings(name)[-MOST:]):
        match binding.statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return binding.statement
            # for layer in self.layers: / for i, layer in enumerate(self.layers):
            case ast.For(iter=ast.Call(args=[layers, *_]) | layers):
                return layers
            case _ if binding.value is not None and not binding.derived:
                return binding.value
            case _:
                pass
    return None


@cached_per_file
def _inside(source: SourceFile, tree: ast.AST) -> tuple[bool | None, list[ast.expr]]:
    """Whether code drops (None if it calls something unknown), and the functions of this file that it calls."""
    if isinstance(tree, ast.expr) and (source.dotted(tree) or "").startswith("torch."):
        return source.dotted(tree) in FUNCTIONALS, []
    is_known = True
    callees: list[ast.expr] = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        local = source.local_class(call.func)
        if local in _dropping_classes(source) or (local is None and _drops(source, call)):
            return True, []
        if local is not None or (source.called(call) or "").startswith("torch."):
            continue
        # Methods of other objects are ignored: most are methods of tensors.
        if isinstance(call.func, ast.Name) or self_attribute(call.func) is not None:
            is_known &= call is not tree
            callees += [call.func] if call is not tree else []
    return (False if is_known else None), callees


@cached_per_file
def _dropping_classes(source: SourceFile) -> set[ClassDefinition]:
    """The classes that drop, that make an object of one that does, or that inherit from one."""
    return classes_using(source, (call for call in source.all_calls if _drops(source, call)))


def _drops(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call drops, or makes a layer that does."""
    dropout = dropout_call(source, call)
    if dropout is None or dropout.never_drops:
        return False
    if dropout.form is DropoutForm.HOLDER:
        return dropout.p is not None or dropout.name in _DROP_BY_DEFAULT
    return dropout.form in (DropoutForm.FUNCTION, DropoutForm.LAYER)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    first: dict[tuple[str, Place | None], set[bytes | None]] = {}
    for site in trace.sites:
        # Recomputed calls outside of modules are identified by their line.
        first.setdefault((site.kind, site.place), set()).update(
            visit.mask_start for visit in site.visits_in(Phase.TRAIN)
        )
    for site in trace.sites:
        again = {visit.mask_start for visit in site.visits_in(Phase.BACKWARD) if visit.mask_start is not None}
        if not again <= first[site.kind, site.place]:
            yield TraceViolation(
                site, "recomputed in backward with another mask: the gradients are wrong", Severity.ERROR
            )


RULE = Rule(
    code="DRP305",
    name="checkpoint-without-rng",
    message="checkpointed dropout uses another mask in backward",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `preserve_rng_state=True`",
    fix_is_safe=True,
    examples=(
        Example(
            bad="""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=False)  # DRP305


Encoder()(torch.randn(4, 8)).sum().backward()
""",
            good="""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=True)


Encoder()(torch.randn(4, 8)).sum().backward()
""",
        ),
    ),
)
