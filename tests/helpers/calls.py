"""Calls of a dropout function or module, described by names, and all that a caller can observe of a call.

The same description is run with torch's functions and with dropkit's, and the observations are compared.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """A call, by names of entries of the tables below, so that a failing one can be copied from the report."""

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
    graph: tuple[bool, bool] | str | None = None  # requires_grad and is_leaf, or the error of reading them
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
# From a tensor to one of the same shape, in memory of its own or in a part of the tensor's.
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
SPARSE = ("sparse COO", "sparse CSR")
NOT_STRIDED = (*SPARSE, *NESTED)
NOT_TENSORS = ("list", "array", "None")
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


class Subclass(Tensor):
    pass


def draw_call(random: Random) -> Call:
    """An ordinary call with a few unusual fields: if all were, the first error would hide the others."""
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


def takes_arguments(call: Call) -> bool:
    return call.p in ACCEPTED and call.training in ("True", "False")


def buildable(call: Call) -> bool:
    """Whether such an input exists: no tensor is jagged without dimensions, or quantised from integers."""
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
