"""Generated calls, made of torch and of dropkit: a caller sees the same, but for the differences that are listed here.

DROPKIT_EXAMPLES=5000 makes as many calls of each layer, others each time, in place of a few that are always the same.
"""

from __future__ import annotations

import math
import operator
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from torch import Tensor

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


@dataclass(frozen=True)
class Call:
    """One call, in words: names of entries of the tables below, so that a failing one can be copied from the report."""

    form: str = "function"
    shape: tuple[int, ...] = (2, 3, 4)
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    history: str = "plain"
    mode: str = "grad"
    p: str = "0.5"
    training: str = "True"
    inplace: str = "False"


@dataclass(frozen=True)
class Seen:
    """What a caller can observe of a call; None where there is nothing to observe."""

    error: tuple[type, str] | None = None
    warned: tuple[tuple[type, str], ...] = ()
    type: type | None = None
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    device: str | None = None
    is_input: bool | None = None
    aliases_input: bool | None = None
    graph: tuple[bool, bool] | str | None = None  # requires_grad and is_leaf, or why they cannot be told
    is_inference: bool | None = None
    values: bytes | None = None  # only where they do not depend on the draw
    input_kept: bool | None = None  # None where the input was written on purpose
    writes: int | None = None  # by how much the version counter moved; None for inference tensors
    drew: bool = False


ACCEPTED: dict[str, Callable[[], Any]] = {
    "0": lambda: 0,
    "0.0": lambda: 0.0,
    "1": lambda: 1,
    "1.0": lambda: 1.0,
    "0.1": lambda: 0.1,
    "0.5": lambda: 0.5,
    "1e-30": lambda: 1e-30,
    "True": lambda: True,
    "False": lambda: False,
    "tensor": lambda: torch.tensor(0.5),
    "tensor 1": lambda: torch.tensor(1),
    "np.float32": lambda: np.float32(0.5),
    "np.float64": lambda: np.float64(0.5),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "nan": lambda: float("nan"),
    "nan tensor": lambda: torch.tensor(float("nan")),
    "-0.1": lambda: -0.1,
    "1.5": lambda: 1.5,
    "inf": lambda: float("inf"),
    "np.float32 1.5": lambda: np.float32(1.5),
    "tensor 1.5": lambda: torch.tensor(1.5),
    "tensor that requires grad": lambda: torch.tensor(0.5, requires_grad=True),
    "Parameter": lambda: torch.nn.Parameter(torch.tensor(0.5)),
    "1-d tensor": lambda: torch.tensor([0.5]),
    "2 elements": lambda: torch.tensor([0.5, 0.5]),
    "np.array": lambda: np.array(0.5),
    "str": lambda: "0.5",
    "None": lambda: None,
    "complex": lambda: 0.5j,
}
PROBABILITIES = ACCEPTED | REFUSED
FLAGS: dict[str, Callable[[], Any]] = {
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "1": lambda: 1,
    "None": lambda: None,
    "str": lambda: "yes",
    "tensor": lambda: torch.tensor(True),
    "np.bool": lambda: np.bool_(True),
}
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.uint8, torch.uint16, torch.bool]
OTHERS = [torch.complex64, torch.complex128, torch.float8_e4m3fn]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
Lay = Callable[[Tensor], Tensor]
# From a tensor to one of the same shape, on memory of its own or on a part of the tensor's.
LAYOUTS: dict[str, Lay] = {
    "contiguous": lambda x: x,
    "permuted": lambda x: x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim()))),
    "channels last": lambda x: x.contiguous(memory_format=CHANNELS_LAST.get(x.dim(), torch.contiguous_format)),
    "expanded": lambda x: x[:1].expand(x.shape) if x.dim() else x.expand(1, 1)[0, 0],
    "stepped": lambda x: torch.stack([x, x], -1)[..., 0],
    "offset": lambda x: torch.cat([x.flatten(), x.flatten()])[x.numel() :].view(x.shape),
    "sliced": lambda x: torch.cat([x, x])[: len(x)] if x.dim() else x,
    "overlapping": lambda x: torch.cat([x.flatten()] * 2).as_strided(x.shape, (1,) * x.dim()) if x.numel() else x,
    "view": lambda x: x.view_as(x),
}
# From a tensor without a graph, and the layout wanted, to an input with that history.
HISTORIES: dict[str, Callable[[Tensor, Lay], Any]] = {
    "plain": lambda x, lay: lay(x),
    "leaf": lambda x, lay: lay(x).detach().requires_grad_(),
    "not a leaf": lambda x, lay: lay(x.requires_grad_() * 1),
    "view of a leaf": lambda x, lay: lay(x).detach().requires_grad_()[...],
    "view": lambda x, lay: lay(x.requires_grad_() * 1)[...],
    "no_grad view of a leaf": torch.no_grad()(lambda x, lay: lay(x).requires_grad_()[...]),
    "no_grad view": lambda x, lay: torch.no_grad()(operator.getitem)(lay(x.requires_grad_() * 1), ...),
    "inference view": lambda x, lay: torch.inference_mode()(operator.getitem)(lay(x.requires_grad_() * 1), ...),
    "unbound": lambda x, lay: (torch.stack([x, x]).requires_grad_() * 1).unbind()[0],
    "detached": lambda x, lay: lay(x.requires_grad_() * 1).detach(),
    "inference": torch.inference_mode()(lambda x, lay: lay(x.clone())),
    "Parameter": lambda x, lay: torch.nn.Parameter(lay(x)),
    "Buffer": lambda x, lay: torch.nn.Buffer(lay(x)),
    "subclass": lambda x, lay: lay(x).as_subclass(Subclass),
    "conjugated": lambda x, lay: lay(x).conj(),
    "negated": lambda x, lay: torch._neg_view(lay(-x)),
    "quantised": lambda x, lay: torch.quantize_per_tensor(x, 0.1, 10, torch.quint8),
    "meta": lambda x, lay: lay(x).to("meta"),
    "sparse COO": lambda x, lay: x.to_sparse(),
    "sparse CSR": lambda x, lay: x.to_sparse_csr(),
    "nested": lambda x, lay: torch.nested.nested_tensor([x, x]),
    "jagged": lambda x, lay: torch.nested.nested_tensor([x, x], layout=torch.jagged),
    "list": lambda x, lay: x.tolist(),
    "array": lambda x, lay: x.numpy(),
    "None": lambda x, lay: None,
}
NESTED = ("nested", "jagged")
NOT_STRIDED = ("sparse COO", "sparse CSR", *NESTED)
NOT_TENSORS = ("list", "array", "None")
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


