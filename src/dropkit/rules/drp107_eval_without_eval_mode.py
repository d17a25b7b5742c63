"""Evaluation of a model that is in training mode.

The reported accuracy or loss is not the model's: dropout still drops, and batch normalisation uses the statistics of
the batch and learns from test data. `torch.no_grad()` turns off gradients and nothing else. Call `model.eval()` before
and `model.train()` after.

Reported where a function that predicts or evaluates calls `model.train()`, and where a model with such layers is
trained or loaded and then measured, and nothing on the way there switches modes: not the function itself, nor its
callers, nor what these call before, in this file or in others of the project. Models are followed from where they are
made, also by a factory, a registry or a class method, to the functions and the objects that get them, and methods over
the bases and subclasses of their class. A metric of the batch that the model is being trained on, generators of
samples, repeated samples of one input (Monte Carlo dropout) and the hooks of Lightning, whose Trainer switches modes,
are not reported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

from dropkit.diagnostics import FactCondition, Severity
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.built_models import built, is_built_in_eval, maker_facts, mode_facts, trained_models
from dropkit.lint.semantic.callees import call_sites
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.evaluation import evaluation, is_evaluation_name, is_repeated, model_calls
from dropkit.lint.semantic.expressions import argument, given, last_name, last_part, literal, self_attribute
from dropkit.lint.semantic.handed_models import model_facts
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.mode_effects import (
    Effect,
    Mode,
    effect_of,
    is_given_to_events,
    known_facts,
    learning_facts,
)
from dropkit.lint.semantic.mode_flow import places
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import function_key
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.receivers import is_model_name
from dropkit.lint.semantic.syntax_tree import cached_per_file, start
from dropkit.rules.rule import Example, Rule, Violation, if_short, unless_intended

# Names of classes and functions whose models are random, or collect statistics, by design.
_INTENDED = Vocabulary(
    r"mc|bayes\w*|uncertain\w*|epistemic|stochastic|ensembl\w*|sampl\w*|bn|batch ?norm|calibrat\w*|swa|warm ?up|tta"
    r"|explain\w*|(?:with )?drop ?out|attack\w*|advers\w*|pgd|fgsm|bald|acquisition|acquire|loss(?:es)?"
)
_HOOKED = ("LightningModule", "LightningDataModule", "Callback")
# Comments which say why the model is in training mode.
_REASON = pattern(
    r"#.*\b(bn|batch.?norm|statistics|stats|loss|losses|detect\w*|dropout|cudnn|rnn|because)\b", re.IGNORECASE
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    reported: set[object] = set()
    for call in model_calls(source):
        if not _may_have_mode(source, call):
            continue
        function = source.function(call)
        if _is_hooked(function) or _is_in_test_suite(source, function):
            continue
        violation = _set_to_train(source, call, function) or _left_in_training(source, call, function)
        if violation is None:
            continue
        # One finding for each block without gradients, and for each function or script.
        at = violation.node
        key = at if at is not call else function
        if key not in reported:
            reported |= {key, at}
            yield from unless_intended(source, violation, _is_intended(function))


def _may_have_mode(source: SourceFile, call: ast.Call) -> bool:
    """Whether what is called may be a model that behaves differently in evaluation."""
    models = built(source, call.func)
    if models:
        # What a function returns may be anything: a name says that it is a model.
        is_named = any(is_model_name(last_name(each)) for each in (call, *models))
        facts = mode_facts(source, models)
        return facts is not None and (is_named or not any("." in fact for fact in facts))
    return is_model_name(last_name(call.func)) or _is_own(source, call)


def _is_own(source: SourceFile, call: ast.Call) -> bool:
    """Whether a Module calls itself."""
    return isinstance(call.func, ast.Name) and call.func.id == source.self_name(call)


def _is_hooked(function: FunctionDefinition | None) -> bool:
    """Whether a trainer of a library runs a function, in the mode that it sets."""
    if function is None:
        return False
    owner, method = function.method.owner, function.method
    parameters = [parameter.arg for parameter in method.parameters]
    bases = owner.external_bases if owner is not None else []
    return (
        any(base.endswith(_HOOKED) for base in bases)
        or (bool(parameters[:1]) and parameters[0] in ("engine", "trainer", "pl_module"))
        or (owner is not None and any("training_step" in cls.methods for cls in owner.mro))
        or method.name in ("forward", "__call__")
    )


def _is_intended(function: FunctionDefinition | None) -> bool:
    """Whether names say that a function is to run in training mode."""
    names = [] if function is None else [function.method.name]
    names += [function.method.owner.name] if function is not None and function.method.owner is not None else []
    return any(map(_INTENDED.has, names))


def _is_in_test_suite(source: SourceFile, function: FunctionDefinition | None) -> bool:
    """Whether a test runner calls a function: a network under test may be in any mode."""
    if function is None:
        return False
    method = function.method
    if method.owner is not None and "Test" in method.owner.name and method.name.startswith("test"):
        return True
    if re.match(r"test_|.*_test$|conftest$", PurePath(source.path).stem) is None:
        return False
    return method.name.startswith("test_") or (method.owner is not None and "Test" in method.owner.name)


def _set_to_train(source: SourceFile, call: ast.Call, function: FunctionDefinition | None) -> Violation | None:
    """A model that a function which predicts or evaluates sets to training mode itself."""
    if function is None or not is_evaluation_name(function.method.name) or effect_of(source, function).learns:
        return None
    train = _train_calls(source, function).get(source.text.of(call.func))
    if train is None or start(train) > start(call) or is_repeated(source, call) or _has_targets(call):
        return None
    models = built(source, call.func)
    is_mode_free = bool(models) and mode_facts(source, models) is None
    lines = (source.text.line(line) for line in range(max(train.lineno - 1, 1), train.lineno + 1))
    if (
        is_mode_free
        or any(map(_REASON.search, lines))
        or {way.effect.mode for way in places(source, call)} != {Mode.TRAIN}
    ):
        return None
    return Violation(train, if_short(f"{function.method.name}() sets the model to training mode"))


@cached_per_file
def _train_calls(source: SourceFile, function: FunctionDefinition) -> dict[str, ast.Call]:
    """The calls `model.train()` in a function, by the model."""
    calls = [call for call in source.calls.get("train", []) if source.function(call) is function]
    return {
        source.text.of(call.func.value): call
        for call in reversed(calls)
        if isinstance(call.func, ast.Attribute) and all(literal(value) is True for value in given(call))
    }


def _has_targets(call: ast.Call) -> bool:
    """Whether a model gets the targets, too: in training mode models of detection return their losses."""
    names = [node.id for value in call.args[1:] for node in ast.walk(value) if isinstance(node, ast.Name)]
    keywords = [keyword.arg or "" for keyword in call.keywords]
    return any(re.search(r"target|label|annot|gt_|boxes", name) for name in (*names, *keywords))


def _left_in_training(source: SourceFile, call: ast.Call, function: FunctionDefinition | None) -> Violation | None:
    """A model that was trained or loaded, and is measured without a switch to evaluation mode on the way."""
    at = evaluation(source, call)
    if at is None:
        return None
    models = built(source, call.func)
    facts = _own_facts(source, call) if _is_own(source, call) else mode_facts(source, models) if models else None
    for way in places(source, call):
        effect = way.effect
        if effect.mode in (Mode.EVAL, Mode.UNKNOWN) or (effect.mode is None and is_built_in_eval(source, models)):
            continue
        if not effect.loads and _is_never_trained(source, models):
            continue
        if way.starts is not None and not effect.learns and _trains_elsewhere(source, way.starts):
            effect = effect.then(Effect(learns=True))
        refuted_by = tuple(f"switches:{key}" for key in effect.called)
        known = known_facts(effect)
        if facts is not None or (
            not models and effect.mode is Mode.TRAIN and effect.learns and _is_trained(source, call)
        ):
            # Of an unknown model, that it was set to training mode shows that modes matter.
            learning = learning_facts(effect)
            if learning is None and way.starts is not None and self_attribute(call.func) is not None:
                key = function_key(source, way.starts)
                learning, refuted_by = (f"evaluates:{key}",), (f"guards:{key}", *refuted_by)
            if learning is not None:
                needs = (*(facts or ()), *learning, *known, *_known_bases(way.starts))
                if effect.mode is None:
                    refuted_by += tuple(maker_facts(source, models))
                refuted_by += _switching_bases(source, way.starts)
                condition = FactCondition(needs, refuted_by) if needs or refuted_by else None
                return Violation(at, given=condition)
        elif not models and way.starts is not None:
            handed = model_facts(source, call.func, way.starts)
            if handed is None:
                continue
            key, learning = function_key(source, way.starts), learning_facts(effect)
            needs = (*handed, *((f"evaluates:{key}",) if learning is None else learning), *known)
            return Violation(at, given=FactCondition(needs, (f"guards:{key}", *refuted_by)))
    return None


def _is_trained(source: SourceFile, call: ast.Call) -> bool:
    """Whether an unknown model is the one that is trained: it is named beside, or given to what trains it."""
    function, callee = source.function(call), call.func
    if not isinstance(callee, ast.Name) or function is None:
        return True
    if is_given_to_events(source, call, callee.id):
        return True
    names = [parameter.arg for parameter in function.parameters]
    if callee.id not in names:
        return False
    place = names.index(callee.id) - (function.owner is not None)
    passed = ((site, argument(site, place, callee.id)) for site in call_sites(source, function) if place >= 0)
    return any(isinstance(value, ast.Name) and is_given_to_events(source, site, value.id) for site, value in passed)


def _is_never_trained(source: SourceFile, models: list[ast.Call]) -> bool:
    """Whether this file trains models, and this is another one."""
    trained = trained_models(source)
    return bool(trained) and bool(models) and trained.isdisjoint(models)


def _trains_elsewhere(source: SourceFile, method: FunctionDefinition) -> bool:
    """Whether another method of a class that holds a model trains it, and nothing in this file switches modes."""
    owner = method.owner
    if owner is None or owner.is_module or "eval" in source.attributes or "train" in source.attributes:
        return False
    return any(effect_of(source, other).learns for other in owner.methods.values())


def _own_facts(source: SourceFile, call: ast.Call) -> tuple[str, ...] | None:
    owner = source.module(call)
    return () if owner is not None and owner in mode_dependent_modules(source) else None


def _known_bases(starts: FunctionDefinition | None) -> tuple[str, ...]:
    """The facts which say that the project has all bases of a class, so that no library runs its methods."""
    owner = starts.method.owner if starts is not None else None
    is_derived = owner is not None and not owner.is_module and bool(owner.external_bases)
    return (f"no-module:{owner.name}",) if is_derived and owner is not None else ()


def _switching_bases(source: SourceFile, starts: FunctionDefinition | None) -> tuple[str, ...]:
    """The facts which say that a base of another file calls a method in evaluation mode, or switches modes."""
    if starts is None or not _known_bases(starts) or starts.method.owner is None:
        return ()
    bases = (last_part(base) for base in starts.method.owner.external_bases)
    return (f"guards:{function_key(source, starts)}", *(f"switches:{base}" for base in bases))


RULE = Rule(
    code="DRP107",
    name="eval-without-eval-mode",
    message="the model is measured in training mode: no eval() here",
    severity=Severity.WARNING,
    check_source=check_source,
    examples=(
        Example(
            """
import torch
from torch import nn


def predict(model, x):
-    model.train()  # DRP107
+    model.eval()
    return model(x)


model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
predict(model, torch.randn(4, 8))
""",
            unseen="the mode is right or wrong in the code around the model, which is not run",
        ),
        Example(
            """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(32, 8), torch.randint(2, (32,))

model.train()
for _ in range(3):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

+model.eval()
with torch.no_grad():  # DRP107
    accuracy = (model(x).argmax(1) == y).float().mean()
""",
            unseen="the mode is right or wrong in the loop around the model, which is not run",
        ),
    ),
)
