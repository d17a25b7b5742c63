"""Layers with dropout or batch normalisation in a plain list, tuple or dict.

A Module finds the layers that are its own attributes, and those in `nn.ModuleList`, `nn.ModuleDict` and
`nn.Sequential`. What lies in a plain container is not found: `model.eval()` does not reach it, so its dropout stays on
in evaluation; nor are its parameters trained, saved or moved to the device. Use `nn.ModuleList`.

The fix adds keys to the state dict, so checkpoints written before no longer load as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import BATCH_NORMS, DROPOUT_MODULES, FUNCTIONALS, REGISTERING
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.edits import replace, spell
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.lint.semantic.test_context import is_trial
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, active_in_eval, severity_in_eval
from dropkit.trace import Form, Trace

_HAVE_MODES = DROPOUT_MODULES | BATCH_NORMS | FUNCTIONALS.keys() | {
    "torch.nn.TransformerEncoderLayer", "torch.nn.TransformerDecoderLayer", "torch.nn.Transformer",
}  # fmt: skip
_LAST_NAMES = sorted({name.rsplit(".", 1)[1] for name in _HAVE_MODES})
_CONTAINERS = frozenset({"torch.nn.Sequential", "torch.nn.ModuleList", "torch.nn.ModuleDict"})
_PLAIN = frozenset({"list", "tuple", "dict", "OrderedDict", "defaultdict", "deque", "set"})
_ADDING = frozenset({"append", "extend", "insert", "add", "appendleft"})
# Calls that only look: what they are given is in no other container afterwards.
_LOOKING = frozenset(
    {"len", "enumerate", "zip", "reversed", "range", "iter", "print", "next", "id", "isinstance", "str"}
)
# Who registers by hand: self.add_module("0", layer), setattr(self, "layer0", layer), self._modules["0"] = layer.
_BY_HAND = frozenset({"setattr", "__setattr__", "add_module", "register_module"})
# Held out of the state dict on purpose.
_HIDDEN = Vocabulary(r"teachers?|ema|frozen|momentum|pretrain\w*|discriminators?|loss|losses|metrics?")
_SAYS_SO = re.compile(
    r"#.*(regist|hide|hidden from|not (be )?(saved|trained)|state.?dict|avoid|on purpose)", re.IGNORECASE
)

# So many elements of what a container holds are looked at.
_MOST_ELEMENTS = 1000


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        if not owner.writes or not owner.is_module:
            continue
        for attribute, writes in owner.writes.items():
            values = [write.value for write in writes if write.function is not None]
            if len(values) == len(writes) and all(_is_plain(source, value) for value in values):
                yield from _judge(source, owner, attribute, [value for value in values if value is not None])


def _is_plain(source: SourceFile, value: ast.expr | None) -> bool:
    """Whether `value` is a list, tuple or dict of Python's, or a name that was set to one."""
    value = _local(source, value) if isinstance(value, ast.Name) else value
    return value is not None and all(_is_literal(source, one) for one in _terms(value))


def _is_literal(source: SourceFile, value: ast.expr | None) -> bool:
    value = _local(source, value) if isinstance(value, ast.Name) else value
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in _PLAIN
    return isinstance(value, (ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp))


def _terms(value: ast.expr) -> list[ast.expr]:
    """The parts of a sum of containers; of a product its first factor."""
    found: list[ast.expr] = []
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, ast.BinOp):
            pending += [one.left] if isinstance(one.op, ast.Mult) else [one.right, one.left]
        else:
            found.append(one)
    return found


def _local(source: SourceFile, name: ast.Name) -> ast.expr | None:
    """What a local name is set to, once and for all."""
    bindings, function = source.bindings(name), source.function(name)
    if function is None or name.id not in function.names or len(bindings) != 1 or bindings[0].derived:
        return None
    return bindings[0].value


