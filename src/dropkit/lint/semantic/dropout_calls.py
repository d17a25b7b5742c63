"""Find the calls in a file that drop, or that make a layer that drops, whatever the file calls them.

`F.dropout(x)` is one, `zap(x)` after `from torch.nn.functional import dropout as zap`, and `self.layer(x)` in a class
that sets `self.layer` to a dropout.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dropkit import catalog
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_names import LAYER_ATTRIBUTES
from dropkit.lint.semantic.expressions import argument, is_off, last_name, last_part, literal, self_attribute, unpacks
from dropkit.lint.semantic.layers import Operation, constructors, input_of, made, operations
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer, alternatives
from dropkit.lint.semantic.syntax_tree import cached_per_file


class DropoutForm(Enum):
    """How a call is about dropout: it drops, or makes a layer that does."""

    # F.dropout(x, p, training)
    FUNCTION = "function"
    # F.scaled_dot_product_attention(q, k, v, dropout_p=p), F.multi_head_attention_forward(...)
    ATTENTION = "attention"
    # nn.Dropout(p), DropPath(p)
    LAYER = "layer"
    # nn.LSTM(8, 8, 2, dropout=p), nn.MultiheadAttention(8, 2, dropout=p): a layer with dropout inside
    HOLDER = "holder"
    # self.dropout(x), where this file makes the layer
    APPLICATION = "application"
    # nn.Dropout(p)(x)
    PER_CALL = "per call"


@dataclass(frozen=True, slots=True, eq=False)
class DropoutCall:
    """A call that drops, or makes a layer that drops. An argument that is absent, or hidden in * or **, is None.

    Attributes:
        call: the call.
        form: how it is about dropout.
        name: the canonical dotted name of the function or layer; empty where a condition chooses between layers of
            different kinds.
        p, training, inplace, input: its arguments.
        made_by: for an application, the calls that make the layer: several if a condition chooses.
        signature: the positions of a function's arguments, and the default of its flag.
    """

    call: ast.Call
    form: DropoutForm
    name: str
    p: ast.expr | None = None
    training: ast.expr | None = None
    inplace: ast.expr | None = None
    input: ast.expr | None = None
    made_by: tuple[DropoutCall, ...] = ()
    signature: catalog.Functional | None = None

    @property
    def kind(self) -> str | None:
        """The name of one of torch's six layers, also for its function: "Dropout2d"; None for any other dropout."""
        if self.signature is not None:
            return self.signature.module
        return last_part(self.name) if self.name in catalog.DROPOUT_MODULES else None

    @property
    def is_standard(self) -> bool:
        """Whether it is a function that drops, or all layers are among torch's six."""
        return self.form is DropoutForm.FUNCTION or all(
            dropout.name in catalog.DROPOUT_MODULES for dropout in self.layers
        )

    @property
    def has_noise_shape(self) -> bool:
        """Whether elements share mask elements as `noise_shape` says, so that it is no elementwise dropout."""
        return any(argument(dropout.call, None, "noise_shape") is not None for dropout in self.layers)

    @property
    def default_training(self) -> bool | None:
        """What the flag is by default, if the call surely leaves it out; None for any other call."""
        if self.signature is None or self.training is not None or unpacks(self.call):
            return None
        return self.signature.training_default

    @property
    def layers(self) -> tuple[DropoutCall, ...]:
        """The calls with the arguments: those that make the layer, else the call itself."""
        return self.made_by or (self,)

    @property
    def has_zero_rate(self) -> bool:
        """Whether the rate of any of the layers is a literal zero."""
        return any(is_off(dropout.p) for dropout in self.layers)

    @property
    def never_drops(self) -> bool:
        """Whether the rate is a literal zero, or the flag literally off."""
        return self.has_zero_rate or is_off(self.training)

    @property
    def works_in_place(self) -> bool:
        """Whether it certainly changes its input: each layer has inplace=True, and may drop."""
        return all(literal(dropout.inplace) is True and not dropout.never_drops for dropout in self.layers)

    @property
    def may_work_in_place(self) -> bool:
        """Whether a layer's `inplace` is anything but absent or a literal False."""
        return any(
            unpacks(dropout.call) or (dropout.inplace is not None and literal(dropout.inplace) is not False)
            for dropout in self.layers
        )


def dropout_calls(source: SourceFile, *forms: DropoutForm) -> list[DropoutCall]:
    """The dropouts of a file in the order of the text; those of some forms, if any are given."""
    return [dropout for dropout in _by_call(source).values() if not forms or dropout.form in forms]


def dropout_call(source: SourceFile, node: ast.AST | None) -> DropoutCall | None:
    """The dropout that `node` is; None if it is none."""
    return _by_call(source).get(node)


def has_zero_rate(source: SourceFile, layer: ast.AST | None) -> bool:
    """Whether `layer` makes a dropout whose rate is a zero: literally, or by the local name that holds it."""
    dropout = dropout_call(source, layer)
    return dropout is not None and dropout.p is not None and is_off(source.substitute(dropout.p))


def dropout_kind(source: SourceFile, node: ast.AST | None) -> str | None:
    """The `kind` of the dropout that `node` is; None if it is none, has `noise_shape`, or never drops."""
    dropout = dropout_call(source, node)
    is_plain = dropout is not None and not dropout.never_drops and not dropout.has_noise_shape
    return dropout.kind if dropout is not None and is_plain else None


def operations_before(source: SourceFile, dropout: DropoutCall) -> list[Operation | None]:
    """What may run directly before a dropout: the layer before it in its row, or else what computes its input."""
    if dropout.form is not DropoutForm.LAYER:
        return operations(source, dropout.input)
    return [made(source, adjacent_layer(source, dropout.call, BEFORE))]


