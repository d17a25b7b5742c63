"""Evaluation of a model that is still in training mode.

The reported accuracy or loss is not the model's: dropout still drops, and batch normalisation uses the statistics of
the batch and learns from test data. `torch.no_grad()` turns off gradients and nothing else. Call `model.eval()` before
and `model.train()` after.

Reported where a file builds a model with such layers, trains it and measures it under `torch.no_grad()`, and nothing in
the file switches modes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import MODE_DEPENDENT, TRANSFORMERS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.expressions import argument, given, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Default, Example, Rule, Violation, unless_intended

_NO_GRAD = ("torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad", "torch.autograd.inference_mode")
_MEASURED = re.compile(
    r"acc($|_|u)|correct|metric|scores?$|f1|auc|mse|rmse|mae|psnr|ssim|iou|dice|recall|precision|confusion|loss|error"
    r"|perplexity|ppl|hits|mrr|y_true|y_pred",
    re.IGNORECASE,
)
# Functions named so may switch modes in another file.
_SWITCHES = Vocabulary(r"eval\w*|mode|inference|infer|freeze|trainer|predict\w*")
_SAME_MODEL = ("to", "cuda", "cpu", "float", "double", "half", "train", "apply", "requires_grad_")
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "DDP", "compile", "prepare")
_PRETRAINED = re.compile(r"^torchvision\.models\.(?!vit)([a-z]+\.)?[a-z]")


def check_source(source: SourceFile) -> Iterator[Violation]:
    if not all(source.calls.get(name) for name in ("backward", "step", "parameters")) or _switches(source):
        return
    for call in source.calls_of(*_NO_GRAD):
        nodes = [node for statement in _body(source, call) for node in ast.walk(statement)]
        if _measures(nodes) and _runs_trained_model(source, nodes):
            yield from unless_intended(source, Violation(call))


def _switches(source: SourceFile) -> bool:
    """Whether anything in the file may put a model into evaluation mode, also a function of another file."""
    known = {"inference_mode", "no_grad", *(function.name for function in source.functions)}
    return (
        "eval" in source.attributes
        or any(isinstance(call.func, ast.Attribute) and given(call) for call in source.calls.get("train", []))
        or any(isinstance(node.ctx, ast.Store) for node in source.attributes.get("training", []))
        or any(
            _SWITCHES.has(name) and name not in known and not (source.called(calls[0]) or "").startswith("torch.")
            for name, calls in source.calls.items()
        )
    )


def _body(source: SourceFile, no_grad: ast.Call) -> list[ast.stmt]:
    """The statements without gradients: the block of a `with`, or the body of the decorated function."""
    parent = source.parent(no_grad)
    if isinstance(parent, ast.withitem):
        parent = source.parent(parent)
    return parent.body if isinstance(parent, (ast.With, ast.FunctionDef)) else []


def _measures(nodes: list[ast.AST]) -> bool:
    """Whether a variable named after a metric is set, and nothing is trained."""
    trains = any(isinstance(node, ast.Attribute) and node.attr in ("backward", "step") for node in nodes)
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return not trains and any(map(_MEASURED.search, names))


def _runs_trained_model(source: SourceFile, nodes: list[ast.AST]) -> bool:
    """Whether a model is called that depends on the mode, and an optimiser gets its parameters."""
    callees = [node.func for node in nodes if isinstance(node, ast.Call)]
    models = [_built(source, callee) for callee in callees if isinstance(callee, ast.Name) or self_attribute(callee)]
    return any(
        all(_depends_on_mode(source, call) for call in model) and not _trained(source).isdisjoint(model)
        for model in models
    )


@cached_per_file
def _trained(source: SourceFile) -> set[ast.Call]:
    """The calls that built models whose parameters are asked for."""
    models = (call.func.value for call in source.calls["parameters"] if isinstance(call.func, ast.Attribute))
    return {call for model in models for call in _built(source, model)}


@cached_per_file
def _built(source: SourceFile, model: ast.expr | None, depth: int = 0) -> list[ast.Call]:
    """The calls that built `model`, through names, parameters, `.to(device)` and wrappers; empty if unknown."""
    if model is None or depth > 5:
        return []
    if isinstance(model, ast.Call):
        last = source.last_name(model)
        if isinstance(model.func, ast.Attribute) and last in _SAME_MODEL and source.called(model) is None:
            return _built(source, model.func.value, depth + 1)
        return _built(source, model.args[0], depth + 1) if last in _WRAPPERS and model.args else [model]
    values = _values(source, model)
    each = [_built(source, value, depth + 1) for value in values] if len(values) <= MOST else []
    calls = dict.fromkeys(call for inner in each for call in inner)
    return list(calls) if all(each) and len(calls) <= MOST else []


def _values(source: SourceFile, model: ast.expr) -> list[ast.expr | None]:
    """What a name, a parameter or `self.attribute` is set to, as far as this file knows; None for what is unknown."""
    attribute, owner = self_attribute(model), source.owner(model)
    if attribute is not None and owner is not None:
        assigned = owner.values(attribute)
        return [None] if len(assigned) > MOST else [each for each in assigned if not _is_made_of(source, each, model)]
    bindings = source.bindings(model) if isinstance(model, ast.Name) else []
    values: list[ast.expr | None] = [None] if len(bindings) > MOST else []
    for binding in bindings[:MOST]:
        if isinstance(binding.statement, ast.arg):
            values += _given(source, binding.statement)
        elif binding.derived or not _is_made_of(source, binding.value, model):
            values.append(None if binding.derived else binding.value)
    return values


def _is_made_of(source: SourceFile, value: ast.expr | None, model: ast.expr) -> bool:
    """Whether `value` is made of the model itself, as in `model = model.to(device)`."""
    name = re.escape(source.text.of(model))
    return value is not None and re.search(rf"(?<![\w.]){name}\b", source.text.of(value)) is not None


@cached_per_file
def _given(source: SourceFile, parameter: ast.arg) -> list[ast.expr | None]:
    """The arguments that calls in this file pass for a parameter."""
    arguments = source.parent(parameter)
    function = source.by_node.get(source.parent(arguments)) if arguments is not None else None  # pyright: ignore
    if not isinstance(function, FunctionDefinition):
        return [None]
    called, is_method = function.name, function.owner is not None
    index = function.parameters.index(parameter) - is_method
    if function.owner is not None and called == "__init__":
        called, is_method = function.owner.name, False
    calls = [
        call
        for call in source.calls.get(called, [])
        if isinstance(call.func, ast.Attribute) == is_method and source.function(call) is not function
    ]
    return [argument(call, index, parameter.arg) for call in calls] or [None]


@cached_per_file
def _depends_on_mode(source: SourceFile, built: ast.Call) -> bool:
    """Whether the model that `built` makes has dropout or batch normalisation."""
    name = source.called(built) or ""
    if name == "torch.nn.Sequential":
        return any(source.called(node) in MODE_DEPENDENT | TRANSFORMERS for node in ast.walk(built))
    return _PRETRAINED.match(name) is not None or source.local_class(built.func) in mode_dependent_modules(source)


RULE = Rule(
    code="DRP107",
    name="eval-without-eval-mode",
    message="the model is measured in training mode: no eval() here",
    severity=Severity.WARNING,
    default=Default.PREVIEW,
    check_source=check_source,
    examples=(
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(32, 8), torch.randint(2, (32,))

model.train()
for _ in range(3):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

with torch.no_grad():  # DRP107
    accuracy = (model(x).argmax(1) == y).float().mean()
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(32, 8), torch.randint(2, (32,))

model.train()
for _ in range(3):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

model.eval()
with torch.no_grad():
    accuracy = (model(x).argmax(1) == y).float().mean()
""",
            unseen="the mode is right or wrong in the loop around the model, which is not run",
        ),
    ),
)