def _judge(source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]) -> Iterator[Violation]:
    places = list(_places(source, owner, attribute, values))
    bad = [place for place, element in places if _has_modes(source, element)]
    if not bad or _is_alone(values, places):
        return
    if _registers_by_hand(source, owner) or _is_used_elsewhere(source, owner, attribute, values):
        return
    where = min(bad, key=source.text.start)
    lines = {where.lineno - 1, where.lineno, *(value.lineno for value in values)}
    if any(_SAYS_SO.search(source.text.line(line)) for line in lines if line > 0) or is_trial(source, where):
        return
    hit = Violation(where, fix=_fix(source, values, len(bad) == len(places)))
    yield hit.as_information() if _HIDDEN.has(attribute) else hit


def _places(
    source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]
) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each element that gets into `self.attribute`, with the expression to point at."""
    for value in values:
        if isinstance(value, ast.Name):
            first = _local(source, value)
            if first is not None:
                yield from ((value, element) for element in _elements(first))
            function = source.function(value)
            if function is not None:
                yield from _added(source, source.reads_in(function.node, value.id))
        else:
            yield from ((value, element) for element in _elements(value))
    yield from _added(source, owner.reads.get(attribute, []))


def _elements(value: ast.expr) -> list[ast.expr]:
    match value:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return elements
        case ast.Dict(values=elements):
            return elements
        case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element) | ast.DictComp(value=element):
            return [element]
        case ast.Call(args=[ast.List() | ast.Tuple() | ast.ListComp() | ast.GeneratorExp() as inner]):
            return _elements(inner)
        case ast.BinOp():
            return [element for term in _terms(value) for element in _elements(term)]
        case _:
            return []


def _added(source: SourceFile, uses: list[ast.Attribute] | list[ast.Name]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What is put into a container by `xs.append(layer)`, `xs += [layer]` or `xs["name"] = layer`."""
    for use in uses:
        above = source.parent(use)
        call = source.parent(above) if above is not None else None
        if isinstance(above, ast.Attribute) and above.attr in _ADDING and isinstance(call, ast.Call) and call.args:
            element = call.args[-1]
            inside = _elements(element) if above.attr == "extend" else [element]
            yield from ((call, one) for one in inside)
        elif isinstance(above, ast.Subscript) and isinstance(above.ctx, ast.Store) and isinstance(call, ast.Assign):
            yield (call.value, call.value)


def _is_alone(values: list[ast.expr], places: list[tuple[ast.expr, ast.expr]]) -> bool:
    """Whether it is the one layer of a literal `[layer]`: the way to hold a layer that is not to be found."""
    return (
        len(places) == 1 and len(values) == 1 and isinstance(values[0], (ast.List, ast.Tuple)) and bool(values[0].elts)
    )


@cached_per_file
def _has_modes(source: SourceFile, element: ast.expr) -> bool:
    """Whether `element` is, or holds, a new layer that behaves differently in training and evaluation."""
    pending = [element]
    for one in pending:
        if isinstance(one, ast.Name):
            value = _local(source, one)
            pending += [value] if value is not None and not _goes_elsewhere(source, one) else []
        elif isinstance(one, (ast.List, ast.Tuple)):
            pending += one.elts
        elif isinstance(one, ast.Call):
            name, made = source.called(one), source.local_class(one.func)
            if isinstance(one.func, ast.Attribute) and one.func.attr in ("to", "cuda", "double", "float", "half"):
                pending.append(one.func.value)
            elif name in _HAVE_MODES or (made is not None and made.is_module and made in _classes_with_modes(source)):
                return True
            elif name in _CONTAINERS:
                pending += _contents(one)
        # Longer rows and chains of names are not followed to their ends.
        if len(pending) > _MOST_ELEMENTS:
            return False
    return False


def _contents(container: ast.Call) -> Iterator[ast.expr]:
    for argument in container.args:
        inside = argument.value if isinstance(argument, ast.Starred) else argument
        yield from _elements(inside) or [inside]


