"""A dropout rate that a constructor takes and nobody applies.

Whoever builds the module with `dropout=0.5` gets a module that never drops: no error, no warning, and a sweep over the
rate is a sweep over noise. Build the dropout that the argument promises, or take the argument away.

Arguments that only fill a common signature are not reported: those that a base or a sibling takes too, unused
`**kwargs` beside them, names that begin with an underscore, and those that a comment says are unused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.facts.definitions import Class, Function, Write
from dropkit.facts.finding import Question, Severity
from dropkit.facts.module import Module
from dropkit.facts.rates import default
from dropkit.facts.reads import admitted, is_abstract, is_container, is_empty, is_plain, may_be_read, source
from dropkit.facts.trace import Trace
from dropkit.rules.rule import Example, Hit, Rule, Sight

_RATE = re.compile(r"(?:^|_)(?:\w*dropouts?|\w*drop|edrop|idrop|drop_?path|droprate)(?:_|$|\d)|dropout", re.IGNORECASE)
# Choices, switches, and things that are dropped but are no units: `use_dropout`, `dropout_type`, `drop_last`.
_NO_RATE = re.compile(
    r"(?:^|_)(?:use|do|with|apply|is|has|enable|no|mc|always|last|first|type|mode|kind|layer|layers|cls|class|fn|func|module"
    r"|name|key|seed|mask|inplace|shared?|axis|axes|dims?|tokens?|start|end|steps?|pos|position|location|cfg|config|args"
    r"|locations?|idx|index|schedule|scheduler|warmup|epochs?|before|after|on|off|connect_type|training|activation|op"
    r"|columns?|list|dict|kwargs|params?|null|nan|labels?|unused|same|final_layer)(?:_|$)|^_",
    re.IGNORECASE,
)
# Whoever calls one of these keeps every argument.
_KEEPERS = ("locals", "vars", "save_hyperparameters", "store_attr", "register_to_config", "_getframe", "currentframe")
_ADMITTED = (
    r"unused|not\s+(?:yet\s+)?(?:used|supported|implemented|applied)|ignored|deprecat|compat|placeholder"
    r"|no effect|dummy"
)
_STAND_INS = re.compile(
    r"Dummy|Identity|Null|Noop|NoOp|Stub|Fake|Mock|Abstract|Interface|Base$|^Base|Mixin|Export|Empty"
)


def find(module: Module) -> Iterator[Hit]:
    for owner in module.classes:
        constructor = owner.methods.get("__init__")
        if constructor is None:
            continue
        rates = [one for one in constructor.parameters[1:] if _is_rate(module, one)]
        if rates and owner.is_module and not _excused(module, owner, constructor):
            for rate in rates:
                yield from _judge(module, owner, constructor, rate)


def _judge(module: Module, owner: Class, constructor: Function, rate: ast.arg) -> Iterator[Hit]:
    uses = [node for node in _names(constructor) if node.id == rate.arg]
    write = _store(owner, uses)
    if (uses and write is None) or _said(owner, constructor, rate) or _fills_a_signature(owner, rate.arg):
        return
    if write is None:
        yield Hit(rate, _message(f"argument {rate.arg} is never read"))
    elif not admitted(module, write.statement) and not may_be_read(owner, write.attribute):
        message = _message(f"self.{write.attribute} is set and never read")
        yield Hit(write.statement, message, unless=Question(owner.name, write.attribute))


def _is_rate(module: Module, parameter: ast.arg) -> bool:
    if _RATE.search(parameter.arg) is None or _NO_RATE.search(parameter.arg) is not None:
        return False
    annotation = ast.unparse(parameter.annotation) if parameter.annotation is not None else ""
    value = default(module, parameter)
    is_number = value is None or (isinstance(value, ast.Constant) and not isinstance(value.value, (bool, str)))
    return is_number and not re.search(r"bool|str|Module|Callable|Type|Config", annotation)


def _excused(module: Module, owner: Class, constructor: Function) -> bool:
    node = constructor.node
    if isinstance(node, ast.Lambda) or node.decorator_list or is_empty(node.body) or _STAND_INS.search(owner.name):
        return True
    if is_container(owner) or is_abstract(owner) or not is_plain(owner):
        return True
    # **kwargs that nobody reads: whatever comes is swallowed.
    swallowed = [one.arg for one in (node.args.vararg, node.args.kwarg) if one is not None]
    if swallowed and not any(name.id in swallowed for name in _names(constructor)):
        return True
    return any(
        module.owner(call) is owner and (keeper != "vars" or not call.args)
        for keeper in _KEEPERS
        for call in module.calls.get(keeper, [])
    )


def _names(constructor: Function) -> Iterator[ast.Name]:
    assert not isinstance(constructor.node, ast.Lambda)
    for statement in constructor.node.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                yield node


def _store(owner: Class, uses: list[ast.Name]) -> Write | None:
    """The assignment to `self` that is the one use of an argument, if that is not read in its class."""
    if len(uses) == 1:
        for attribute, writes in owner.writes.items():
            if len(writes) == 1 and writes[0].value is uses[0] and not writes[0].derived:
                return None if attribute in owner.reads else writes[0]
    return None


def _said(owner: Class, constructor: Function, rate: ast.arg) -> bool:
    """Whether a comment or docstring says that the argument is not used, or shows a use that was taken out."""
    if admitted(owner.module, rate):
        return True
    text = source(owner)
    name = re.escape(rate.arg)
    if re.search(rf"\b{name}\b[^\n]*(?:\n[^\n:]*)?(?:{_ADMITTED})", text, re.IGNORECASE):
        return True
    assert not isinstance(constructor.node, ast.Lambda)
    body = text.split("\n")[constructor.node.body[0].lineno - owner.node.lineno :]
    return any(re.search(rf"#.*\b{name}\b", line) for line in body)


def _fills_a_signature(owner: Class, name: str) -> bool:
    """Whether a base, a sibling of the same base, or a class that stands for the same slot takes the argument too."""
    module = owner.module
    others = [one for one in module.classes if one is not owner and _takes(one, name)]
    if any(one in owner.lineage or owner in one.lineage for one in others):
        return True
    bases = {base for base in owner.bases if base and base.rsplit(".", 1)[-1] not in ("Module", "object")}
    if any(bases.intersection(base for base in one.bases if base) for one in others):
        return True
    return _is_value(module, owner) and any(_is_value(module, one) for one in others)


def _takes(one: Class, name: str) -> bool:
    constructor = one.methods.get("__init__")
    return constructor is not None and any(parameter.arg == name for parameter in constructor.parameters)


def _is_value(module: Module, owner: Class) -> bool:
    """Whether the class itself is handed about: in a table, as an argument, under another name."""
    text = module.text.utf8.decode()
    return any(
        not re.search(r"(?:super|isinstance|issubclass)\s*\([^()]*$|\bclass\s[^\n]*$", text[: match.start() + 1][-160:])
        for match in re.finditer(rf"(?:[=:,(\[]|\breturn)\s*{re.escape(owner.name)}\s*(?=[,)\]}}\n])", text)
    )


def _message(text: str) -> str | None:
    return text if len(text) < 60 else None


def see(trace: Trace) -> Iterator[Sight]:
    for name, attribute, value in trace.idle_rates:
        yield Sight(name, f"holds {attribute}={value:g}, and nothing in it drops")


RULE = Rule(
    code="DRP203",
    name="dropout-argument-ignored",
    message="dropout rate is taken but never applied",
    severity=Severity.WARNING,
    find=find,
    see=see,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout=0.5):  # DRP203
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, 2)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout=0.5):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 2)

    def forward(self, x):
        return self.output(self.dropout(torch.relu(self.hidden(x))))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
            unseen="an argument that was not kept leaves no trace",
        ),
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.dropout = dropout  # DRP203
        self.output = nn.Linear(width, 2)

    def forward(self, x):
        return self.output(torch.relu(x))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.dropout = dropout
        self.output = nn.Linear(width, 2)

    def forward(self, x):
        return self.output(F.dropout(torch.relu(x), self.dropout, training=self.training))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
        ),
    ),
)