class Subclass(Tensor):
    pass


@dataclass(frozen=True)
class Difference:
    """Where dropkit is meant to differ: why, a call that shows it, the calls it concerns, what is seen instead."""

    reason: str
    layer: int
    call: Call
    concerns: Callable[[Layer, Call, Seen], Any]
    instead: Callable[[Layer, Call, Seen], Seen]


# In this order: each starts from what those above it left. That the draw itself differs needs no entry: no drawn value
# is compared.
DIFFERENCES = (
    Difference(
        "AlphaDropout(inplace=True) and FeatureAlphaDropout(inplace=True) are in place; torch ignores it",
        4,
        Call(form="module", inplace="True"),
        lambda layer, call, seen: call.form == "module" and "Alpha" in layer.name and "'<' not" not in str(seen.error),
        lambda layer, call, seen: of_torch(layer, replace(call, form="function")),
    ),
    Difference(
        "an unbatched input is taken as it is; torch adds a batch dimension to it, which may fail, warn or reshape",
        1,
        Call(shape=(3, 4), dtype=torch.int64, inplace="True"),
        lambda layer, call, seen: is_unbatched(layer, call) and (seen.error or FLAGS[call.inplace]()),
        lambda layer, call, seen: without_batching(call, seen),
    ),
    Difference(
        "identity returns the very object that it got; torch returns a view of unbatched inputs, a copy of nested ones",
        1,
        Call(shape=(3, 4), training="False"),
        lambda layer, call, seen: is_identity(call, seen),
        lambda layer, call, seen: of_identity(call, seen),
    ),
    Difference(
        "a sparse input is refused at p = 1 too; torch returns uninitialised memory",
        0,
        Call(history="sparse COO", p="1"),
        lambda layer, call, seen: call.history == "sparse COO" and everything_drops(call, seen),
        lambda layer, call, seen: Seen(
            error=(NotImplementedError, "input must be dense, got a tensor of layout torch.sparse_coo"),
            warned=seen.warned,
            writes=0,
        ),
    ),
    Difference(
        "at p = 1 dense outputs are 0; torch multiplies by 0, which makes NaN of NaN and of infinity",
        0,
        Call(p="1"),
        lambda layer, call, seen: seen.values and seen.strides is not None and everything_drops(call, seen),
        lambda layer, call, seen: replace(seen, values=bytes(len(seen.values))),
    ),
    Difference(
        "at p = 1 a tensor that must not be written is refused for that; torch may refuse its dtype first",
        0,
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
        0,
        Call(history="inference", inplace="True"),
        lambda layer, call, seen: seen.error,
        lambda layer, call, seen: replace(seen, input_kept=True, writes=seen.writes and 0),
    ),
    Difference(
        "a call in place is one write for the version counter; torch counts the operations that it is made of",
        4,
        Call(inplace="True"),
        lambda layer, call, seen: seen.writes,
        lambda layer, call, seen: replace(seen, writes=1),
    ),
    Difference(
        "p = NaN is refused like any other p out of range; torch's modules take it, its functions raise RuntimeError",
        0,
        Call(p="nan"),
        lambda layer, call, seen: "nan" in call.p,
        lambda layer, call, seen: Seen(
            error=(ValueError, "dropout probability has to be between 0 and 1, but got nan"),
            input_kept=True,
            writes=seen.writes and 0,
        ),
    ),
)