def _goes_elsewhere(source: SourceFile, name: ast.Name) -> bool:
    """Whether the layer of that name is also given to something else, or set to an attribute: registered, perhaps."""
    function = source.function(name)
    for use in source.reads_in(function.node, name.id) if function is not None else []:
        if use is not name and not isinstance(source.parent(use), (ast.Attribute, ast.Compare)):
            return True
    return False


@cached_per_file
def _classes_with_modes(source: SourceFile) -> dict[ClassDefinition | None, None]:
    """The classes of this file that use dropout or batch normalisation, themselves or in the layers they make."""
    users = (
        source.owner(call)
        for name in _LAST_NAMES
        for call in source.calls.get(name, [])
        if source.called(call) in _HAVE_MODES
    )
    found = {one: None for one in users if one is not None}
    pending = list(found)
    for one in pending:
        holders = [source.owner(call) for call in source.calls.get(one.name, [])]
        for other in (*one.subclasses, *holders):
            if other is not None and other not in found:
                found[other] = None
                pending.append(other)
    return {**found}


def _registers_by_hand(source: SourceFile, owner: ClassDefinition) -> bool:
    return any(one in _by_hand(source) for one in (*owner.mro, *owner.subclasses))


@cached_per_file
def _by_hand(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that register layers by other means than an assignment."""
    calls = [call for name in _BY_HAND for call in source.calls.get(name, [])]
    return {source.owner(node) for node in [*calls, *source.attributes.get("_modules", [])]}


@cached_per_file
def _set_from_outside(source: SourceFile, attribute: str) -> bool:
    """Whether an attribute of this name is set other than through self: model.blocks = nn.ModuleList(model.blocks)."""
    nodes = source.attributes.get(attribute, [])
    return any(self_attribute(node) is None and isinstance(node.ctx, ast.Store) for node in nodes)


def _is_used_elsewhere(source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]) -> bool:
    """Whether the container is registered later, replaced, given away, or walked by a `train` of its own."""
    family = [*owner.mro, *owner.subclasses]
    if any(one is not owner and attribute in one.writes for one in family):
        return True
    uses: list[ast.Attribute | ast.Name] = [use for one in family for use in one.reads.get(attribute, [])]
    for value in values:
        function = source.function(value)
        if isinstance(value, ast.Name) and function is not None:
            uses += [use for use in source.reads_in(function.node, value.id) if use is not value]
    return _set_from_outside(source, attribute) or any(_gives_away(source, use) for use in uses)


def _gives_away(source: SourceFile, use: ast.Attribute | ast.Name) -> bool:
    function = source.function(use)
    if function is not None and function.method.name in ("train", "eval", "_apply", "children", "modules"):
        return True
    below: ast.AST = use
    for above in source.parents(use):
        if isinstance(above, ast.stmt):
            return isinstance(above, (ast.Assign, ast.Return)) and above.value is below
        if isinstance(above, ast.Call) and below is not above.func:
            name = above.func.attr if isinstance(above.func, ast.Attribute) else getattr(above.func, "id", "")
            if name in REGISTERING or (below is use and name not in _LOOKING):
                return True
        if isinstance(above, ast.Starred):
            return True
        below = above
    return False


def _fix(source: SourceFile, values: list[ast.expr], all_are_modules: bool) -> Fix | None:
    name = spell(source, "torch.nn.ModuleList")
    if name is None or len(values) != 1 or not isinstance(values[0], (ast.List, ast.ListComp)) or not all_are_modules:
        return None
    edit = replace(source, values[0], f"{name}({source.text.of(values[0])})")
    return Fix("Use nn.ModuleList", (edit,), safe=False)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in active_in_eval(trace):
        if site.form is Form.UNREGISTERED:
            yield TraceViolation(
                site, "not registered in the model: model.eval() does not reach it", severity_in_eval(site)
            )


RULE = Rule(
    code="DRP105",
    name="dropout-in-plain-container",
    message="model.eval() does not reach layers in a plain container",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="use `nn.ModuleList`",
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(self.linear(x))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [Block() for _ in range(2)]  # DRP105

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


Blocks().eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(self.linear(x))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(2)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


Blocks().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
