"""Activation checkpointing with `preserve_rng_state=False` over code with dropout.

Training is noisier and ends with a worse model; there is no error and no warning. Checkpointing runs its function again
in the backward pass. Without the random state, dropout then uses another mask than in the forward pass, and the
gradients are wrong. Leave the argument at True, unless the function contains nothing random.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.attribute_usage import classes_using
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call
from dropkit.lint.semantic.edits import fix, replace
from dropkit.lint.semantic.expressions import argument, literal, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Place, Trace

_CHECKPOINTS = (".checkpoint", ".checkpoint_sequential", ".checkpoint_wrapper", ".CheckpointWrapper")
_FLAG = "preserve_rng_state"
# torch's layers whose `dropout` is above 0 by default.
_DROP_BY_DEFAULT = ("torch.nn.Transformer", "torch.nn.TransformerEncoderLayer", "torch.nn.TransformerDecoderLayer")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call in source.all_calls if b"preserve_rng_state" in source.text.utf8 else ():
        options = _options(source, call)
        flag = _flag(source, call) if options is None else _option(source, source.substitute(options))
        # Models of transformers have dropout where their rates are not 0.
        if flag is not None and _is_false(source, flag) and (options is not None or _reruns_dropout(source, call)):
            edit = replace(source, flag, "True") if isinstance(flag, ast.Constant) else None
            yield Violation(call, fix=fix("Pass preserve_rng_state=True", edit, safe=True))


def _options(source: SourceFile, call: ast.Call) -> ast.expr | None:
    """The options of checkpointing that a call gives to a model or trainer of transformers."""
    options = argument(call, None, "gradient_checkpointing_kwargs")
    if options is None and source.last_name(call) == "gradient_checkpointing_enable":
        options = argument(call, 0, "gradient_checkpointing_kwargs")
    return options


def _flag(source: SourceFile, call: ast.Call) -> ast.expr | None:
    """The flag of a call: a keyword, or an item of a dictionary that is unpacked."""
    unpacked = (_option(source, keyword.value) for keyword in call.keywords if keyword.arg is None)
    return argument(call, None, _FLAG) or next(filter(None, unpacked), None)


def _option(source: SourceFile, options: ast.expr) -> ast.expr | None:
    """The flag in a dictionary, or in the name of one."""
    match source.substitute(options):
        case ast.Call(func=ast.Name(id="dict")) as made:
            return argument(made, None, _FLAG)
        case ast.Dict(keys=keys, values=values):
            return next((v for k, v in zip(keys, values, strict=True) if literal(k) == _FLAG), None)
        case _:
            return None


def _is_false(source: SourceFile, flag: ast.expr) -> bool:
    """Whether the flag is False, or a name or attribute that is set to nothing else."""
    values = [flag] if isinstance(flag, ast.Constant) else source.values(flag)
    return bool(values) and all(literal(value) is False for value in values)


def _reruns_dropout(source: SourceFile, call: ast.Call) -> bool:
    """Whether the checkpointed function drops; if that is unknown, whether the enclosing class does."""
    is_partial = source.last_name(call) == "partial" and bool(call.args)
    if not _is_checkpoint(source, call.args[0] if is_partial else call.func):
        return False
    functions = _given_to_partial(source, call) if is_partial else _checkpointed(source, call)
    if functions is None:
        return bool(_dropping_classes(source))
    known = [_drops_when_called(source, function) for function in functions]
    unknown = [function for function, drops in zip(functions, known, strict=True) if drops is None]
    return True in known or any(source.owner(function) in _dropping_classes(source) for function in unknown)


def _is_checkpoint(source: SourceFile, function: ast.expr) -> bool:
    name = source.dotted(function) or ""
    return name.startswith(("torch.utils.checkpoint.", "torch.distributed.")) and name.endswith(_CHECKPOINTS)


def _checkpointed(source: SourceFile, call: ast.Call) -> list[ast.expr]:
    """The functions that `call` checkpoints: its first argument; for a parameter what calls of the function pass."""
    keywords = (keyword.value for keyword in call.keywords if keyword.arg in ("function", "functions", "module"))
    first = next(iter([*call.args, *keywords]), None)
    around = source.function(call)
    names = [parameter.arg for parameter in around.parameters] if around is not None and around.owner is None else []
    if around is None or not isinstance(first, ast.Name) or first.id not in names:
        return [first] if first is not None else []
    place = names.index(first.id)
    passed = (argument(use, place, first.id) for use in source.calls.get(around.name, [])[:MOST])
    return [function for function in passed if function is not None]


def _given_to_partial(source: SourceFile, call: ast.Call) -> list[ast.expr] | None:
    """The functions that are checkpointed through a `partial`; None if it is passed on, as to FSDP."""
    if len(call.args) > 1:
        return call.args[1:2]
    statement = source.parent(call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    attribute, owner = self_attribute(target), source.owner(call)
    if attribute is not None and owner is not None:
        uses = owner.own_calls.get(attribute, [])
    else:
        uses = source.calls.get(target.id, []) if isinstance(target, ast.Name) else []
    return [function for use in uses[:MOST] for function in _checkpointed(source, use)] if uses else None


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
            """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x):
-        return checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=False)  # DRP305
+        return checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=True)


Encoder()(torch.randn(4, 8)).sum().backward()
""",
        ),
    ),
)