def draw_call(random: Random) -> Call:
    """An ordinary call, with a few fields made odd: were all odd at once, the first error would hide the rest."""
    shape = tuple(random.choices([1, 2, 3], k=random.randrange(8)))
    call = Call(
        form=random.choice(["function", "module"]),
        shape=shape,
        dtype=random.choice(FLOATS),
        layout=random.choice(list(LAYOUTS)),
        history=random.choice(["plain", "not a leaf", "view"]),
        p=random.choice(["0.5", "0.5", "0.1", "1.0", "0.0"]),
        training=random.choice(["True", "True", "True", "False"]),
        inplace=random.choice(["True", "False"]),
    )
    odd = {
        "shape": [(*shape[1:], 0)],
        "dtype": INTEGERS + OTHERS,
        "history": list(HISTORIES),
        "mode": list(MODES),
        "p": list(PROBABILITIES),
        "training": list(FLAGS),
        "inplace": list(FLAGS),
    }
    names = random.choices(list(odd), [1, 3, 5, 1, 3, 1, 1], k=random.randrange(4))
    return replace(call, **{name: random.choice(odd[name]) for name in names})


# Drawn evenly, by a seed: Hypothesis left to itself prefers first entries and repeats itself.
CALLS = st.randoms(use_true_random=True).map(draw_call)


@FUZZ
@given(call=CALLS)
def test_a_call_shows_what_torchs_shows(layer, call):
    """Outcome, warnings, output, aliasing, graph, writes and draws are torch's, but for the listed differences."""
    assume(buildable(call) and not drops_nested(call))
    note(f"{call}")

    seen = of_dropkit(layer, call)

    assert seen == expected(layer, call)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.reason.split(";")[0])
def test_listed_differences_are_differences(difference):
    """Each listed call shows dropkit's behaviour, and would show another one of torch's."""
    layer = LAYERS[difference.layer]

    seen = of_dropkit(layer, difference.call)

    assert seen == expected(layer, difference.call)
    assert seen != of_torch(layer, difference.call)


@pytest.mark.parametrize("history", HISTORIES)
def test_every_history_can_be_built(history):
    """No entry of the table of histories is without effect because its inputs cannot be made."""
    assert buildable(Call(shape=(2, 3), history=history))


def expected(layer: Layer, call: Call) -> Seen:
    seen = of_torch(layer, call)
    for difference in DIFFERENCES:
        if difference.concerns(layer, call, seen):
            seen = difference.instead(layer, call, seen)
    return seen


def of_torch(layer: Layer, call: Call) -> Seen:
    return observe(call, layer.torch_function, layer.torch_module)


def of_dropkit(layer: Layer, call: Call) -> Seen:
    return observe(call, layer.function, layer.module)


def without_batching(call: Call, seen: Seen) -> Seen:
    """The call as it would be without the added dimension: elementwise dropout, in the words of channel dropout."""
    if call.shape == () and call.history not in NESTED:
        return replace(of_torch(LAYERS[2], call), warned=of_dropout(seen.warned))
    plain = of_torch(LAYERS[0], call)
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


def drops_nested(call: Call) -> bool:
    """Whether floats in a nested tensor may drop: torch refuses most such calls, so `test_nested.py` has the laws."""
    some_drop = call.training == "True" and takes_arguments(call) and ACCEPTED[call.p]() != 0
    return call.history in NESTED and call.dtype in FLOATS and some_drop


def as_float(call: Call) -> Call:
    return replace(call, dtype=torch.float32)


def takes_arguments(call: Call) -> bool:
    return call.p in ACCEPTED and call.training in ("True", "False")


def buildable(call: Call) -> bool:
    """Whether there is such a tensor: none is jagged without dimensions, quantised from integers..."""
    try:
        build(call)
    except (RuntimeError, TypeError, IndexError, ValueError):
        return False
    return True


