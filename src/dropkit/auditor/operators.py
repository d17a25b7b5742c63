"""What torch's operators are to an audit: their names among layers, what they write, which of them draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.torch_private import OpOverload, operator_schema, storage_identity

# Operators by what torch.nn calls the same; the others keep their own name.
_LAYERS = {
    "addmm": "Linear", "mm": "Linear", "linear": "Linear", "bmm": "matmul", "baddbmm": "matmul",
    "convolution": "Conv", "_convolution": "Conv", "mkldnn_convolution": "Conv", "cudnn_convolution": "Conv",
    "relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "ELU",
    "leaky_relu": "LeakyReLU", "softplus": "Softplus", "mish": "Mish", "hardtanh": "Hardtanh", "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid", "_prelu_kernel": "PReLU", "rrelu_with_noise": "RReLU", "log_sigmoid": "LogSigmoid",
    "log_sigmoid_forward": "LogSigmoid", "softshrink": "Softshrink",
    "native_layer_norm": "LayerNorm", "native_group_norm": "GroupNorm", "_fused_rms_norm": "RMSNorm",
    "native_batch_norm": "BatchNorm", "_native_batch_norm_legit": "BatchNorm", "cudnn_batch_norm": "BatchNorm",
    "_batch_norm_with_update": "BatchNorm", "_batch_norm_no_update": "BatchNorm",
    "_softmax": "Softmax", "_safe_softmax": "Softmax", "_log_softmax": "LogSoftmax", "embedding": "Embedding",
    "_embedding_bag": "EmbeddingBag", "mkldnn_rnn_layer": "LSTM",
}  # fmt: skip
# Their feature dimension, from the end or from the front.
_FEATURES = {
    **dict.fromkeys(("Linear", "LayerNorm", "RMSNorm", "Embedding", "LSTM"), -1),
    **dict.fromkeys(("Conv", "BatchNorm", "GroupNorm"), 1),
}
# Same shape, one element from one: what stands before them still made what comes out.
_ELEMENTWISE = frozenset(
    {"ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "ELU", "SELU", "LeakyReLU", "Softplus", "Mish", "Hardtanh", "ReLU6",
     "Hardswish", "Hardsigmoid", "PReLU", "RReLU", "LogSigmoid", "Softshrink", "Softmax", "LogSoftmax", "BatchNorm",
     "GroupNorm", "LayerNorm", "RMSNorm", "add", "sub", "mul", "div"}
)  # fmt: skip
# The same values in other memory.
_COPIES = frozenset({"clone", "contiguous", "_to_copy", "copy", "lift_fresh", "lift_fresh_copy", "constant_pad_nd"})
_COMPARE = frozenset(
    {"lt", "le", "gt", "ge", "eq", "ne", "floor", "ceil", "round", "bernoulli", "logical_not", "trunc"}
)
_POOLS = ("pool", "convolution")
# Where a mask meets what it masks.
_APPLY = frozenset({"mul", "where", "masked_fill", "index_put", "div"})
# Random numbers that masks are made of.
MASKS = frozenset(
    {"bernoulli", "uniform", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "draw_v1"}
)
# Marked by torch as if they drew: a choice of kernel, a layout, and backward passes, which use what was drawn before.
_DRAW_NOTHING = frozenset(
    {"_fused_sdp_choice", "_nested_tensor_softmax_with_shape", "_cudnn_init_dropout_state",
     "_flash_attention_forward_no_dropout_inplace", "_cudnn_attention_backward",
     "_scaled_dot_product_cudnn_attention_backward", "_scaled_dot_product_efficient_attention_backward"}
)  # fmt: skip
_SELU_SCALE = 1.0507


@dataclass(frozen=True, slots=True)
class Argument:
    """Where an argument of an operator stands, and what it is if it is left out."""

    place: int
    name: str
    default: Any

    def of(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Its value in a call."""
        return args[self.place] if self.place < len(args) else kwargs.get(self.name, self.default)


