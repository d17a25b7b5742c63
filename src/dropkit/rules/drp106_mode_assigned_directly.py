"""The mode of a model that is assigned, or named without a call.

Predictions differ from call to call, without a warning. `model.training = False` changes one flag of one object: the
layers inside keep theirs, so dropout stays on and batch normalisation goes on learning. `model.eval` without brackets,
and `model.eval = True`, change no flag at all.

Call `model.eval()` or `model.train()`. A single layer, a loop over `modules()`, and a flag that is restored afterwards
are not reported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import MODE_DEPENDENT, TRANSFORMERS
from dropkit.diagnostics import FactCondition, Fix, Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import Binding, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import last_name, last_part, literal, self_attribute
from dropkit.lint.semantic.facts import sets_mode
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file, cached_per_list, grouped
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace

# Names of whole models, with or without other words: `model_ema`, `netG`, `self.text_encoder`.
_MODEL = re.compile(
    r"(^|_)(model|net|network|encoder|decoder|backbone|generator|discriminator|classifier|detector|critic|actor|teacher"
    r"|student|unet|vae|gan|bert|gpt|resnet|vit|transformer|policy|module)(\d|_|$|[A-Z])|^net[A-Z]|net$|(Model|Net)$"
)
# Names of objects whose `training` is another flag, or whose `train` is a data set.
_NO_MODEL = Vocabulary(
    r"trainer|learn|learner|data|dataset|datasets|dls|dm|\w*loader|args|\w*config|cfg|opt|settings|state|agent|env"
    r"|context|ctx|history"
)
# Methods of models, and names of single layers.
_OF_MODELS = ("parameters", "state_dict", "load_state_dict")
_LAYER = Vocabulary(r"\w*drop\w*|\w*norm\w*|bn\w*|layer|sub\w*|child|act|rnn|lstm|gru|attn|attention|fn|func")
# The layers of torch that have such layers inside.
_CONTAINERS = TRANSFORMERS | {
    "torch.nn.Sequential", "torch.nn.ModuleList", "torch.nn.ModuleDict", "torch.nn.TransformerEncoder",
    "torch.nn.TransformerDecoder", "torch.nn.DataParallel", "torch.nn.parallel.DistributedDataParallel",
}  # fmt: skip
# Calls in a constructor that make no layer, besides functions of torch.
_TENSORS = frozenset({"torch.nn.Parameter", "torch.Tensor", "float", "int", "bool", "max", "min", "len", "str", "abs"})
_TORCH = frozenset({"torch", "torchvision", "timm", "transformers", "lightning", "pytorch_lightning"})
# Libraries whose models may have a flag for the mode.
_OTHERS = frozenset({"chainer", "tensorflow", "keras", "mlx", "paddle", "jax", "flax", "unittest", "mock"})
# Words of a comment which says that only the flag of the outermost module is meant.
_ALONE = re.compile(r"only|trick|wrapper|child|sub-?module|batch ?norm|\bBN\b|without", re.IGNORECASE)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in ("training", "eval", "train") if _uses_torch(source) else ():
        for node in source.attributes.get(name, []):
            yield from _judge(source, node)


def _judge(source: SourceFile, node: ast.Attribute) -> Iterator[Violation]:
    name, statement = node.attr, source.parent(node)
    match statement:
        case ast.Expr() if name != "training" and _is_model(source, node.value, trusted=name == "eval"):
            fix = _fix(source, node, statement, f"{source.text.of(node)}()")
            yield Violation(node, f"{name} is not called here: nothing happens", fix)
        case ast.Assign(targets=[target], value=ast.Constant(value=bool() as value)) if target is node:
            known = _is_own(source, node) if self_attribute(node) is not None else _is_model(source, node.value)
            on = value is (name != "eval")
            if not known or _is_switched(source, node, statement) or (on and not _is_ever_off(source, node)):
                return
            message = None if name == "training" else f"{name} is a method: assigned to, it sets no mode"
            call = f"{source.text.of(node.value)}.{'train' if on else 'eval'}()"
            given = _given(source, node) if name == "training" else None
            yield Violation(statement, message, _fix(source, node, statement, call), given=given)
        case _:
            pass


def _given(source: SourceFile, node: ast.Attribute) -> FactCondition:
    """No class of the model has a property `training` that sets the modes of all layers."""
    model, owner = node.value, source.owner(node)
    if isinstance(model, ast.Name) and model.id == source.self_name(model) and owner is not None:
        classes = {owner.name}
    else:
        values = source.values(model)[:MOST]
        bindings = source.bindings(model)[:MOST] if isinstance(model, ast.Name) else []
        classes = {source.last_name(value) for value in values if isinstance(value, ast.Call)}
        hints = [
            b.statement.annotation for b in bindings if isinstance(b.statement, ast.arg) and b.statement.annotation
        ]
        classes |= {source.last_name(hint) for hint in hints}
    known = {name for name in classes if name[:1].isupper()}
    return FactCondition(refuted_by=tuple(f"sets-mode:{name}" for name in sorted(known or {"training.setter"})))


def _uses_torch(source: SourceFile) -> bool:
    """Whether the models of this file are torch's, and no other library's."""
    bindings = (binding for bindings in source.names.values() for binding in bindings)
    imported = {binding.imported.split(".")[0] for binding in bindings if binding.imported is not None}
    return not imported & _OTHERS and (bool(imported & _TORCH) or any(cls.is_module for cls in source.classes))


def _is_model(source: SourceFile, owner: ast.expr, trusted: bool = False) -> bool:
    """Whether an expression is a model of many layers: by its value, or else by its name.

    `trusted` if the attribute in question belongs to hardly anything but models.
    """
    if not isinstance(owner, (ast.Name, ast.Attribute)) or (
        isinstance(owner, ast.Name) and _is_walked(source, source.bindings(owner))
    ):
        return False
    is_known = _is_known_model(source, owner)
    if is_known is not None:
        return is_known
    name = last_name(owner)
    return not _NO_MODEL.has(name) and (trusted or _MODEL.search(name) is not None or _runs_as_model(source, owner))


def _runs_as_model(source: SourceFile, owner: ast.expr) -> bool:
    """Whether a local name is called, or asked for its parameters, where its mode is set, and is named as no layer."""
    if not isinstance(owner, ast.Name) or _LAYER.has(owner.id):
        return False
    asked = (node.value for name in _OF_MODELS for node in source.attributes.get(name, []))
    called = (call.func for call in source.calls.get(owner.id, []) if call.args)
    uses = [use for use in (*asked, *called) if isinstance(use, ast.Name) and use.id == owner.id]
    return any(source.function(use) is source.function(owner) for use in uses)


def _is_known_model(source: SourceFile, owner: ast.expr) -> bool | None:
    """Whether `model` or `self.model` is set to a model; None if its value is unknown."""
    if isinstance(owner, ast.Name):
        return _binds_model(source, source.bindings(owner))
    holder, attribute = source.owner(owner), self_attribute(owner)
    return _makes_model(source, holder.values(attribute)) if holder is not None and attribute is not None else None


@cached_per_list
def _binds_model(source: SourceFile, bindings: list[Binding]) -> bool | None:
    return _makes_model(source, [binding.value for binding in bindings if not binding.derived])


@cached_per_list
def _makes_model(source: SourceFile, values: list[ast.expr | None]) -> bool | None:
    made = next((made for value in values if (made := _made(source, value)) is not None), None)
    if isinstance(made, ClassDefinition):
        return made.is_module and not sets_mode(made) and not _is_leaf(source, made)
    return made in _CONTAINERS if made is not None else None


@cached_per_file
def _is_leaf(source: SourceFile, cls: ClassDefinition) -> bool:
    """Whether a Module certainly has no layers inside: it knows all its bases, and keeps tensors and numbers only."""
    values = [write.value for each in cls.mro for writes in each.writes.values() for write in writes]
    calls = [node for value in values if value is not None for node in ast.walk(value) if isinstance(node, ast.Call)]
    made = [source.called(call) or last_name(call) for call in calls]
    adds = any(each.own_calls.keys() & {"add_module", "register_module"} for each in cls.mro)
    return (
        not adds
        and all(last_part(base) == "Module" for base in cls.external_bases)
        and all(isinstance(value, (ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.BinOp)) for value in values)
        and all(name in _TENSORS or (name.startswith("torch.") and not last_part(name)[:1].isupper()) for name in made)
        and not any(isinstance(value, ast.Name) and not _is_number(source, value) for value in values)
    )


def _is_number(source: SourceFile, name: ast.Name) -> bool:
    """Whether a name is a parameter that is a number: by its annotation, its default, or its name."""
    parameter = next((b.statement for b in source.bindings(name) if isinstance(b.statement, ast.arg)), None)
    if parameter is None:
        return False
    hint = last_name(parameter.annotation) if parameter.annotation is not None else ""
    default = source.default(parameter)
    return (
        hint in ("float", "int", "bool", "str")
        or (isinstance(default, ast.Constant) and default.value is not None)
        or is_rate_name(name.id)
        or name.id in ("p", "eps", "dim", "size", "n", "rate", "scale")
    )


def _made(source: SourceFile, value: ast.expr | None) -> ClassDefinition | str | None:
    """The class of this file, or the dotted name of torch's class, whose object a call makes; None if unknown."""
    if not isinstance(value, ast.Call):
        return None
    name = source.called(value) or ""
    return source.local_class(value.func) or (name if name.startswith("torch.nn.") else None)


