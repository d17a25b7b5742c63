"""Hand-written dropout that does not follow the mode.

Predictions in evaluation differ from call to call and are worse than the model is, without a warning. A mask drawn with
`torch.bernoulli` or `torch.rand` does not see `model.eval()`, as `nn.Dropout` does. Return the input unchanged unless
`self.training`.

Reported in methods of Modules where neither they nor the methods that call them read a flag of the mode, and in
functions that only such methods call. Samplers, noise, gates and augmentation are recognised by their names, and
reported with severity info. So are whole layers that a random number skips, as layer drop and stochastic depth do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_names import mentions_mask
from dropkit.lint.semantic.expressions import names_in
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.random_masks import DRAWS, drops_by_mask, skips_by_chance
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import (
    is_flag,
    mentions_mode,
    readers_of_training,
    runs_in_both_modes,
    under_mode,
)
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended, violations_in_eval
from dropkit.trace import Form, Trace

# Classes, methods and files of these names are random by design.
_SAMPLERS = Vocabulary(
    r"vae|sampl(?:e|er|ers|ing)|gumbel|diffusion|noise|noisy|policy|actor|agent|rbm|boltzmann|augment\w*|spec ?aug\w*"
    r"|concrete|gate|gated|gating|router|routing|binar\w*|quanti[sz]\w*|spik\w*|poisson|pretrain\w*"
    r"|masked (?:lm|auto|image|token|language)\w*|mae"
    r"|corrupt\w*|perturb\w*|generat\w*|explor\w*|denois\w*|ensembl\w*"
)
# Words for conditions that a generative model drops for guidance, in evaluation, too.
_CONDITIONS = Vocabulary(r"cond\w*|uncond\w*|guidance|classifier ?free|cfg|null")
# What augmentation drops parts of, rather than a layer.
_SIGNALS = Vocabulary(r"waveforms?|wavs?|audio|images?|imgs?|signals?|spectrograms?|mels?|specs?")
# Names of a layer, or of the rate, by which code is skipped.
_SKIPS = pattern(r"drop|keep|surviv|skip|stochastic_?depth|zone_?out", re.IGNORECASE)
# The factor by which dropout scales what it keeps.
_RESCALES = pattern(r"/\s*\(?\s*1(?:\.0?)?\s*-|\bdiv_?\(\s*\(?\s*1(?:\.0?)?\s*-|/\s*(?:self\.)?\w*keep\w*")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in DRAWS:
        for call in source.calls.get(name, []):
            function, owner = source.function(call), source.owner(call)
            if function is not None and (owner is None or owner.is_module):
                yield from _judge(source, call, function.method, owner)


def _judge(
    source: SourceFile, call: ast.Call, method: FunctionDefinition, owner: ClassDefinition | None
) -> Iterator[Violation]:
    """Report a mask that is for dropping, by names or the factor 1/(1-p), where nobody asks for the mode."""
    if not _speaks_of_dropping(source, method, owner):
        return
    if owner is None:
        follows_mode = not runs_in_both_modes(source, method.name) or _reads_mode(source, method)
        violation = Violation(call, "a function has no mode: pass training to it")
    else:
        follows_mode = not _runs_in_forward(source, owner, method) or _callers_ask(source, owner, method)
        follows_mode = follows_mode or under_mode(source, call)
        violation = Violation(call)
    if follows_mode or not _is_for_dropping(source, call, method, owner):
        return
    names = (PurePath(source.path).stem, owner.name if owner is not None else "", method.name)
    is_sampler = any(map(_SAMPLERS.has, names)) or any(map(_CONDITIONS.has, _names(source, call)))
    is_sampler = is_sampler or any(_SIGNALS.has(parameter.arg) for parameter in method.parameters)
    yield from unless_intended(source, violation, is_sampler)


def _is_for_dropping(
    source: SourceFile, call: ast.Call, method: FunctionDefinition, owner: ClassDefinition | None
) -> bool:
    names = f"{owner.name if owner is not None else ''} {method.name}"
    text = f"{names} {source.text.of(source.statement(call))}"
    is_named = mentions_mask(text) or _rescales(source, method)
    if is_named and drops_by_mask(source, call):
        return True
    comparison = skips_by_chance(source, call)
    return comparison is not None and _SKIPS.search(f"{names} {source.text.of(comparison)}") is not None


@cached_per_file
def _speaks_of_dropping(source: SourceFile, method: FunctionDefinition, owner: ClassDefinition | None) -> bool:
    names = f"{owner.name if owner is not None else ''} {source.text.of(method.node)}".replace("keepdim", "")
    return _SKIPS.search(names) is not None or _rescales(source, method)


@cached_per_file
def _rescales(source: SourceFile, method: FunctionDefinition) -> bool:
    return _RESCALES.search(source.text.of(method.node)) is not None


def _names(source: SourceFile, call: ast.Call) -> Iterator[str]:
    """The names in the statement of a draw, without its block."""
    statement = source.statement(call)
    return names_in(statement.test if isinstance(statement, (ast.If, ast.While)) else statement)


@cached_per_file
def _runs_in_forward(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether `forward` calls a method, itself or through others of the class and its relatives."""
    pending = [method]
    for function in pending:
        if function.name in ("forward", "__call__"):
            return True
        pending += [caller for caller in _callers(source, owner, function.name) if caller not in pending]
        if len(pending) > MOST:
            return False
    return False