def names_before(source: SourceFile, dropout: DropoutCall) -> set[str]:
    """The names in torch of what may run directly before a dropout; empty for anything else."""
    return {applied.torch_name if applied is not None else "" for applied in operations_before(source, dropout)}


def rates(source: SourceFile) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Yield calls that take the rate to drop, with the expression of the rate."""
    for dropout in dropout_calls(
        source, DropoutForm.FUNCTION, DropoutForm.ATTENTION, DropoutForm.LAYER, DropoutForm.HOLDER
    ):
        # DropPath takes the rate to keep in some libraries.
        is_known = dropout.form is not DropoutForm.LAYER or dropout.name in catalog.RATED_LAYERS
        if dropout.p is not None and is_known and dropout.name != catalog.MULTI_HEAD:
            yield dropout.call, dropout.p


def unseen_applications(source: SourceFile) -> Iterator[ast.Call]:
    """Yield calls of a `self.dropout` that this file does not set: most often it is set by a base class."""
    for name in LAYER_ATTRIBUTES:
        for call in source.calls.get(name, []):
            attribute, owner = self_attribute(call.func), source.owner(call)
            if attribute is None or owner is None or owner.values(attribute) or owner.method(attribute) is not None:
                continue
            yield call


@cached_per_file
def _by_call(source: SourceFile) -> dict[ast.AST | None, DropoutCall]:
    dropouts: dict[ast.AST | None, DropoutCall] = {}
    for call in source.all_calls:
        name = source.called(call)
        dropout = _named(call, name) if name is not None else _by_attribute(source, call)
        if dropout is not None:
            dropouts[call] = dropout
    layer_of = {dropout.call: dropout for dropout in dropouts.values() if dropout.form is DropoutForm.LAYER}
    if not layer_of:
        return dropouts
    for call in source.all_calls:
        made_by = (
            [layer_of.get(made) for made in constructors(source, call.func)] if source.called(call) is None else []
        )
        if made_by and None not in made_by:
            dropouts[call] = _application(call, tuple(dropout for dropout in made_by if dropout is not None))
    return {call: dropouts[call] for call in source.all_calls if call in dropouts}


def _named(call: ast.Call, name: str) -> DropoutCall | None:
    """The dropout that a call of this canonical name is."""
    function = catalog.FUNCTIONALS.get(name)
    if function is not None:
        return DropoutCall(
            call,
            DropoutForm.FUNCTION,
            name,
            argument(call, function.p, function.p_name),
            argument(call, function.training, function.training_name),
            argument(call, function.inplace, "inplace"),
            input_of(call),
            signature=function,
        )
    if name in catalog.DROPOUT_MODULES or last_part(name) in catalog.DROPOUT_PATHS:
        inplace = argument(call, 1 if name in catalog.DROPOUT_MODULES else None, "inplace")
        return DropoutCall(call, DropoutForm.LAYER, name, argument(call, 0, "p"), inplace=inplace)
    if name in catalog.ATTENTION:
        p, training = argument(call, *catalog.ATTENTION[name]), argument(call, None, "training")  # dropkit's has it
        return DropoutCall(call, DropoutForm.ATTENTION, name, p, training, input=input_of(call))
    if name == catalog.MULTI_HEAD:
        p = argument(call, catalog.MULTI_HEAD_P, "dropout_p")
        training = argument(call, catalog.MULTI_HEAD_TRAINING, "training")
        return DropoutCall(call, DropoutForm.ATTENTION, name, p, training)
    if name in catalog.HOLDERS:
        return DropoutCall(call, DropoutForm.HOLDER, name, argument(call, *catalog.HOLDERS[name]))
    return None


def _by_attribute(source: SourceFile, call: ast.Call) -> DropoutCall | None:
    """The dropout of a function that is kept in an attribute: `self.attend = F.scaled_dot_product_attention`."""
    attribute, owner = self_attribute(call.func), source.owner(call)
    functions = _functions_of_attribute(source, owner, attribute) if attribute is not None and owner is not None else []
    made = [(_named(call, name), kept) for name, kept in functions]
    forms = (DropoutForm.FUNCTION, DropoutForm.ATTENTION)
    if not made or any(dropout is None or dropout.form not in forms for dropout, _ in made):
        return None
    dropout, kept = made[0]
    assert dropout is not None
    given_before = [argument(kept, None, name) for name in _RATES] if kept is not None else []
    return replace(dropout, p=dropout.p or next(filter(None, given_before), None))


# What functions call their rate.
_RATES = ("p", "dropout_p")


@cached_per_file
def _functions_of_attribute(
    source: SourceFile, owner: ClassDefinition, attribute: str
) -> list[tuple[str, ast.Call | None]]:
    """The functions that an attribute is set to, by dotted name, with the `partial` around; empty if one is unknown."""
    functions: list[tuple[str, ast.Call | None]] = []
    set_to = [None if write.derived else write.value for write in owner.all_writes(attribute)]
    for value in [choice for expression in set_to for choice in alternatives(source, expression)]:
        kept = value if isinstance(value, ast.Call) and value.args and last_name(value) in _WRAPPERS else None
        name = source.dotted(kept.args[0] if kept is not None else value) if value is not None else None
        if name is None or len(functions) == MOST:
            return []
        functions.append((name, kept))
    return functions


# Calls that return a function like their argument.
_WRAPPERS = frozenset({"partial", "staticmethod"})


def _application(call: ast.Call, made_by: tuple[DropoutCall, ...]) -> DropoutCall:
    names = {dropout.name for dropout in made_by}
    form = DropoutForm.PER_CALL if isinstance(call.func, ast.Call) else DropoutForm.APPLICATION
    return DropoutCall(call, form, names.pop() if len(names) == 1 else "", input=input_of(call), made_by=made_by)
