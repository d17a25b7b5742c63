"""Generated calls of torch and of dropkit: a caller observes the same, except for the differences listed here.

DROPKIT_EXAMPLES=5000 makes that many calls of each layer, other ones in each run, instead of a few that are always the
same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers.calls import (
    ACCEPTED,
    FLAGS,
    FLOATS,
    HISTORIES,
    NESTED,
    NOT_STRIDED,
    NOT_TENSORS,
    SPARSE,
    Call,
    Seen,
    bits,
    build,
    buildable,
    counter,
    draw_call,
    look,
    observe,
    takes_arguments,
)
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from dropkit.nn import LAYERS
from dropkit.nn.layer import Layer

EXAMPLES = os.environ.get("DROPKIT_EXAMPLES")
FUZZ = settings(
    max_examples=int(EXAMPLES or 750),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
BY_NAME = {layer.name: layer for layer in LAYERS}


@dataclass(frozen=True)
class Difference:
    """An intended difference: why, a layer and a call that show it, which calls it concerns, what they show instead."""

    reason: str
    layer: str
    call: Call
    concerns: Callable[[Layer, Call, Seen], Any]
    instead: Callable[[Layer, Call, Seen], Seen]


# Applied in this order, each to the result of those above it. That the random numbers differ needs no entry: no random
# value is compared.
DIFFERENCES = (
    Difference(
        "AlphaDropout(inplace=True) and FeatureAlphaDropout(inplace=True) are in place; torch ignores it",
        "AlphaDropout",
        Call(form="module", inplace="True"),
        lambda layer, call, seen: call.form == "module" and "Alpha" in layer.name and "'<' not" not in str(seen.error),
        lambda layer, call, seen: of_torch(layer, replace(call, form="function")),
    ),
    Difference(
        "an unbatched input is taken as it is; torch adds a batch dimension to it, which may fail, warn or reshape",
        "Dropout1d",
        Call(shape=(3, 4), dtype=torch.int64, inplace="True"),
        lambda layer, call, seen: is_unbatched(layer, call) and (seen.error or FLAGS[call.inplace]()),
        lambda layer, call, seen: without_batching(call, seen),
    ),
    Difference(
        "identity returns the very object that it got; torch returns a view of unbatched inputs, a copy of nested ones",
        "Dropout1d",
        Call(shape=(3, 4), training="False"),
        lambda layer, call, seen: is_identity(call, seen),
        lambda layer, call, seen: of_identity(call, seen),
    ),
    Difference(
        "at p = 1 dense outputs are 0; torch multiplies by 0, which makes NaN of NaN and of infinity",
        "Dropout",
        Call(p="1"),
        lambda layer, call, seen: seen.values and seen.strides is not None and everything_drops(call, seen),
        lambda layer, call, seen: replace(seen, values=bytes(len(seen.values))),
    ),
    Difference(
        "at p = 1 a tensor that must not be written is refused for that; torch may refuse its dtype first",
        "Dropout",
        Call(history="inference", dtype=torch.float8_e4m3fn, p="1", inplace="True"),
        lambda layer, call, seen: (
            call.dtype == torch.float8_e4m3fn
            and call.history == "inference"
            and everything_drops(call, seen)
            and expected(layer, as_float(call)).error
        ),
        lambda layer, call, seen: expected(layer, as_float(call)),
    ),
    Difference(
        "a call in place that fails leaves its input as it was; torch may leave it written or reshaped",
        "Dropout",
        Call(history="inference", inplace="True"),
        lambda layer, call, seen: seen.error,
        lambda layer, call, seen: replace(seen, input_kept=True, writes=seen.writes and 0),
    ),
    Difference(
        "a call in place increases the version counter by 1; torch counts the operations that it is composed of",
        "AlphaDropout",
        Call(inplace="True"),
        lambda layer, call, seen: seen.writes,
        lambda layer, call, seen: replace(seen, writes=1),
    ),
    Difference(
        "complex numbers are dropped as pairs of real ones; torch has no kernel for them on the CPU",
        "Dropout",
        Call(dtype=torch.complex64),
        lambda layer, call, seen: drops_pairs(layer, call),
        lambda layer, call, seen: of_pairs(call, expected(layer, as_float(call))),
    ),
    Difference(
        "p = NaN is refused like any other p out of range; torch's modules take it, its functions raise RuntimeError",
        "Dropout",
        Call(p="nan"),
        lambda layer, call, seen: "nan" in call.p,
        lambda layer, call, seen: Seen(
            error=(ValueError, "dropout probability has to be between 0 and 1, but got nan"),
            input_kept=True,
            writes=seen.writes and 0,
        ),
    ),
)


# Drawn uniformly, by a seed: Hypothesis by itself prefers first entries and repeats them.
CALLS = st.randoms(use_true_random=True).map(draw_call)


@FUZZ
@given(call=CALLS)
def test_a_call_shows_what_torchs_shows(shared_layer, call):
    """Outcome, warnings, output, aliasing, graph, writes and draws are torch's, but for the listed differences."""
    assume(buildable(call) and not drops_sparse_or_nested(call))
    note(f"{call}")

    seen = of_dropkit(shared_layer, call)

    assert seen == expected(shared_layer, call)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.reason.split(";")[0])
