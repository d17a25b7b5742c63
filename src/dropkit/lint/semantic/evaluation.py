"""Calls of models whose outputs are measured, and not trained on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.lint.semantic.callees import call_sites, local_function
from dropkit.lint.semantic.data_flow import MOST, readers
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.expressions import given, last_name, names_bound, names_in, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.mode_effects import effect_between, effect_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import end, start

_NO_GRAD = ("torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad", "torch.autograd.inference_mode")
# Names of functions that evaluate or predict.
_EVALUATES = Vocabulary(
    r"eval\w*|valid|validate|validation|val|test|tests|predict\w*|infer|inference|accuracy|acc|scores?|metrics?|measure"
)
# Names that results of an evaluation have.
_MEASURED = pattern(
    r"acc($|_|u)|correct|metric|scores?$|f1|auc|mse|rmse|mae|psnr|ssim|iou|dice|recall|precision|confusion|loss|error"
    r"|perplexity|ppl|hits|mrr|y_true|y_pred|y_?hat|preds?($|_)|predict|prob",
    re.IGNORECASE,
)
# Calls that read an output as a prediction.
_READS = frozenset(
    {"print", "argmax", "topk", "item", "tolist", "numpy", "round", "eq", "accuracy_score", "imshow", "plot", "scatter",
     "softmax", "sigmoid", "max", "write", "to_csv", "savetxt", "info", "append", "extend", "sum", "mean"}
)  # fmt: skip
# Names of data that is not trained on.
_HELD_OUT = Vocabulary(r"tests?|val|valid|validation|dev|held ?out|holdout|eval|evaluation|unseen|new|infer")
# Names of models and of inputs that are random, or trained against, by design.
_RANDOM_MODELS = Vocabulary(
    r"net ?g|g|generators?|gan|gen|net ?d|discriminators?|critic|policy|actor|agent|target|teacher|ema|diffusion"
)
_RANDOM_INPUTS = Vocabulary(r"noise|noises|latents?|z|fakes?")


def is_evaluation_name(name: str) -> bool:
    """Whether a function of this name evaluates or predicts.

    Example:
        >>> [is_evaluation_name(name) for name in ("evaluate", "predict_all", "test", "train_epoch", "latest")]
        [True, True, True, False, False]
    """
    return _EVALUATES.has(name) and not re.search(r"train", name, re.IGNORECASE)


def model_calls(source: SourceFile) -> Iterator[ast.Call]:
    """The calls of names and attributes that may be models."""
    for call in source.all_calls:
        callee = call.func
        if isinstance(callee, ast.Name):
            is_unknown = source.called(call) is None and local_function(source, callee) is None
            if is_unknown and given(call) and source.bindings(callee):
                yield call
        elif self_attribute(callee) is not None and source.called(call) is None and given(call):
            owner = source.owner(call)
            if owner is not None and not owner.is_module and owner.method(last_name(callee)) is None:
                yield call


def evaluation(source: SourceFile, call: ast.Call) -> ast.Call | None:
    """A call of a model whose output is measured, or the `torch.no_grad()` around it: where to report it.

    None if the model learns from its output, or nothing is measured.
    """
    function = source.function(call)
    no_grad = _no_grad(source, call)
    loop = _innermost_loop(source, call)
    block = source.parent(source.parent(no_grad))
    block = block if isinstance(block, (ast.With, ast.AsyncWith)) else None
    is_random = _RANDOM_MODELS.has(last_name(call.func)) or any(map(_RANDOM_INPUTS.has, names_in_arguments(call)))
    if is_random or is_repeated(source, call):
        return None
    if loop is not None and effect_between(source, loop).learns:
        is_apart = (
            start(loop) < start(block) and not effect_between(source, block).learns
            if block is not None
            else _is_held_out(source, call)
        )
        if not is_apart or not _has_other_data(source, call, loop, block):
            return None
    elif no_grad is None and _may_learn_from(source, call, function):
        return None
    is_named = (
        function is not None and is_evaluation_name(function.method.name) and not effect_of(source, function).learns
    )
    if not is_named and no_grad is None and function is not None and _serves_training(source, function):
        return None
    region = [block] if block is not None else [loop] if loop is not None else []
    statements = [*region, *_statements(source, call)]
    if not is_named and not any(_is_measured(statement) for statement in statements):
        return None
    return no_grad if no_grad is not None else call


def _is_held_out(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call on data of a validation set has a result that the model does not learn from."""
    statement = source.statement(call)
    stored = names_bound(statement)
    roots = {
        name
        for backward in source.calls.get("backward", [])
        if source.function(backward) is source.function(call)
        for name in _roots(source, backward)
    }
    return any(map(_HELD_OUT.has, names_in_arguments(call))) and stored.isdisjoint(roots)


