"""Activation checkpointing with `preserve_rng_state=False` over code with dropout.

Training is noisier and ends with a worse model; there is no error and no warning. Checkpointing runs its function again
in the backward pass. Without the random state, dropout then uses another mask than in the forward pass, and the
gradients are wrong. Leave the argument at True, unless the function contains nothing random.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import cast

from dropkit.catalog import FUNCTIONALS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.attribute_usage import classes_using
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import FUNCTIONS, Binding, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, literal, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Place, Trace

_CHECKPOINTS = ("checkpoint", "checkpoint_sequential", "checkpoint_wrapper")
# torch's layers with a `dropout` argument, and its default.
_DEFAULT_RATES = {
    "torch.nn.TransformerEncoderLayer": 0.1, "torch.nn.TransformerDecoderLayer": 0.1, "torch.nn.Transformer": 0.1,
    "torch.nn.MultiheadAttention": 0.0, "torch.nn.LSTM": 0.0, "torch.nn.GRU": 0.0, "torch.nn.RNN": 0.0,
}  # fmt: skip


def check_source(source: SourceFile) -> Iterator[Violation]:
    if b"preserve_rng_state" not in source.text.utf8:
        return
    for calls in source.calls.values():
        for call in calls:
            flag = argument(call, None, "preserve_rng_state")
            if flag is not None and literal(flag) is False and _reruns_dropout(source, call):
                yield Violation(call, fix=Fix("Pass preserve_rng_state=True", (replace(source, flag, "True"),)))


def _reruns_dropout(source: SourceFile, call: ast.Call) -> bool:
    """Whether the checkpointed function drops; if that is unknown, whether the enclosing class does."""
    name = source.called(call) or ""
    if not (name.startswith(("torch.utils.checkpoint.", "torch.distributed.")) and name.endswith(_CHECKPOINTS)):
        return False
    names = ("function", "functions", "module")
    keyword = next((keyword.value for keyword in call.keywords if keyword.arg in names), None)
    function = call.args[0] if call.args else keyword
    if function is None:
        return False
    owner, drops = source.owner(call), _drops_when_called(source, function)
    return drops if drops is not None else owner is not None and owner in _dropping_classes(source)


def _drops_when_called(source: SourceFile, function: ast.expr) -> bool | None:
    """Whether calling `function` drops, directly or in functions of this file that it calls; None if unknown."""
    result: bool | None = False
    seen: set[ast.AST] = set()
    pending = [function]
    for callee in pending:
        # Long call chains are not followed.
        if len(pending) > MOST:
            return None
        bodies = _code_run_by(source, callee)
        for body in bodies if bodies is not None else ():
            if body not in seen:
                seen.add(body)
                drops, callees = _inside(source, body)
                if drops:
                    return True
                result = None if drops is None else result
                pending += callees
        result = None if bodies is None else result
    return result


def _code_run_by(source: SourceFile, run: ast.expr) -> list[ast.AST] | None:
    """The code that calling `run` runs: functions, lambdas, constructed layers. None if unknown."""
    for _ in range(MOST):
        attribute, owner = self_attribute(run), source.owner(run)
        if isinstance(run, ast.Subscript):
            run = run.value
        elif isinstance(run, ast.Call):
            if not ((source.called(run) or "").endswith("partial") and run.args):
                return [run]
            run = run.args[0]
        elif attribute is not None and owner is not None:
            method = owner.method(attribute)
            if method is not None:
                return [method.node]
            values = [value for value in owner.values(attribute) if value is not None]
            return list(values) if 0 < len(values) <= MOST else None
        elif isinstance(run, ast.Lambda) or (source.dotted(run) or "").startswith("torch."):
            return [run]
        else:
            inner = _set_to(source, run) if isinstance(run, ast.Name) else None
            if inner is None or isinstance(inner, FUNCTIONS):
                return [inner] if inner is not None else None
            run = cast("ast.expr", inner)
    return None


def _set_to(source: SourceFile, name: ast.Name) -> ast.AST | None:
    """The function, loop iterable or expression that a name is bound to."""
    bindings, known = source.bindings(name), source.cache(_set_to)
    if id(bindings) not in known:
        known[id(bindings)] = next(filter(None, (_bound_to(source, binding) for binding in reversed(bindings))), None)
    return known[id(bindings)]


def _bound_to(source: SourceFile, binding: Binding) -> ast.AST | None:
    function = source.by_node.get(binding.statement)
    if isinstance(function, FunctionDefinition):
        return function.node
    if isinstance(binding.statement, (ast.For, ast.AsyncFor)):
        # for layer in self.layers: / for i, layer in enumerate(self.layers):
        iterable = binding.statement.iter
        return iterable.args[0] if isinstance(iterable, ast.Call) and iterable.args else iterable
    return None if binding.derived else binding.value


@cached_per_file
def _inside(source: SourceFile, tree: ast.AST) -> tuple[bool | None, list[ast.expr]]:
    """Whether code drops (None if it calls something unknown), and the functions of this file that it calls."""
    known: set[bool | None] = {False}
    calls: list[ast.expr] = []
    if isinstance(tree, ast.expr) and (source.dotted(tree) or "").startswith("torch."):
        return source.dotted(tree) in FUNCTIONALS, calls
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        local, name = source.local_class(call.func), source.called(call)
        if _drops(source, call) or local is not None:
            known.add(local is None or local in _dropping_classes(source))
        elif name is not None and name.startswith("torch."):
            continue
        elif isinstance(call.func, ast.Name) or self_attribute(call.func) is not None:
            # Methods of other objects are ignored: most are methods of tensors.
            calls += [call.func] if call is not tree else []
            known |= {None} if call is tree else set()
    return (True if True in known else None if None in known else False), calls


@cached_per_file
def _dropping_classes(source: SourceFile) -> set[ClassDefinition]:
    """The classes that drop, that make an object of one that does, or that inherit from one."""
    return classes_using(source, (call for call in source.all_calls if _drops(source, call)))


@cached_per_file
def _drops(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call drops, or makes a layer that does."""
    dropout = dropout_call(source, call)
    if dropout is None or dropout.never_drops:
        return False
    if dropout.form is DropoutForm.HOLDER:
        return dropout.p is not None or _DEFAULT_RATES[dropout.name] > 0
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