@dataclass(frozen=True, slots=True)
class Operator:
    """One overload, as far as an audit cares.

    Attributes:
        name: without namespace and the underscore of what works in place.
        layer: what torch.nn calls the same, or the name.
        draws: whether it uses random numbers.
        copies: whether it gives the same values in other memory.
        compares: whether it makes few values of many, as a threshold does.
        pools: whether one element of the input reaches several of the output.
        fresh: whether it asks for shape and dtype only.
        applies: whether it is a way to apply a mask.
        written: place and name of the arguments that it changes.
        rate: its dropout rate; None if it has none.
        flag: what says whether it trains; None if it has none.
        layers: its number of layers, between which it drops; None if it has none.
    """

    name: str
    layer: str
    draws: bool
    copies: bool
    compares: bool
    pools: bool
    fresh: bool
    applies: bool
    written: tuple[tuple[int, str], ...]
    rate: Argument | None
    flag: Argument | None
    layers: Argument | None

    @property
    def elementwise(self) -> bool:
        return self.layer in _ELEMENTWISE

    def label(self, args: Sequence[Any], output: Any) -> str:
        """The layer, told apart by its arguments where torch has several under one operator."""
        if self.layer == "ELU" and len(args) > 2 and abs(float(args[2]) - _SELU_SCALE) < 0.01:
            return "SELU"
        if self.layer == "Hardtanh" and tuple(args[1:3]) == (0.0, 6.0):
            return "ReLU6"
        if self.layer in ("Conv", "BatchNorm") and isinstance(output, Tensor):
            return f"{self.layer}{min(max(output.dim() - 2, 1), 3)}d"
        return self.layer

    def feature_stride(self, output: Tensor) -> int | None:
        """How far apart in memory neighbouring features lie in what this layer makes; None if it has none."""
        dim = _FEATURES.get(self.layer)
        if dim is None or output.is_nested or output.dim() < 2:
            return None
        return output.stride(dim)

    def drops_at(self, args: Sequence[Any], kwargs: dict[str, Any]) -> float:
        """The rate of a fused operator that takes one; 0 of any other."""
        value = self.rate.of(args, kwargs) if self.rate is not None else 0.0
        return float(value) if isinstance(value, (int, float)) and not self._is_idle(args, kwargs) else 0.0

    def draws_with(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether it draws, given these: not if it drops at a rate of 0, or only while training and is not."""
        if self.rate is not None:
            return self.drops_at(args, kwargs) > 0
        return self.draws and not self._is_idle(args, kwargs)

    def _is_idle(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether it evaluates, or has one layer and so nothing between layers."""
        evaluates = self.flag is not None and self.flag.of(args, kwargs) is False
        return evaluates or (self.layers is not None and self.layers.of(args, kwargs) == 1)


@dataclass(frozen=True, slots=True)
class Ran:
    """An operator that has run: with what, what came of it, its time in seconds, its rate, and whether it drew."""

    overload: Any
    operator: Operator
    args: Sequence[Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    seconds: float
    rate: float
    draws: bool

    @staticmethod
    def of(
        overload: Any, operator: Operator, args: Sequence[Any], kwargs: dict[str, Any], output: Any, seconds: float
    ) -> Ran:
        inputs = list(tensors([*args, *kwargs.values()]))
        rate, draws = operator.drops_at(args, kwargs), operator.draws_with(args, kwargs)
        return Ran(overload, operator, args, inputs, list(tensors(output)), seconds, rate, draws)


@lru_cache(maxsize=4096)
def describe(overload: Any) -> Operator:
    """What there is to know of an operator before it is called."""
    schema = operator_schema(overload)
    base = str(schema.name).rpartition("::")[2]
    name: str = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    arguments: list[Any] = schema.arguments
    written = tuple(
        (index, one.name)
        for index, one in enumerate(arguments)
        if one.alias_info is not None and one.alias_info.is_write
    )
    rates = ("p",) if name == "native_dropout" else ("dropout_p", "dropout")

    def find(*names: str) -> Argument | None:
        places = ((i, one) for i, one in enumerate(arguments) if one.name in names)
        return next((Argument(i, one.name, one.default_value) for i, one in places), None)

    return Operator(
        name=name,
        layer=_LAYERS.get(name, name),
        draws=torch.Tag.nondeterministic_seeded in overload.tags and name not in _DRAW_NOTHING,
        copies=name in _COPIES,
        compares=name in _COMPARE,
        pools=any(word in name for word in _POOLS),
        fresh=name.endswith("_like") or name.startswith("new_"),
        applies=name in _APPLY,
        written=written,
        rate=find(*rates) if name not in _DRAW_NOTHING else None,
        flag=find("train", "training"),
        layers=find("num_layers"),
    )


def is_overload(func: Any) -> bool:
    """Whether a mode was given an operator; control flow and its kind are none."""
    return isinstance(func, OpOverload)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments, in lists of arguments too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in cast("list[Any]", value):
            yield from tensors(one)


def storage(tensor: Tensor) -> int | None:
    """What identifies the memory of a tensor and of all its views; None where a subclass has no memory of its own."""
    try:
        return storage_identity(tensor.untyped_storage())
    except (RuntimeError, NotImplementedError):
        return None