def _serves_training(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a function is called where the model learns, as a step of training and of evaluation."""
    return any(
        ((loop := _innermost_loop(source, site)) is not None and effect_between(source, loop).learns)
        or _may_learn_from(source, site, source.function(site))
        for site in call_sites(source, function)[:MOST]
    )


def names_in_arguments(call: ast.Call) -> list[str]:
    return [name for value in given(call) for name in names_in(value)]


def _no_grad(source: SourceFile, node: ast.AST) -> ast.Call | None:
    """The innermost `torch.no_grad()` around a node: of a `with`, or a decorator."""
    calls = set(source.calls_of(*_NO_GRAD))
    for parent in source.parents(node):
        if isinstance(parent, (ast.With, ast.AsyncWith)):
            found = [item.context_expr for item in parent.items if item.context_expr in calls]
        elif isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found = [decorator for decorator in parent.decorator_list if decorator in calls]
        else:
            continue
        if found and isinstance(found[0], ast.Call):
            return found[0]
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
    return None


def _innermost_loop(source: SourceFile, node: ast.AST) -> ast.AST | None:
    for parent in source.parents(node):
        if isinstance(parent, (ast.For, ast.AsyncFor, ast.While)):
            return parent
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return None
    return None


def is_repeated(source: SourceFile, call: ast.Call) -> bool:
    """Whether the same input is given to the model again and again: samples of Monte Carlo dropout."""
    names = {name.id for value in given(call) for name in ast.walk(value) if isinstance(name, ast.Name)}
    for parent in source.parents(call):
        match parent:
            case ast.ListComp(generators=generators) | ast.GeneratorExp(generators=generators):
                targets = [target for each in generators for target in ast.walk(each.target)]
                iterables = [each.iter for each in generators]
            case ast.For(target=target, iter=iterable):
                targets, iterables = list(ast.walk(target)), [iterable]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return False
            case _:
                continue
        own = {target.id for target in targets if isinstance(target, ast.Name)}
        counts = all(isinstance(each, ast.Call) and last_name(each) in ("range", "trange") for each in iterables)
        is_bound_inside = any(
            name in own
            or any(isinstance(use.ctx, ast.Store) for use in source.names_between(name, start(parent), end(parent)))
            for name in names
        )
        if counts and not is_bound_inside and not effect_between(source, parent).learns:
            return True
    return False


def _has_other_data(source: SourceFile, call: ast.Call, loop: ast.AST, block: ast.AST | None) -> bool:
    """Whether the data of an evaluation within a training loop is not the batch that is trained on."""
    arguments = {source.text.of(value) for value in given(call)}
    if any(map(_HELD_OUT.has, names_in_arguments(call))):
        return True
    trained = {
        source.text.of(value)
        for other in source.all_calls
        if start(loop) < start(other) < end(loop)
        and not (block is not None and start(block) < start(other) < end(block))
        and source.text.of(other.func) == source.text.of(call.func)
        for value in given(other)
    }
    is_of_batch = any(_is_bound_in_loop(source, value, loop) for value in given(call))
    return bool(trained) and arguments.isdisjoint(trained) and not is_of_batch


def is_of_batch(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call in a training loop gets the batch that is trained on."""
    loop = _innermost_loop(source, call)
    if not isinstance(loop, (ast.For, ast.AsyncFor)) or last_name(loop.iter) in ("range", "trange", "count"):
        return False
    return any(_is_bound_in_loop(source, value, loop) for value in given(call)) and any(
        _innermost_loop(source, other) is loop for other in source.calls.get("backward", [])
    )


def _is_bound_in_loop(source: SourceFile, value: ast.expr, loop: ast.AST) -> bool:
    """Whether a value comes from what the training loop iterates over."""
    targets = loop.target if isinstance(loop, (ast.For, ast.AsyncFor)) else None
    own = {node.id for node in ast.walk(targets) if isinstance(node, ast.Name)} if targets is not None else set[str]()
    return any(isinstance(node, ast.Name) and node.id in own for node in ast.walk(value))


def _may_learn_from(source: SourceFile, call: ast.Call, function: FunctionDefinition | None) -> bool:
    """Whether gradients of the output may be computed: `backward` follows in the function, or it returns a loss."""
    begin = start(call)
    following = [other for other in source.calls.get("backward", []) if source.function(other) is function]
    if not any(start(other) > begin for other in following):
        return False
    loop = _innermost_loop(source, call)
    if loop is None:
        return True
    # A loop of its own: what it stores is no part of what the model learns from.
    stored = names_bound(loop)
    receivers = {name for other in following for name in _roots(source, other)}
    return not stored.isdisjoint(receivers) or not any(map(_HELD_OUT.has, names_in(loop)))


def _roots(source: SourceFile, backward: ast.Call) -> Iterator[str]:
    """The names that a loss is made of, one assignment back."""
    for node in ast.walk(backward):
        if isinstance(node, ast.Name):
            yield node.id
            value = source.value(node)
            yield from (
                part.id for part in (ast.walk(value) if value is not None else ()) if isinstance(part, ast.Name)
            )


def _statements(source: SourceFile, call: ast.Call) -> list[ast.AST]:
    """The statement of a call, and those that read what it assigns, two assignments on."""
    pending: list[ast.AST] = [source.statement(call)]
    for statement in pending:
        if not isinstance(statement, ast.Assign) or len(pending) > MOST:
            continue
        names = [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        for name in names:
            reads = readers(source, statement, name) or _reads_at_top(source, statement, name)
            pending += [found for read in reads[:MOST] if (found := source.statement(read)) not in pending]
    return pending[:MOST]


def _reads_at_top(source: SourceFile, statement: ast.stmt, name: str) -> list[ast.Name]:
    """The later reads of a name at the level of the file."""
    if source.function(statement) is not None:
        return []
    return [
        use
        for use in source.names_between(name, end(statement), (1 << 60, 0))
        if isinstance(use.ctx, ast.Load) and source.function(use) is None
    ]


def _is_measured(region: ast.AST) -> bool:
    """Whether a name of a result is set in a region, or an output is read as a prediction."""
    # Of a definition nothing runs here.
    for node in ast.walk(region) if not isinstance(region, (ast.FunctionDef, ast.ClassDef)) else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and _MEASURED.search(node.id):
            return True
        if isinstance(node, ast.Call) and last_name(node) in _READS:
            return True
    return False
