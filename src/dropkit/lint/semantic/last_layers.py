"""The last layers of models: recognised by their width, by their names, and by the classes that hold them."""

from __future__ import annotations

import ast
import re

from dropkit.lint.semantic.expressions import argument, last_name, literal, names_in
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.layers import operations
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file

_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear"})
_CLASSES = pattern(
    r"(num|n|nb|number|no)_?(of_?)?(\w+_)?(class|label|tag|categor|target|action)|^n?_?class(es)?$|n_?class|vocab_?size"
    r"|n_?vocab|^ntokens?$|tagset_?size|label_?size|class_?num|out_?class|^act(ion)?s?_?(dim|size)$|^horizon$|(forecast|predict\w*|pred|out(put)?)_?"
    r"(horizon|len(gth)?|steps?|window)$"
    r"|target_?(window|len(gth)?|steps?)|^n_?(forecasts?|horizons?|targets?)$",
    re.IGNORECASE,
)
# Widths that are those of the output in a whole model; in a part of one they are not.
_OUTPUT = pattern(r"^(n_?|num_?)?out(puts?)?(_?(dim|size|features|channels))?$|^d_out$", re.IGNORECASE)
# A width below this, of a layer that is named like a classifier, is a number of classes.
_MAX_CLASSES = 1000
_CLASSIFIER = pattern(r"classif|logit|(^|_)head$|regressor", re.IGNORECASE)
# Names of classes that are whole models, whose last layer makes the output.
_WHOLE = Vocabulary(
    r"classifier|regressor|forecaster|predictor|\w*net|network|model|cnn|discriminator|critic|classification"
)
_HIDDEN = Vocabulary(r"hidden|embed\w*|proj|projection|input|encod\w*|feed|attn|attention|bottleneck|first|in")
_PART = Vocabulary(r"block|layer|module|encoder|decoder|attention|embedding|unit|cell|stage|backbone|sub\w*|feed|ffn")


def comes_from_last_layer(source: SourceFile, value: ast.expr | None) -> bool:
    """Whether a value is the result of last layers alone."""
    return all(
        applied is not None
        and applied.layers
        and all(is_last(source, applied.call.func, layer) for layer in applied.layers)
        for applied in operations(source, value)
    )


def is_last(source: SourceFile, callee: ast.expr, layer: ast.Call) -> bool:
    """Whether `layer`, applied as `callee`, is a last layer, by its width or by its name."""
    name = last_name(callee)
    is_of_model = not _HIDDEN.has(name) and is_whole_model(source, callee)
    is_last = is_narrow(source, layer) and _CLASSIFIER.search(name) is not None
    return is_last or (is_of_model and ends_model(source, layer)) or is_as_wide_as_classes(source, layer)


def is_whole_name(name: str) -> bool:
    """Whether something of this name is a whole model, as far as the name tells.

    Example:
        >>> [is_whole_name(name) for name in ("ConvNet", "classifier", "NetBlock", "encoder")]
        [True, True, False, False]
    """
    return _WHOLE.has(name) and not _PART.has(name)


def is_whole_model(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` is in the `forward` of a class that is a whole model by its name, and no part of another."""
    owner, function = source.owner(node), source.function(node)
    return (
        owner is not None
        and function is not None
        and function.name == "forward"
        and is_whole_name(owner.name)
        and not owner.subclasses
        and not any(source.owner(call) is not None for call in source.calls.get(owner.name, []))
    )


def is_narrow(source: SourceFile, layer: ast.Call) -> bool:
    """Whether a linear layer has so few outputs, as a number, that they may be classes or values to predict."""
    width = literal(_width(layer))
    return isinstance(width, int) and width < _MAX_CLASSES and source.called(layer) in _LINEAR


def ends_model(source: SourceFile, layer: ast.Call) -> bool:
    """Whether a layer at the end of a whole model makes its output, by its width.

    One that is as wide as its input is more likely a hidden layer.
    """
    is_square = literal(argument(layer, 0, "in_features")) == literal(_width(layer))
    return (is_narrow(source, layer) and not is_square) or any(map(_OUTPUT.search, names_in(_width(layer) or layer)))


@cached_per_file
def is_as_wide_as_classes(source: SourceFile, layer: ast.Call) -> bool:
    """Whether the number of outputs of `layer` is named after classes, labels or words."""
    width = _width(layer)
    if width is None or "Embedding" in (source.called(layer) or ""):
        return False
    return any(_CLASSES.search(name) for name in names_in(width))


def _width(layer: ast.Call) -> ast.expr | None:
    """The number of outputs of `layer`."""
    return argument(layer, None, "out_channels") or argument(layer, 1, "out_features")
