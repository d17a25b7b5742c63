"""Layers with dropout or batch normalisation in a plain list, tuple or dict.

Their dropout stays on in evaluation, and their parameters are not trained, saved or moved to the device. A Module finds
the layers that are its own attributes and those in `nn.ModuleList`, `nn.ModuleDict` and `nn.Sequential`;
`model.eval()` does not reach layers in a plain container. Use `nn.ModuleList`.

The fix adds keys to the state dict, so checkpoints written before no longer load as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS, MODE_DEPENDENT, REGISTERING, TRANSFORMERS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.attribute_usage import is_set_from_outside, mode_dependent_modules
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import has_zero_rate
from dropkit.lint.semantic.edits import fix, replace, spell
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, violations_in_eval
from dropkit.trace import Form, Trace

# What behaves differently in training and evaluation.
_MODE_DEPENDENT = MODE_DEPENDENT | TRANSFORMERS | FUNCTIONALS.keys()
_CONTAINERS = frozenset({"torch.nn.Sequential", "torch.nn.ModuleList", "torch.nn.ModuleDict"})
_PLAIN = frozenset({"list", "tuple", "dict", "OrderedDict", "defaultdict", "deque", "set"})
_ADDING = frozenset({"append", "extend", "insert", "add", "appendleft"})
# Calls that read a container and keep nothing of it.
_READING = frozenset(
    {"len", "enumerate", "zip", "reversed", "range", "iter", "print", "next", "id", "isinstance", "str"}
)
# Other ways to register a layer: self.add_module("0", layer), setattr(self, "layer0", layer).
_REGISTRATIONS = frozenset({"setattr", "__setattr__", "add_module", "register_module"})
# Kept out of the state dict by design.
_HIDDEN = Vocabulary(r"teachers?|ema|frozen|momentum|pretrain\w*|discriminators?|loss|losses|metrics?")
_IS_INTENDED = re.compile(
    r"#.*(regist|hide|hidden from|not (be )?(saved|trained)|state.?dict|avoid|on purpose)", re.IGNORECASE
)
# Elements that are looked at in a container.
_MOST_ELEMENTS = 1000


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        for attribute, writes in owner.writes.items() if owner.is_module else ():
            values = [write.value for write in writes if write.function is not None and write.value is not None]
            if len(values) == len(writes) and all(_is_plain(source, value) for value in values):
                yield from _judge(source, owner, attribute, values)


def _judge(source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]) -> Iterator[Violation]:
    places = list(_places(source, owner, attribute, values))
    bad = [place for place, element in places if _has_modes(source, element)]
    if not bad or _is_alone(values, places) or _is_used_elsewhere(source, owner, attribute, values):
        return
    where = min(bad, key=source.text.start)
    lines = {where.lineno - 1, where.lineno, *(value.lineno for value in values)}
    if any(_IS_INTENDED.search(source.text.line(line)) for line in lines if line > 0) or is_in_test(source, where):
        return
    violation = Violation(where, fix=_fix(source, values) if len(bad) == len(places) else None)
    yield violation.as_information() if _HIDDEN.has(attribute) else violation


def _is_plain(source: SourceFile, value: ast.expr) -> bool:
    """Whether `value` is a list, tuple or dict of Python's, a name that was set to one, or a sum of those."""
    resolved = _resolved(source, value)
    return resolved is not None and all(_is_literal(_resolved(source, term)) for term in _terms(resolved))


def _is_literal(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in _PLAIN
    return isinstance(value, (ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp))


def _terms(value: ast.expr) -> list[ast.expr]:
    """The terms of a sum of containers; of a product the first factor."""
    terms: list[ast.expr] = []
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, ast.BinOp):
            pending += [part.left] if isinstance(part.op, ast.Mult) else [part.right, part.left]
        else:
            terms.append(part)
    return terms


def _resolved(source: SourceFile, value: ast.expr) -> ast.expr | None:
    """The value of a local name that is bound once, None for any other name; an expression itself."""
    if not isinstance(value, ast.Name):
        return value
    function = source.function(value)
    bindings = function.names.get(value.id, []) if function is not None else []
    return bindings[0].value if len(bindings) == 1 and not bindings[0].derived else None


def _other_reads(source: SourceFile, value: ast.expr) -> list[ast.Name]:
    """The other reads of a local name in its function; none of any other expression."""
    function = source.function(value)
    reads = source.reads_in(function.node, value.id) if isinstance(value, ast.Name) and function is not None else []
    return [read for read in reads if read is not value]