def test_listed_differences_are_differences(difference):
    """Each listed call shows dropkit's behaviour, and torch's differs."""
    layer = BY_NAME[difference.layer]

    seen = of_dropkit(layer, difference.call)

    assert seen == expected(layer, difference.call)
    assert seen != of_torch(layer, difference.call)


@pytest.mark.parametrize("history", HISTORIES)
def test_every_history_can_be_built(history):
    """Inputs of every history can be made, so that none is left out of the generated calls."""
    assert buildable(Call(shape=(2, 3), history=history))


def expected(layer: Layer, call: Call) -> Seen:
    seen = of_torch(layer, call)
    for difference in DIFFERENCES:
        if difference.concerns(layer, call, seen):
            seen = difference.instead(layer, call, seen)
    return seen


def of_torch(layer: Layer, call: Call) -> Seen:
    assert layer.counterpart is not None
    return observe(call, layer.counterpart.function, layer.counterpart.module)


def of_dropkit(layer: Layer, call: Call) -> Seen:
    return observe(call, layer.function, layer.module)


def without_batching(call: Call, seen: Seen) -> Seen:
    """The call without the added dimension: elementwise dropout, with the error texts of channel dropout."""
    if call.shape == () and call.history not in NESTED:
        return replace(of_torch(BY_NAME["Dropout2d"], call), warned=of_dropout(seen.warned))
    plain = of_torch(BY_NAME["Dropout"], call)
    error = plain.error and (plain.error[0], re.sub(r"^dropout(_?\(\))", r"feature_dropout\1", plain.error[1]))
    return replace(plain, error=error, warned=of_dropout(seen.warned))


def of_identity(call: Call, seen: Seen) -> Seen:
    input = build(call)
    return Seen(
        **look(input, input),
        values=bits(input),
        warned=of_dropout(seen.warned),
        input_kept=None if FLAGS[call.inplace]() else True,
        writes=None if counter(input) is None else 0,
    )


def of_dropout(warned: tuple[tuple[type, str], ...]) -> tuple[tuple[type, str], ...]:
    return tuple(warning for warning in warned if "dropout" in warning[1])


def is_unbatched(layer: Layer, call: Call) -> bool:
    dims = len(call.shape) + (call.history in NESTED)
    left_to_torch = takes_arguments(call) and call.history in NOT_STRIDED
    return (
        not left_to_torch
        and call.history not in NOT_TENSORS
        and ((layer.name == "Dropout1d" and dims == 2) or (layer.name == "Dropout3d" and dims != 5))
    )


def is_identity(call: Call, seen: Seen) -> bool:
    wrong_rank = seen.error is not None and "Expected 2D or 3D" in seen.error[1]
    nothing_drops = call.training == "False" or 0 in call.shape or (call.p in ACCEPTED and ACCEPTED[call.p]() == 0)
    return takes_arguments(call) and call.history not in NOT_TENSORS and nothing_drops and not wrong_rank


def everything_drops(call: Call, seen: Seen) -> bool:
    wrong_rank = seen.error is not None and "Expected 2D or 3D" in seen.error[1]
    return takes_arguments(call) and ACCEPTED[call.p]() == 1 and not is_identity(call, seen) and not wrong_rank


def drops_sparse_or_nested(call: Call) -> bool:
    """Whether a call may drop elements of a sparse tensor, or floats of a nested one.

    torch refuses most such calls, so `test_sparse.py` and `test_nested.py` have the laws.
    """
    some_drop = call.training == "True" and takes_arguments(call) and ACCEPTED[call.p]() != 0
    return some_drop and (call.history in SPARSE or (call.history in NESTED and call.dtype in FLOATS))


def as_float(call: Call) -> Call:
    return replace(call, dtype=torch.float32)


def drops_pairs(layer: Layer, call: Call) -> bool:
    """Whether complex numbers in a dense tensor may drop."""
    some_drop = call.training == "True" and takes_arguments(call) and ACCEPTED[call.p]() != 0 and 0 not in call.shape
    is_plain = call.history not in (*NOT_STRIDED, *NOT_TENSORS)
    return call.dtype.is_complex and layer.takes_complex and some_drop and is_plain


def of_pairs(call: Call, seen: Seen) -> Seen:
    """What is seen of real numbers, for complex ones, which are all 0 where values do not depend on the draw."""
    zeros = seen.values and bytes(len(seen.values) * call.dtype.itemsize // torch.float32.itemsize)
    return replace(seen, dtype=seen.dtype and call.dtype, values=zeros)