def build(call: Call) -> Any:
    finite = call.dtype in INTEGERS or call.history == "quantised"
    numbers = torch.tensor([3.0, 0.0, 1.5] if finite else [math.nan, 1.5, -2.0, math.inf, 0.0, -math.inf])
    count = math.prod(call.shape)
    x = numbers.repeat(count // len(numbers) + 1)[:count].view(call.shape).to(call.dtype).clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some layouts are prototypes
        return HISTORIES[call.history](x, LAYOUTS[call.layout])


def observe(call: Call, function: Callable[..., Any], module: type[torch.nn.Module]) -> Seen:
    input = build(call)
    p, training, inplace = PROBABILITIES[call.p](), FLAGS[call.training](), FLAGS[call.inplace]()
    before, version, state = snapshot(input), counter(input), torch.get_rng_state()
    output, error = None, None
    with MODES[call.mode](), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if call.form == "module":
                layer = module(p, inplace)
                layer.training = training
                output = layer(input)
            else:
                output = function(input, p, training, inplace)
        except Exception as raised:
            error = raised
    decided = error is None and (not training or p in (0, 1) or not input.numel())
    return Seen(
        **({} if error else look(output, input)),
        error=error and (type(error), str(error)),
        warned=tuple((warning.category, str(warning.message)) for warning in caught),
        values=bits(output) if decided else None,
        input_kept=None if error is None and inplace else snapshot(input) == before,
        writes=None if version is None else counter(input) - version,
        drew=not torch.equal(torch.get_rng_state(), state),
    )


def look(output: Tensor, input: Any) -> dict[str, Any]:
    return {
        "type": type(output),
        "dtype": output.dtype,
        "shape": None if output.is_nested else tuple(output.shape),
        "strides": strides(output),
        "device": output.device.type,
        "is_input": output is input,
        "aliases_input": torch._C._is_alias_of(output, input),
        "graph": graph(output),
        "is_inference": output.is_inference(),
    }


def graph(output: Tensor) -> tuple[bool, bool] | str:
    try:
        return output.requires_grad, output.is_leaf
    except RuntimeError as error:  # of some views that were made without a graph and written
        return str(error)


def snapshot(input: Any) -> Any:
    if not isinstance(input, Tensor):
        return repr(input)
    return bits(input), None if input.is_nested else input.shape, strides(input)


def strides(x: Tensor) -> tuple[int, ...] | None:
    """Where they mean something: 0 stands for the stride of a dimension of size 1."""
    if x.layout is not torch.strided or x.is_nested:
        return None
    return tuple(step if size > 1 else 0 for step, size in zip(x.stride(), x.shape, strict=True))


def bits(x: Tensor) -> bytes | None:
    if x.is_meta:
        return None
    if x.is_nested:
        x = x._values if x.layout is torch.jagged else torch.cat([part.flatten() for part in x.unbind()])
    x = x.detach().as_subclass(Tensor) if type(x) is Subclass else x.detach()
    if x.is_quantized:
        x = x.int_repr()
    if x.layout is not torch.strided:
        x = x._values() if x.is_sparse else x.values()
    x = x.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return x.view(-1).view(torch.uint8).numpy().tobytes()


def counter(input: Any) -> int | None:
    return input._version if isinstance(input, Tensor) and not input.is_inference() else None


def _unwritable() -> dict[str, Callable[[tuple[int, ...]], Tensor]]:
    """Tensors that autograd may refuse to have written."""

    def without_grad(tensor: Tensor) -> Tensor:
        with torch.no_grad():
            return tensor.view(tensor.shape)

    def for_inference(shape: tuple[int, ...]) -> Tensor:
        with torch.inference_mode():
            return torch.ones(shape)

    return {
        "leaf": lambda shape: torch.ones(shape, requires_grad=True),
        "parameter": lambda shape: torch.nn.Parameter(torch.ones(shape)),
        "view of a leaf": lambda shape: torch.ones(shape, requires_grad=True).view(shape),
        "result": lambda shape: torch.ones(shape, requires_grad=True) * 1,
        "view of a result": lambda shape: (torch.ones(shape, requires_grad=True) * 1).view(shape),
        "saved": lambda shape: torch.ones(shape, requires_grad=True).sigmoid(),
        "detached": lambda shape: torch.ones(shape, requires_grad=True).detach(),
        "view without grad": lambda shape: without_grad(torch.ones(shape, requires_grad=True)),
        "one of several": lambda shape: torch.ones((2, *shape), requires_grad=True).unbind()[0],
        "of inference": for_inference,
        "expanded": lambda shape: torch.ones(1).expand(shape),
    }


UNWRITABLE = _unwritable()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", UNWRITABLE)
def test_what_may_be_written_in_place_is_as_in_torch(layer, kind, mode):
    """Taken or refused, in the same words, with a graph or without, at every rate, in training and not."""

    def outcome(function, p, training):
        x = UNWRITABLE[kind](layer.shape)
        try:
            with mode():
                y = function(x, p, training, True)
            seen = [y is x, y.requires_grad, y.is_leaf, y.stride(), x.shape]
            return [*seen, y.requires_grad and y.sum().backward()]
        except RuntimeError as error:
            return [str(error).partition(".")[0].partition(":")[0], x.shape]

    for p in (0.0, 0.5, 1.0):
        for training in (True, False):
            torchs, ours = (outcome(function, p, training) for function in (layer.torch_function, layer.function))
            assert ours == torchs, (p, training)
