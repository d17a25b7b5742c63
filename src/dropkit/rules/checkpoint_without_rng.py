"""Checkpointing that forgets the random state, over code that drops.

Checkpointing runs its function a second time in the backward pass. With `preserve_rng_state=False` dropout then draws
another mask than in the forward pass, so the gradients belong to a network that was never run. Nothing fails or warns:
training is only noisier and worse. Leave the argument at True, unless nothing in the function is random.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_MODULES, FUNCTIONALS
from dropkit.facts.definitions import Class, Function
from dropkit.facts.edit import replace
from dropkit.facts.expressions import argument, self_attribute
from dropkit.facts.finding import Fix, Severity
from dropkit.facts.module import Module
from dropkit.facts.trace import Phase, Place, Trace
from dropkit.rules.rule import Example, Hit, Rule, Sight

_CHECKPOINTS = ("checkpoint", "checkpoint_sequential", "checkpoint_wrapper")
# torch's layers that drop inside, by the argument that says how much, and the rate if it is left out.
_DROP_INSIDE = {
    "torch.nn.TransformerEncoderLayer": 0.1, "torch.nn.TransformerDecoderLayer": 0.1, "torch.nn.Transformer": 0.1,
    "torch.nn.MultiheadAttention": 0.0, "torch.nn.LSTM": 0.0, "torch.nn.GRU": 0.0, "torch.nn.RNN": 0.0,
}  # fmt: skip


def find(module: Module) -> Iterator[Hit]:
    if b"preserve_rng_state" not in module.text.utf8:
        return
    for calls in module.calls.values():
        for call in calls:
            flag = argument(call, None, "preserve_rng_state")
            if isinstance(flag, ast.Constant) and flag.value is False and _random(module, call):
                yield Hit(call, fix=Fix("Pass preserve_rng_state=True", (replace(module, flag, "True"),)))


def _random(module: Module, call: ast.Call) -> bool:
    """Whether what is run again drops: the first argument, or, where that is not known here, the class around."""
    name = module.called(call) or ""
    if not (name.startswith(("torch.utils.checkpoint.", "torch.distributed.")) and name.endswith(_CHECKPOINTS)):
        return False
    names = ("function", "functions", "module")
    run = call.args[0] if call.args else next((one.value for one in call.keywords if one.arg in names), None)
    if run is None:
        return False
    dropping, owner = _Dropping(module), module.owner(call)
    known = dropping.expression(run)
    return known if known is not None else owner is not None and dropping.holds(owner)


class _Dropping:
    """What drops in a file: its functions, its classes, and what holds objects of those."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._seen: set[ast.AST] = set()
        self._direct = [call for calls in module.calls.values() for call in calls if self._drops(call)]
        self._classes = {owner.name for call in self._direct if (owner := module.owner(call)) is not None}
        grown = True
        while grown:
            # A class drops that makes an object of one that drops.
            makers = {
                owner.name
                for name in self._classes
                for call in module.calls.get(name, [])
                if (owner := module.owner(call)) is not None
            }
            heirs = {one.name for one in module.classes if any(base.name in self._classes for base in one.lineage)}
            grown = not makers | heirs <= self._classes
            self._classes |= makers | heirs

    def holds(self, owner: Class) -> bool:
        return owner.name in self._classes

    def expression(self, run: ast.expr) -> bool | None:
        """Whether calling `run` drops; None where that is not known."""
        if isinstance(run, ast.Subscript):
            return self.expression(run.value)
        if isinstance(run, ast.Call):
            name = self.module.called(run)
            if name is not None and name.endswith("partial") and run.args:
                return self.expression(run.args[0])
            local = self.module.local_class(run.func)
            return self.holds(local) if local is not None else self._within(run)
        attribute, owner = self_attribute(run), self.module.owner(run)
        if attribute is not None and owner is not None:
            method = owner.method(attribute)
            if method is not None:
                return self._function(method)
            values = [value for value in owner.values(attribute) if value is not None]
            found = [self._within(value) for value in values]
            return True if True in found else None if None in found or not found else False
        if isinstance(run, ast.Lambda):
            return self._within(run)
        name = self.module.dotted(run)
        if name is not None and name.startswith("torch."):
            return "drop" in name
        return self._name(run) if isinstance(run, ast.Name) else None

    def _name(self, run: ast.Name) -> bool | None:
        for binding in reversed(self.module.bindings(run)):
            function = self.module.by_node.get(binding.statement)
            if isinstance(function, Function):
                return self._function(function)
            if isinstance(binding.statement, (ast.For, ast.AsyncFor)):
                # for layer in self.layers: / for i, layer in enumerate(self.layers):
                over = binding.statement.iter
                inner = over.args[0] if isinstance(over, ast.Call) and over.args else over
                return self.expression(inner)
            if binding.value is not None and not binding.derived:
                return self.expression(binding.value)
        return None

    def _function(self, function: Function) -> bool | None:
        """Whether a function of this file drops, itself or in what it calls."""
        if function.node in self._seen:
            return False
        self._seen.add(function.node)
        return self._within(function.node)

    def _within(self, tree: ast.AST) -> bool | None:
        """Whether something inside drops; None if something inside is not known to this file."""
        known: set[bool | None] = {False}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                known.add(self._call(node, applied=node is not tree))
                if True in known:
                    return True
        return None if None in known else False

    def _call(self, call: ast.Call, applied: bool) -> bool | None:
        """Whether one call drops, or makes something that does."""
        local, name = self.module.local_class(call.func), self.module.called(call)
        if call in self._direct or local is not None:
            return local is None or self.holds(local)
        if name is not None and name.startswith("torch."):
            return False
        if isinstance(call.func, ast.Name) or self_attribute(call.func) is not None:
            return self.expression(call.func) if applied else None
        # A method of a tensor, or of an object that is not known: mostly the former.
        return False

    def _drops(self, call: ast.Call) -> bool:
        name = self.module.called(call)
        if name in _DROP_INSIDE:
            rate = argument(call, None, "dropout")
            return bool(_DROP_INSIDE[name]) if rate is None else not _is_zero(rate)
        function = FUNCTIONALS.get(name or "")
        if function is not None:
            flag = argument(call, function.training, function.training_name)
            p = argument(call, function.p, function.p_name)
            return not any(one is not None and _is_zero(one) for one in (flag, p))
        if name in DROPOUT_MODULES or (name or "").endswith(("DropPath", "StochasticDepth")):
            rate = argument(call, 0, "p")
            return rate is None or not _is_zero(rate)
        return False


def _is_zero(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and not value.value


def see(trace: Trace) -> Iterator[Sight]:
    first: dict[tuple[str, Place | None], set[bytes | None]] = {}
    for site in trace.sites:
        # What is recomputed outside of any module is known by its line only.
        first.setdefault((site.kind, site.place), set()).update(visit.keep for visit in site.of(Phase.TRAIN))
    for site in trace.sites:
        again = {visit.keep for visit in site.of(Phase.BACKWARD) if visit.keep is not None}
        if not again <= first[site.kind, site.place]:
            yield Sight(site, "recomputed in backward with another mask: the gradients are wrong", Severity.ERROR)


RULE = Rule(
    code="DRP305",
    name="checkpoint-without-rng",
    message="checkpointed dropout draws another mask in backward",
    severity=Severity.WARNING,
    find=find,
    see=see,
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