@cached_per_list
def _is_walked(_: SourceFile, bindings: list[Binding]) -> bool:
    """Whether a name is imported, or iterates over a call: `for m in model.modules()` reaches all modules."""
    loops = (ast.For, ast.AsyncFor, ast.Name)
    return any(
        binding.imported is not None or (isinstance(binding.statement, loops) and isinstance(binding.value, ast.Call))
        for binding in bindings
    )


def _is_own(source: SourceFile, node: ast.Attribute) -> bool:
    """Whether `node` is `self.training` of a Module with such layers, outside of constructors and overrides."""
    owner, function = source.module(node), source.function(node)
    if owner is None or function is None or node.attr != "training":
        return False
    is_switch = function.method.name in ("__init__", "train", "eval", "training")
    return not is_switch and any(_sets_layers(source, cls) for cls in owner.mro)


@cached_per_file
def _sets_layers(source: SourceFile, owner: ClassDefinition) -> bool:
    values = [write.value for writes in owner.writes.values() for write in writes]
    layers = [layer for value in values if isinstance(value, ast.Call) for layer in (value, *value.args)]
    return any(source.called(layer) in MODE_DEPENDENT for layer in layers)


def _is_switched(source: SourceFile, node: ast.Attribute, statement: ast.stmt) -> bool:
    """Whether a call sets the mode, too, or a comment says that only the flag is meant."""
    comments = "".join(source.text.line(at).partition("#")[2] for at in range(max(node.lineno - 2, 1), node.lineno + 1))
    model = source.text.of(node.value)
    return (
        _ALONE.search(comments) is not None
        or source.function(node) in _switching(source, "eval", model)[0]
        or id(source.block(statement)) in _switching(source, "train", model)[1]
    )