def _places(
    source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]
) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each element that is put into `self.attribute`, with the expression to report."""
    for value in values:
        resolved = _resolved(source, value)
        yield from ((value, element) for element in (_elements(resolved) if resolved is not None else ()))
        yield from _added(source, _other_reads(source, value))
    yield from _added(source, owner.reads.get(attribute, []))


def _elements(value: ast.expr) -> list[ast.expr]:
    match value:
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Dict(values=elements):
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
    """The elements that are put into a container by `xs.append(layer)`, `xs += [layer]` or `xs["name"] = layer`."""
    for use in uses:
        parent = source.parent(use)
        outer = source.parent(parent)
        if isinstance(parent, ast.Attribute) and parent.attr in _ADDING and isinstance(outer, ast.Call) and outer.args:
            added = outer.args[-1]
            yield from ((outer, element) for element in (_elements(added) if parent.attr == "extend" else [added]))
        elif isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store) and isinstance(outer, ast.Assign):
            yield outer.value, outer.value


def _is_alone(values: list[ast.expr], places: list[tuple[ast.expr, ast.expr]]) -> bool:
    """Whether it is the one layer of a literal `[layer]`: the usual way to hide a layer from the Module."""
    is_row = len(values) == 1 and isinstance(values[0], (ast.List, ast.Tuple)) and len(values[0].elts) == 1
    return is_row and len(places) == 1


@cached_per_file
def _has_modes(source: SourceFile, element: ast.expr) -> bool:
    """Whether `element` is, or holds, a new layer that behaves differently in training and evaluation."""
    pending = [element]
    for value in pending:
        if isinstance(value, ast.Name):
            assigned = _resolved(source, value)
            # A layer that is passed to a call or set to an attribute, too, may be registered there.
            others = (source.parent(read) for read in _other_reads(source, value))
            if assigned is not None and all(isinstance(other, (ast.Attribute, ast.Compare)) for other in others):
                pending.append(assigned)
        elif isinstance(value, ast.IfExp):
            pending += [value.body, value.orelse]
        elif isinstance(value, ast.BoolOp):
            pending += value.values
        elif isinstance(value, (ast.List, ast.Tuple)):
            pending += value.elts
        elif isinstance(value, ast.Call):
            name = source.called(value)
            if isinstance(value.func, ast.Attribute) and value.func.attr in ("to", "cuda", "double", "float", "half"):
                pending.append(value.func.value)
            elif name in _MODE_DEPENDENT or source.local_class(value.func) in mode_dependent_modules(source):
                if not has_zero_rate(source, value):
                    return True
            elif name in _CONTAINERS:
                arguments = [each.value if isinstance(each, ast.Starred) else each for each in value.args]
                pending += [element for each in arguments for element in _elements(each) or [each]]
        # Longer rows and chains of names are not followed to their ends.
        if len(pending) > _MOST_ELEMENTS:
            return False
    return False


@cached_per_file
def _registering(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes that register layers by other means than an assignment."""
    calls = [call for name in _REGISTRATIONS for call in source.calls.get(name, [])]
    return {source.owner(node) for node in [*calls, *source.attributes.get("_modules", [])]}


def _is_used_elsewhere(source: SourceFile, owner: ClassDefinition, attribute: str, values: list[ast.expr]) -> bool:
    """Whether the container, or what is in it, may be registered later, replaced, passed on, or set to a mode."""
    family = [*owner.mro, *owner.subclasses]
    own = (use for cls in family for use in cls.reads.get(attribute, []))
    local = (read for value in values for read in _other_reads(source, value))
    return (
        any(cls in _registering(source) or (cls is not owner and attribute in cls.writes) for cls in family)
        or is_set_from_outside(source, attribute)
        or any(_passes_on(source, use) for use in (*own, *local))
    )


def _passes_on(source: SourceFile, use: ast.Attribute | ast.Name) -> bool:
    function = source.function(use)
    if function is not None and function.method.name in ("train", "eval", "_apply", "children", "modules"):
        return True
    node: ast.AST = use
    for parent in source.parents(use):
        if isinstance(parent, ast.stmt):
            return isinstance(parent, (ast.Assign, ast.Return)) and parent.value is node
        if isinstance(parent, ast.Call) and node is not parent.func:
            name = source.last_name(parent)
            if name in REGISTERING or (node is use and name not in _READING):
                return True
        if isinstance(parent, ast.Starred):
            return True
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Subscript) and node is parent.func:
            return False  # one layer is applied: its result is no layer
        node = parent
    return False


def _fix(source: SourceFile, values: list[ast.expr]) -> Fix | None:
    name = spell(source, "torch.nn.ModuleList")
    if name is None or len(values) != 1 or not isinstance(values[0], (ast.List, ast.ListComp)):
        return None
    return fix("Use nn.ModuleList", replace(source, values[0], f"{name}({source.text.of(values[0])})"))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    message = "not registered in the model: model.eval() does not reach it"
    return violations_in_eval(trace, Form.UNREGISTERED, message)


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
            """
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
-        self.blocks = [Block() for _ in range(2)]  # DRP105
+        self.blocks = nn.ModuleList([Block() for _ in range(2)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


Blocks().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