@cached_per_file
def _callers_ask(source: SourceFile, owner: ClassDefinition, method: FunctionDefinition) -> bool:
    """Whether the method, one that calls it, or an owner of an object of the class asks for the mode."""
    family = [*owner.mro, *owner.subclasses]
    pending = list(dict.fromkeys([method, *_overrides(family, method.name)]))
    seen = set(pending)
    for function in pending:
        # With so many callers the answer is unknown.
        if _reads_mode(source, function) or len(pending) > MOST:
            return True
        new = [caller for caller in _callers(source, owner, function.name) if caller not in seen]
        pending += new
        seen.update(new)
    return any(_holder_asks(source, cls) for cls in family)


@cached_per_file
def _callers(source: SourceFile, owner: ClassDefinition, name: str) -> list[FunctionDefinition]:
    """The methods of a class and its relatives that call `self.name`, and their overrides in relatives."""
    family = [*owner.mro, *owner.subclasses]
    functions = [source.function(call) for cls in family for call in cls.own_calls.get(name, [])]
    callers = dict.fromkeys(function.method for function in functions if function is not None)
    return list(
        dict.fromkeys([*callers, *(method for caller in callers for method in _overrides(family, caller.name))])
    )


def _overrides(family: list[ClassDefinition], name: str) -> list[FunctionDefinition]:
    return [cls.methods[name] for cls in family if name in cls.methods]


@cached_per_file
def _reads_mode(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a method has a flag of the mode, reads `training` of any object, or has a condition on the mode."""
    if any(is_flag(parameter.arg) for parameter in function.parameters) or function in readers_of_training(source):
        return True
    tests = (node.test for node in ast.walk(function.node) if isinstance(node, (ast.If, ast.IfExp, ast.While)))
    return any(mentions_mode(source, test) for test in tests)


@cached_per_file
def _holder_asks(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether `self.drop`, set to an object of `owner`, is called under a condition on the mode."""
    statements = [source.statement(call) for call in source.calls.get(owner.name, [])]
    targets = [target for each in statements if isinstance(each, ast.Assign) for target in each.targets]
    return any(_is_called_under_mode(source, target.attr) for target in targets if isinstance(target, ast.Attribute))


@cached_per_file
def _is_called_under_mode(source: SourceFile, name: str) -> bool:
    return any(under_mode(source, call) for call in source.calls.get(name, []))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return violations_in_eval(trace, Form.MASK)


RULE = Rule(
    code="DRP108",
    name="custom-dropout-unguarded",
    message="hand-written dropout does not follow model.eval()",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class RowDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
+        if not self.training:
+            return x
        keep = torch.rand(x.shape[0], 1) >= self.p  # DRP108
        return x * keep / (1 - self.p)


RowDropout(0.5).eval()(torch.randn(4, 8))
""",
        ),
    ),
)