@cached_per_file
def _switching(source: SourceFile, name: str, model: str) -> tuple[set[FunctionDefinition | None], set[int]]:
    """The functions, and the blocks by identity, that call `name` on the object with this source."""
    calls = _by_model(source, name).get(model, [])
    return {source.function(call) for call in calls}, {id(source.block(source.statement(call))) for call in calls}


@cached_per_file
def _by_model(source: SourceFile, name: str) -> dict[str, list[ast.Call]]:
    """All calls of the method `name`, by the source of their object."""
    methods = [(call.func, call) for call in source.calls.get(name, [])]
    return grouped(
        (source.text.of(method.value), call) for method, call in methods if isinstance(method, ast.Attribute)
    )


def _is_ever_off(source: SourceFile, node: ast.Attribute) -> bool:
    """Whether this file sets the same object to evaluation mode, so that setting it to training matters."""
    model = source.text.of(node.value)
    return model in _by_model(source, "eval") or model in _set_off(source, node.attr)


@cached_per_file
def _set_off(source: SourceFile, name: str) -> set[str]:
    """The source of the objects whose attribute `name` is set to evaluation mode."""
    return {
        source.text.of(node.value)
        for node in source.attributes.get(name, [])
        if isinstance(parent := source.parent(node), ast.Assign) and literal(parent.value) is (name == "eval")
    }


def _fix(source: SourceFile, node: ast.Attribute, statement: ast.stmt, text: str) -> Fix | None:
    """Make the call; unsafe if only a name says that it is a model, none if its class overrides `train` or `eval`."""
    model, owner = node.value, source.owner(node)
    is_self = isinstance(model, ast.Name) and model.id == source.self_name(model)
    values = source.values(model)
    classes = {owner} if is_self else {_made(source, value) for value in values[:MOST]}
    made = classes.pop() if len(classes) == 1 and (is_self or len(values) <= MOST) else None
    if isinstance(made, ClassDefinition) and (made.method("train") is not None or made.method("eval") is not None):
        return None
    return Fix(f"Call {text}", (replace(source, statement, text),), safe=made is not None)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for name in trace.in_train_mode[:1]:
        more = f" (and {len(trace.in_train_mode) - 1} more)" if len(trace.in_train_mode) > 1 else ""
        yield TraceViolation(
            name, f"found in training mode{more}, its model in evaluation mode: call train() or eval()"
        )


RULE = Rule(
    code="DRP106",
    name="mode-assigned-directly",
    message="layers inside keep their mode: call train() or eval()",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="call `model.eval()` or `model.train()`",
    fix_is_safe=True,
    examples=(
        Example(
            """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
-model.training = False  # DRP106
+model.eval()
model(torch.randn(4, 8))
""",
        ),
        Example(
            """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
-model.eval  # DRP106
+model.eval()
model(torch.randn(4, 8))
""",
            unseen="a method that was not called changes nothing that could be seen",
        ),
    ),
)
