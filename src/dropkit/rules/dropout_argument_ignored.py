"""A dropout rate that a constructor takes and nobody applies.

Whoever builds the module with `dropout=0.5` gets a module that never drops: no error, no warning, and a sweep over the
rate is a sweep over noise. Build the dropout that the argument promises, or take the argument away.

Arguments that only fill a common signature are not reported: those that a base or a sibling takes too, unused
`**kwargs` beside them, names that begin with an underscore, and those that a comment says are unused.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from dropkit.facts.definitions import Class, Function, Write
from dropkit.facts.finding import Question, Severity
from dropkit.facts.flow import MOST
from dropkit.facts.module import Module, once
from dropkit.facts.names import Vocabulary
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
# Before a name that is no value: a base of a class, or what an object is tested against.
_OTHER_USE = re.compile(r"(?:super|isinstance|issubclass)\s*\([^()]*$|\bclass\s[^\n]*$")
_STAND_INS = Vocabulary(
    r"dummy|identity|null|noop|no op|stub|fake|mock|abstract|interface|base|mixin|export|exportable|empty"
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
    uses = _names(module, constructor).get(rate.arg, [])
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
    annotation = module.text.of(parameter.annotation) if parameter.annotation is not None else ""
    value = default(module, parameter)
    is_number = value is None or (isinstance(value, ast.Constant) and not isinstance(value.value, (bool, str)))
    return is_number and not re.search(r"bool|str|Module|Callable|Type|Config", annotation)


def _excused(module: Module, owner: Class, constructor: Function) -> bool:
    node = constructor.node
    if isinstance(node, ast.Lambda) or node.decorator_list or is_empty(node.body) or _STAND_INS.has(owner.name):
        return True
    if is_container(owner) or is_abstract(owner) or not is_plain(owner):
        return True
    # **kwargs that nobody reads: whatever comes is swallowed.
    swallowed = [one.arg for one in (node.args.vararg, node.args.kwarg) if one is not None]
    if swallowed and not any(name in _names(module, constructor) for name in swallowed):
        return True
    return owner in _keepers(module)


@once
def _keepers(module: Module) -> set[Class | None]:
    """The classes that call what keeps every argument."""
    return {
        module.owner(call)
        for keeper in _KEEPERS
        for call in module.calls.get(keeper, [])
        if keeper != "vars" or not call.args
    }


@once
def _names(_: Module, constructor: Function) -> dict[str, list[ast.Name]]:
    """The names in the body of a constructor."""
    assert not isinstance(constructor.node, ast.Lambda)
    found: dict[str, list[ast.Name]] = {}
    for statement in constructor.node.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                found.setdefault(node.id, []).append(node)
    return found


def _store(owner: Class, uses: list[ast.Name]) -> Write | None:
    """The assignment to `self` that is the one use of an argument, if that is not read in its class."""
    write = _stores(owner.module, owner).get(uses[0]) if len(uses) == 1 else None
    return write if write is not None and write.attribute not in owner.reads else None


@once
def _stores(_: Module, owner: Class) -> dict[ast.expr | None, Write]:
    """The attributes that are set once, by what they are set to."""
    return {
        writes[0].value: writes[0]
        for writes in reversed(owner.writes.values())
        if len(writes) == 1 and not writes[0].derived
    }


def _said(owner: Class, constructor: Function, rate: ast.arg) -> bool:
    """Whether a comment or docstring says that the argument is not used, or shows a use that was taken out."""
    module = owner.module
    return (
        admitted(module, rate)
        or rate.arg.lower() in _admitted(module, owner)
        or rate.arg in _commented(module, owner, constructor)
    )


@once
def _admitted(_: Module, owner: Class) -> set[str]:
    """The words of a class before which it is said that something is not used, on the line or the one above."""
    found: set[str] = set()
    above = ""
    for line in source(owner).lower().split("\n"):
        places = [match.start() for match in re.finditer(_ADMITTED, line)]
        if places:
            found.update(re.findall(r"\w+", line[: places[-1]]))
            if ":" not in line[: places[0]]:
                found.update(re.findall(r"\w+", above))
        above = line
    return found


@once
def _commented(_: Module, owner: Class, constructor: Function) -> set[str]:
    """The words in comments from the body of the constructor on."""
    assert not isinstance(constructor.node, ast.Lambda)
    body = source(owner).split("\n")[constructor.node.body[0].lineno - owner.node.lineno :]
    return {word for line in body for word in re.findall(r"\w+", line.partition("#")[2])}


def _fills_a_signature(owner: Class, name: str) -> bool:
    """Whether a base, a sibling of the same base, or a class that stands for the same slot takes the argument too."""
    module = owner.module
    takers, bases = _takers(module, name), _bases_of_takers(module, name)
    if len(owner.heirs) > MOST or any(one in takers for one in (*owner.lineage[1:], *owner.heirs)):
        return True
    if any(bases[base] > 1 for base in _shared_bases(owner)):
        return True
    values = _values(module)
    return owner.name in values and _values_among_takers(module, name) > 1


def _takers(module: Module, name: str) -> dict[Class, None]:
    """The classes whose constructors take an argument of this name."""
    return _by_parameter(module)[name]


@once
def _by_parameter(module: Module) -> dict[str, dict[Class, None]]:
    found: dict[str, dict[Class, None]] = {}
    for one in module.classes:
        constructor = one.methods.get("__init__")
        for parameter in constructor.parameters if constructor is not None else ():
            found.setdefault(parameter.arg, {})[one] = None
    return found


@once
def _bases_of_takers(module: Module, name: str) -> Counter[str]:
    """How many of them have each base."""
    return Counter(base for one in _takers(module, name) for base in _shared_bases(one))


def _shared_bases(owner: Class) -> set[str]:
    """The bases that make siblings of two classes."""
    return {base for base in owner.bases if base and base.rsplit(".", 1)[-1] not in ("Module", "object")}


@once
def _values_among_takers(module: Module, name: str) -> int:
    return sum(one.name in _values(module) for one in _takers(module, name))


@once
def _values(module: Module) -> set[str]:
    """The names that are handed about: in a table, as an argument, under another name."""
    text = module.text.utf8.decode()
    found = re.finditer(r"(?:[=:,(\[]|\breturn)\s*(\w+)\s*(?=[,)\]}\n])", text)
    return {one[1] for one in found if not _OTHER_USE.search(text[max(one.start() - 159, 0) : one.start() + 1])}


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
