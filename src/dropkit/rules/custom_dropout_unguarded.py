"""Dropout written by hand that never asks for the mode.

Random zeros are multiplied into the values on every call, so predictions of the model in evaluation change from call to
call and are worse than the model is; nothing warns. A mask drawn with `torch.bernoulli` or `torch.rand` does not see
`model.eval()`, as `nn.Dropout` does: return the input as it is unless `self.training`.

Seen in methods of Modules where neither they nor the methods that call them read a flag of the mode. Samplers, noise,
gates and augmentation that are named so are left alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.facts.definitions import Class, Function
from dropkit.facts.finding import Severity
from dropkit.facts.flow import origins, readers
from dropkit.facts.mode import is_flag, mentions_mode, on_purpose, under_mode
from dropkit.facts.module import Module
from dropkit.facts.trace import Form, Trace
from dropkit.rules.active import active_in_eval, ignores_its_flag
from dropkit.rules.rule import Default, Example, Hit, Rule, Sight

_DRAWS = ("bernoulli", "bernoulli_", "rand", "rand_like", "uniform_", "sample")
_UNIFORM = ("torch.rand", "torch.rand_like")
_BERNOULLI = ("torch.distributions.Bernoulli", "torch.distributions.bernoulli.Bernoulli")
_DROPS = re.compile(r"drop|keep|zone_?out", re.IGNORECASE)
# Whoever is named so draws because drawing is the point.
_SAMPLERS = re.compile(
    r"vae|sampl|gumbel|diffus|noise|noisy|polic|actor|agent|rbm|boltzmann|augment|specaug|concrete|gate|rout|binar"
    r"|quanti|spik|poisson|maskedl|pretrain|corrupt|perturb|generat|explor|denois|ensembl",
    re.IGNORECASE,
)
# Names that scale a mask; any other that it is multiplied with holds values.
_SCALE = re.compile(r"prob|rate|keep|scale|gamma|drop|(^|_)(p|q|eps)$|numel|math|np|torch|len|float", re.IGNORECASE)


def find(module: Module) -> Iterator[Hit]:
    for name in _DRAWS:
        for call in module.calls.get(name, []):
            function = module.function(call)
            if function is None or function.method.owner is None or not function.method.owner.is_module:
                continue
            if not _is_drop(module, call, function.method) or not _falls_on_values(module, call, set()):
                continue
            if not _asks(module, call, function.method, function.method.owner) and not on_purpose(module, call):
                yield Hit(call)


def _is_drop(module: Module, call: ast.Call, method: Function) -> bool:
    """Whether `call` draws coins, and names around it say that they are for dropping."""
    assert method.owner is not None
    if not _is_coin(module, call):
        return False
    around = f"{module.path} {method.owner.name} {method.name}"
    said = f"{method.owner.name} {method.name} {module.text.of(module.statement(call))}"
    return _DROPS.search(said) is not None and _SAMPLERS.search(around) is None


def _is_coin(module: Module, call: ast.Call) -> bool:
    name, callee = module.called(call), call.func
    if name == "torch.bernoulli" or name in _UNIFORM:
        return name == "torch.bernoulli" or _is_cut(module, call)
    if not isinstance(callee, ast.Attribute) or name is not None:
        return False
    if callee.attr == "sample":
        return any(one and module.called(one) in _BERNOULLI for one in origins(module, callee.value) or ())
    return callee.attr in ("bernoulli", "bernoulli_") or (callee.attr == "uniform_" and _is_cut(module, call))


def _is_cut(module: Module, draw: ast.expr) -> bool:
    """Whether uniform numbers are made zeros and ones: compared with a rate, or rounded down."""
    for above in module.parents(draw):
        if isinstance(above, ast.Compare):
            return isinstance(above.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
        if isinstance(above, ast.Call) and _last(above) in ("floor", "floor_", "lt", "gt", "le", "ge"):
            return True
        if isinstance(above, ast.Assign):
            targets = [one for one in above.targets if isinstance(one, ast.Name)]
            return any(_is_cut(module, read) for one in targets for read in readers(module, above, one.id))
        if isinstance(above, ast.stmt):
            return False
    return False


def _falls_on_values(module: Module, mask: ast.expr, seen: set[str]) -> bool:
    """Whether `mask`, or what is made of it, is multiplied with something or fills it with zero."""
    below: ast.AST = mask
    for above in module.parents(mask):
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Mult):
            if _holds_values(above.right if below is above.left else above.left, seen):
                return True
        elif isinstance(above, ast.AugAssign):
            return isinstance(above.op, ast.Mult)
        elif isinstance(above, ast.Call) and _multiplies(above, below, seen):
            return True
        elif isinstance(above, ast.Assign):
            return any(
                isinstance(target, ast.Name) and _reaches_values(module, target.id, above, seen)
                for target in above.targets
            )
        elif isinstance(above, ast.stmt):
            return False
        below = above
    return False


def _reaches_values(module: Module, name: str, statement: ast.stmt, seen: set[str]) -> bool:
    if name in seen:
        return False
    seen.add(name)
    return any(_falls_on_values(module, read, seen) for read in readers(module, statement, name))


def _multiplies(call: ast.Call, mask: ast.AST, seen: set[str]) -> bool:
    """Whether `call` is `torch.mul(x, mask)`, `x.masked_fill(mask, 0)` or `torch.where(mask, x, 0)`."""
    last = _last(call)
    if last in ("mul", "mul_", "multiply"):
        others = [one for one in call.args if one is not mask]
        if mask is not call.func and isinstance(call.func, ast.Attribute):
            others.append(call.func.value)
        return any(_holds_values(one, seen) for one in others)
    if last in ("masked_fill", "masked_fill_") and len(call.args) == 2 and mask is call.args[0]:
        return _is_zero(call.args[1])
    if last == "where" and len(call.args) == 3 and mask is call.args[0]:
        return _is_zero(call.args[1]) or _is_zero(call.args[2])
    return False


def _is_zero(expression: ast.expr) -> bool:
    if isinstance(expression, ast.Call):
        return _last(expression) in ("zeros_like", "zeros")
    return isinstance(expression, ast.Constant) and expression.value == 0


def _holds_values(expression: ast.expr, seen: set[str]) -> bool:
    """Whether a name in `expression` is neither the mask's nor that of a rate."""
    names = [one for one in ast.walk(expression) if isinstance(one, ast.Name)]
    return any(one.id not in seen and one.id != "self" and not _SCALE.search(one.id) for one in names) or any(
        isinstance(one, ast.Attribute) and not _SCALE.search(one.attr) and one.attr in ("weight", "data")
        for one in ast.walk(expression)
    )


