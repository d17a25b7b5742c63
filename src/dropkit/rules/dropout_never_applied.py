"""A dropout layer that is built and never applied.

The model trains without the regularisation that its constructor promises: it overfits as if the rate were zero, and
tuning the rate changes nothing. Apply the layer in `forward`, or delete it so that nobody trusts it.

Layers that a subclass, a holder of the object or a name made at run time may apply are not reported, nor are leftovers
whose rate reaches another layer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_PATHS
from dropkit.facts.definitions import Class, Write
from dropkit.facts.edit import delete_statement
from dropkit.facts.expressions import argument, unpacks
from dropkit.facts.finding import Fix, Question, Severity
from dropkit.facts.module import Module
from dropkit.facts.rates import default
from dropkit.facts.reads import admitted, is_abstract, is_container, is_plain, leans_on_base, may_be_read
from dropkit.facts.trace import Trace
from dropkit.rules.rule import Example, Hit, Rule, Sight

# By convention of all libraries: `Dropout2d`, `VariationalDropout`, `DropPath`, `StochasticDepth`.
_LAYER = re.compile(r"^(?:[A-Z]\w*)?(?:Dropout\w*|DropOut\w*|DropPath|DropBlock\w*|StochasticDepth|DropConnect)$")
_ROWS = ("ModuleList", "Sequential")


def find(module: Module) -> Iterator[Hit]:
    for owner in module.classes:
        for attribute, writes in owner.writes.items():
            if attribute in owner.reads or not all(_makes_dropout(write) for write in writes):
                continue
            if not owner.is_module or _excused(owner, attribute, writes):
                continue
            yield _hit(module, owner, attribute, writes)


def _makes_dropout(write: Write) -> bool:
    """Whether a method keeps a new dropout layer under this name alone."""
    alone = isinstance(write.statement, ast.AnnAssign) or (
        isinstance(write.statement, ast.Assign) and len(write.statement.targets) == 1
    )
    return alone and write.function is not None and not write.derived and bool(_layers(write.value))


def _layers(value: ast.expr | None) -> list[ast.Call]:
    """The dropouts that `value` makes; empty where it makes, or may make, anything else."""
    if isinstance(value, ast.IfExp):
        branches = [_layers(one) for one in (value.body, value.orelse) if not _is_nothing(one)]
        return [one for branch in branches for one in branch] if all(branches) else []
    if not isinstance(value, ast.Call):
        return []
    last = getattr(value.func, "attr", getattr(value.func, "id", ""))
    if _LAYER.match(last):
        return [value]
    if last in _ROWS and value.args:
        given = value.args[0] if len(value.args) == 1 else ast.List(elts=value.args)
        rows = given.elts if isinstance(given, (ast.List, ast.Tuple)) else [getattr(given, "elt", given)]
        inner = [_layers(one) for one in rows if one is not value]
        return [one for layers in inner for one in layers] if all(inner) else []
    return []


def _is_nothing(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return getattr(value.func, "attr", getattr(value.func, "id", "")) == "Identity"
    return isinstance(value, (ast.Constant, ast.Lambda))


def _excused(owner: Class, attribute: str, writes: list[Write]) -> bool:
    return (
        is_container(owner)
        or is_abstract(owner)
        or any(admitted(owner.module, write.statement) for write in writes)
        or may_be_read(owner, attribute)
        or (not is_plain(owner) and ("forward" not in owner.methods or leans_on_base(owner)))
        or any(_rate_is_applied(owner, write) for write in writes)
        or _is_unfinished(owner)
        or all(_is_always_zero(owner, write) for write in writes)
    )


def _is_unfinished(owner: Class) -> bool:
    """Whether `forward` says that it is still to be written."""
    forward = owner.methods.get("forward")
    return forward is not None and "TODO" in owner.module.text.of(forward.node)


def _is_always_zero(owner: Class, write: Write) -> bool:
    """Whether the rate is an argument that is 0 by default, and nobody in the file who makes the object gives it."""
    layers = _layers(write.value)
    made = owner.module.calls.get(owner.name, [])
    if write.function is None or len(layers) != 1 or not made or owner.heirs:
        return False
    rates = [*layers[0].args, *(keyword.value for keyword in layers[0].keywords)]
    name = rates[0].id if len(rates) == 1 and isinstance(rates[0], ast.Name) else None
    parameters = {parameter.arg: parameter for parameter in write.function.parameters}
    if name not in parameters or not _is_zero(default(owner.module, parameters[name])):
        return False
    place = list(parameters).index(name) - 1
    return not any(unpacks(call) or argument(call, place, name) is not None for call in made)


def _is_zero(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, (int, float)) and value.value == 0


def _rate_is_applied(owner: Class, write: Write) -> bool:
    """Whether what the rate is made from also goes elsewhere in the class, or a layer of equal rate is applied."""
    module = owner.module
    rates = [rate for call in _layers(write.value) for rate in [*call.args, *(k.value for k in call.keywords)]]
    words = {word for rate in rates for word in _words(module, rate)}
    for node in ast.walk(owner.node):
        named = isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Load)
        if named and ast.unparse(node) in words and not _counts_for_nothing(owner, node, words):
            return True
    if words:
        return False
    same = {ast.unparse(call) for call in _layers(write.value)}
    return any(
        attribute in owner.reads and any(ast.unparse(call) in same for call in _layers(other.value))
        for attribute, others in owner.writes.items()
        for other in others
    )


def _words(module: Module, rate: ast.expr) -> Iterator[str]:
    """The names, as source, that a rate is taken from: `dropout`, `config.dropout`, `self.rates[2]`."""
    for node in ast.walk(rate):
        above = module.parent(node)
        part = isinstance(above, (ast.Attribute, ast.Subscript)) or (isinstance(above, ast.Call) and above.func is node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and (node is rate or not part):
            yield ast.unparse(node)
            value = module.value(node) if isinstance(node, ast.Name) else None
            if value is not None:
                yield from _words(module, value)


def _counts_for_nothing(owner: Class, node: ast.AST, words: set[str]) -> bool:
    """Whether a read only asks (`if dropout > 0`), renames the rate, or feeds what nobody reads."""
    module = owner.module
    below: ast.AST = node
    for above in module.parents(node):
        if isinstance(above, (ast.Assert, ast.Raise)):
            return True
        if isinstance(above, (ast.If, ast.IfExp)) and above.test is below:
            return True
        if isinstance(above, ast.stmt):
            break
        below = above
    statement = module.statement(node)
    if isinstance(statement, ast.Assign) and all(
        isinstance(to, ast.Name) and to.id in words for to in statement.targets
    ):
        return True
    return any(
        write.statement is statement and not may_be_read(owner, attribute)
        for attribute, writes in owner.writes.items()
        for write in writes
    )


def _hit(module: Module, owner: Class, attribute: str, writes: list[Write]) -> Hit:
    edit = delete_statement(module, writes[0].statement) if len(writes) == 1 else None  # pyright: ignore
    fix = Fix("Delete the layer", (edit,), safe=False) if edit is not None else None
    message = f"self.{attribute} is built but never applied" if len(attribute) < 26 else None
    return Hit(writes[0].statement, message, fix, unless=Question(owner.name, attribute))


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        if not site.reached and not site.carries_rate and site.p and not trace.stopped and not trace.branched:
            # Blocks without a branch around them have such a layer and no use for it.
            severity = Severity.INFO if site.kind in DROPOUT_PATHS else None
            yield Sight(site, "dropout layer that this run never reached", severity)


RULE = Rule(
    code="DRP202",
    name="dropout-never-applied",
    message="dropout layer is built but never applied",
    severity=Severity.WARNING,
    find=find,
    see=see,
    fix="delete the layer that is not applied",
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)  # DRP202
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
