"""Functional dropout that stays on in evaluation.

`F.dropout(x, p)` has `training=True` unless told otherwise: unlike the module `nn.Dropout` it does not see
`model.eval()`. Predictions then differ from call to call, validation is noisy and worse than the model is, and nothing
warns. Pass `training=self.training`, or use the module.

Dropout that is meant to stay on says so by `# dropkit: always-on` beside it, on the line of its class or at the head of
the file. The names of Monte Carlo dropout and of Tacotron's pre-net (`MCDropout`, `MonteCarloHead`, `Prenet`), and a
comment or docstring that says that dropout stays on, make it information, which is shown with `--severity info` and
fails no run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS, Functional
from dropkit.facts.definitions import Class
from dropkit.facts.edit import add_argument, replace
from dropkit.facts.expressions import argument, self_attribute, unpacks
from dropkit.facts.finding import Fix, Severity
from dropkit.facts.mode import (
    called_under_mode,
    follows_mode,
    is_flag,
    named_around,
    on_purpose,
    serves_one_mode,
    under_mode,
)
from dropkit.facts.module import Module, once
from dropkit.facts.trace import Form, Trace
from dropkit.rules.active import active_in_eval, for_information, ignores_its_flag, severity, unless_meant
from dropkit.rules.rule import Example, Hit, Rule, Sight

_TITLE = "Pass training=self.training"


def find(module: Module) -> Iterator[Hit]:
    yield from _methods_for_flags(module)
    for name, calls in module.calls.items():
        if "drop" not in name and "stochastic" not in name:
            continue
        for call in calls:
            function = FUNCTIONALS.get(module.called(call) or "")
            owner = module.owner(call)
            if function is None or unpacks(call):
                continue
            hit = _judge(module, call, function, owner) if owner is not None else _judge_helper(module, call, function)
            if hit is not None and not _excused(module, call, function):
                yield from unless_meant(module, hit)


def _methods_for_flags(module: Module) -> Iterator[Hit]:
    """`self.train`, not called, where `self.training` is meant: given to something that drops, or asked before it."""
    for node in module.attributes.get("train", []):
        owner = module.owner(node)
        if self_attribute(node) is None or owner is None or not owner.is_module or owner.values("train"):
            continue
        method = owner.method("train")
        if method is not None and method.node.decorator_list:  # pyright: ignore[reportAttributeAccessIssue]: no lambda
            continue  # a property, perhaps, that is a flag
        place = _place(module, node)
        if place is not None:
            message = "self.train is a method, always true: self.training is meant"
            yield Hit(place, message, Fix(_TITLE, (replace(module, node, "self.training"),), safe=owner.has_mode))


def _place(module: Module, node: ast.Attribute) -> ast.AST | None:
    """What to point at: the dropping call that takes `node` as an argument, or `node` where it guards such a call."""
    above = module.parent(node)
    if isinstance(above, ast.keyword):
        above = module.parent(above)
    if isinstance(above, ast.Call) and above.func is not node:
        callee = above.func
        last = callee.attr if isinstance(callee, ast.Attribute) else callee.id if isinstance(callee, ast.Name) else ""
        return above if "drop" in last.lower() or module.called(above) in FUNCTIONALS else None
    below: ast.AST = node
    while isinstance(above, (ast.BoolOp, ast.UnaryOp)):
        below, above = above, module.parent(above)
    asks = isinstance(above, (ast.If, ast.IfExp)) and above.test is below
    return node if asks and above in _around_drops(module) else None


@once
def _around_drops(module: Module) -> set[ast.AST]:
    """Every node that a call of a function that drops stands in."""
    found: set[ast.AST] = set()
    for calls in module.calls.values():
        for call in calls:
            at: ast.AST | None = call if module.called(call) in FUNCTIONALS else None
            while at is not None and at not in found:
                found.add(at)
                at = module.parent(at)
    return found


def _judge_helper(module: Module, call: ast.Call, function: Functional) -> Hit | None:
    """A function without a flag, at work in Modules of this file, none of which asks for the mode before it calls."""
    helper = module.function(call)
    if helper is None or helper.within is not None or function.training_default is not True:
        return None
    if argument(call, function.training, function.training_name) is not None:
        return None
    if serves_one_mode(helper.name) or any(is_flag(parameter.arg) for parameter in helper.parameters):
        return None
    if not _is_at_work_unasked(module, helper.name):
        return None
    hit = Hit(call, "a function has no mode: pass training to it, and on")
    meant = any(named_around(module, use) for use in module.calls[helper.name])
    return for_information(hit) if meant else hit


@once
def _is_at_work_unasked(module: Module, name: str) -> bool:
    """Whether a function is called, and by Modules only, none of which asks for the mode before it calls."""
    uses = [use for use in module.calls.get(name, []) if isinstance(use.func, ast.Name)]
    asked = any(under_mode(module, use) or follows_mode(module, use) or on_purpose(module, use) for use in uses)
    at_work = all((owner := module.owner(use)) is not None and owner.is_module for use in uses)
    return bool(uses) and at_work and not asked


def _judge(module: Module, call: ast.Call, function: Functional, owner: Class) -> Hit | None:
    if not owner.is_module:
        return None
    flag = argument(call, function.training, function.training_name)
    if flag is None:
        if function.training_default is not True:
            return None
        return Hit(call, fix=_fix(module, call, None))
    if isinstance(flag, ast.Constant):
        # A literal True is mostly meant; beside a call that does follow the mode it is an oversight.
        if flag.value is True and _another_follows(module, call, owner):
            return Hit(call, "training=True here, while a call beside it follows the mode", _fix(module, call, flag))
        return None
    attribute = self_attribute(flag)
    if attribute in ("train", "eval") and not owner.values(attribute):
        return None  # found as a method that stands for a flag
    if attribute is not None and attribute != "training" and is_flag(attribute) and _set_once(module, owner, attribute):
        message = f"self.{attribute} is set once and does not follow model.eval()"
        return Hit(call, message, _fix(module, call, flag))
    return None


def _excused(module: Module, call: ast.Call, function: Functional) -> bool:
    """A condition around the call asks for the mode, or the rate is zero or follows it."""
    p = argument(call, function.p, function.p_name)
    if isinstance(p, ast.Constant) and p.value in (0, 0.0):
        return True
    if p is not None and follows_mode(module, p):
        return True
    return under_mode(module, call) or called_under_mode(module, call)


def _another_follows(module: Module, call: ast.Call, owner: Class) -> bool:
    return any(other is not call for other in _following(module).get(owner, []))


@once
def _following(module: Module) -> dict[Class | None, list[ast.Call]]:
    """By class, calls of functions that drop where `self.training` says so: two at most."""
    found: dict[Class | None, list[ast.Call]] = {}
    for calls in module.calls.values():
        for call in calls:
            function = FUNCTIONALS.get(module.called(call) or "")
            flag = argument(call, function.training, function.training_name) if function is not None else None
            if self_attribute(flag) == "training":
                known = found.setdefault(module.owner(call), [])
                known += [call] if len(known) < 2 else []
    return found


@once
def _set_once(module: Module, owner: Class, attribute: str) -> bool:
    """Whether only constructors set `self.attribute`, and no one in this file does from outside."""
    writes = owner.all_writes(attribute)
    inside = writes and all(write.function is not None and write.function.name == "__init__" for write in writes)
    from_outside = any(
        isinstance(node.ctx, ast.Store) and self_attribute(node) is None
        for node in module.attributes.get(attribute, [])
    )
    return bool(inside) and not from_outside


def _fix(module: Module, call: ast.Call, flag: ast.expr | None) -> Fix | None:
    name, owner = module.self_name(call), module.owner(call)
    if name is None or owner is None:
        return None
    text = f"{name}.training"
    if flag is not None:
        # A method and a literal are true in training as well; a flag of its own may have been false there.
        changes = self_attribute(flag) not in (None, "train", "eval")
        return Fix(_TITLE, (replace(module, flag, text),), safe=owner.has_mode, changes_training=changes)
    keyword = FUNCTIONALS[module.called(call) or ""].training_name
    edit = add_argument(module, call, f"{keyword}={text}")
    return Fix(_TITLE, (edit,), safe=owner.has_mode) if edit is not None else None


def see(trace: Trace) -> Iterator[Sight]:
    for site in active_in_eval(trace):
        if site.form is Form.FUNCTION or (site.form is Form.REGISTERED and ignores_its_flag(site, by_hand=False)):
            yield Sight(site, severity=severity(site))


RULE = Rule(
    code="DRP101",
    name="functional-dropout-ignores-mode",
    message="functional dropout does not follow model.eval()",
    severity=Severity.ERROR,
    find=find,
    see=see,
    fix="pass `training=self.training`",
    fix_is_safe=True,
    examples=(
        Example(
            bad="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = F.dropout(self.hidden(x), 0.5)  # DRP101
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = F.dropout(self.hidden(x), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