def _asks(module: Module, call: ast.Call, method: Function, owner: Class) -> bool:
    """Whether the method, one that calls it, or whoever holds an object of the class asks for the mode."""
    family = [*owner.lineage, *owner.heirs]
    asked, names = [method], [method.name]
    for name in names:
        for one in family:
            callers = [module.function(own) for own in one.own_calls.get(name, [])]
            found = [caller.method for caller in callers if caller is not None]
            found += [one.methods[name]] if name in one.methods else []
            asked += [caller for caller in found if caller not in asked]
            names += [caller.name for caller in found if caller.name not in names]
    return (
        under_mode(module, call)
        or any(_reads_mode(module, one) for one in asked)
        or any(_holder_asks(module, one) for one in family)
    )


def _reads_mode(module: Module, function: Function) -> bool:
    if any(is_flag(parameter.arg) for parameter in function.parameters):
        return True
    if any(
        (inner := module.function(node)) and inner.method is function for node in module.attributes.get("training", [])
    ):
        return True
    tests = (one.test for one in ast.walk(function.node) if isinstance(one, (ast.If, ast.IfExp, ast.While)))
    return any(mentions_mode(test) for test in tests)


def _holder_asks(module: Module, owner: Class) -> bool:
    """Whether `self.drop`, set to an object of `owner`, is called under a condition on the mode."""
    for built in module.calls.get(owner.name, []):
        statement = module.statement(built)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        names = [target.attr for target in targets if isinstance(target, ast.Attribute)]
        if any(under_mode(module, call) for name in names for call in module.calls.get(name, [])):
            return True
    return False


def _last(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)


def see(trace: Trace) -> Iterator[Sight]:
    for site in active_in_eval(trace):
        if site.form is Form.MASK or (site.form is Form.REGISTERED and ignores_its_flag(site, by_hand=True)):
            yield Sight(site)


RULE = Rule(
    code="DRP108",
    name="custom-dropout-unguarded",
    message="hand-written dropout does not follow model.eval()",
    severity=Severity.WARNING,
    default=Default.PREVIEW,
    find=find,
    see=see,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class RowDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        keep = torch.rand(x.shape[0], 1) >= self.p  # DRP108
        return x * keep / (1 - self.p)


RowDropout(0.5).eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class RowDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        keep = torch.rand(x.shape[0], 1) >= self.p
        return x * keep / (1 - self.p)


RowDropout(0.5).eval()(torch.randn(4, 8))
""",
        ),
    ),
)
