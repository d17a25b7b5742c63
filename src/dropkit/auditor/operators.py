"""Describe torch's operators as an audit needs it: layer names, written arguments, which ones are random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dropkit.containers import tensors
from dropkit.torch_private import OpOverload, operator_schema, storage_identity

# Operator -> torch.nn's name of the same operation; other operators keep their own name.
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
# Dimension of the features in the output, counted from the end or from the front.
_FEATURES = {
    **dict.fromkeys(("Linear", "LayerNorm", "RMSNorm", "Embedding", "LSTM"), -1),
    **dict.fromkeys(("Conv", "BatchNorm", "GroupNorm"), 1),
}
# Elementwise operations and normalizations: they do not change which layer produced the features.
_ELEMENTWISE = frozenset(
    {"ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "ELU", "SELU", "LeakyReLU", "Softplus", "Mish", "Hardtanh", "ReLU6",
     "Hardswish", "Hardsigmoid", "PReLU", "RReLU", "LogSigmoid", "Softshrink", "Softmax", "LogSoftmax", "BatchNorm",
     "GroupNorm", "LayerNorm", "RMSNorm", "add", "sub", "mul", "div"}
)  # fmt: skip
# The same values in other memory.
_COPIES = frozenset({"clone", "contiguous", "_to_copy", "copy", "lift_fresh", "lift_fresh_copy", "constant_pad_nd"})
_THRESHOLDS = frozenset(
    {"lt", "le", "gt", "ge", "eq", "ne", "floor", "ceil", "round", "bernoulli", "logical_not", "trunc"}
)
_POOLS = ("pool", "convolution")
# Operators that apply a mask to data.
_APPLY = frozenset({"mul", "where", "masked_fill", "index_put", "div"})
# Operators whose random numbers masks are computed from.
MASK_SOURCES = frozenset(
    {"bernoulli", "uniform", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "draw_v1"}
)
# torch tags these as random, but they choose a kernel or a layout, or are backward passes that reuse a mask.
_NOT_RANDOM = frozenset(
    {"_fused_sdp_choice", "_nested_tensor_softmax_with_shape", "_cudnn_init_dropout_state",
     "_flash_attention_forward_no_dropout_inplace", "_cudnn_attention_backward",
     "_scaled_dot_product_cudnn_attention_backward", "_scaled_dot_product_efficient_attention_backward"}
)  # fmt: skip
_SELU_SCALE = 1.0507


@dataclass(frozen=True, slots=True)
class Argument:
    """Position, name and default of an operator's argument."""

    position: int
    name: str
    default: Any

    def value(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return its value in a call."""
        return args[self.position] if self.position < len(args) else kwargs.get(self.name, self.default)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator overload, as far as an audit needs to know it.

    Attributes:
        name: without namespace and without the trailing underscore of in-place operators.
        layer: torch.nn's name of the operation if it has one, else `name`.
        is_random: whether it draws random numbers.
        is_copy: whether it returns the same values in other memory.
        is_threshold: whether it maps many values to few.
        is_pooling: whether one element of the input reaches several of the output.
        reads_shape_only: whether it uses the shape and dtype of its input and not the values.
        can_apply_mask: whether it is a way to apply a mask.
        written: positions and names of the arguments that it changes.
        p: the argument for the dropout rate; None if there is none.
        training: the argument for the training flag; None if there is none.
        num_layers: the argument for the number of layers between which it drops; None if there is none.
    """

    name: str
    layer: str
    is_random: bool
    is_copy: bool
    is_threshold: bool
    is_pooling: bool
    reads_shape_only: bool
    can_apply_mask: bool
    written: tuple[tuple[int, str], ...]
    p: Argument | None
    training: Argument | None
    num_layers: Argument | None

    @property
    def is_elementwise(self) -> bool:
        return self.layer in _ELEMENTWISE

    def label(self, args: Sequence[Any], output: Any) -> str:
        """Return the layer's name, by arguments where torch computes several layers with one operator."""
        if self.layer == "ELU" and len(args) > 2 and abs(float(args[2]) - _SELU_SCALE) < 0.01:
            return "SELU"
        if self.layer == "Hardtanh" and tuple(args[1:3]) == (0.0, 6.0):
            return "ReLU6"
        if self.layer in ("Conv", "BatchNorm") and isinstance(output, Tensor):
            return f"{self.layer}{min(max(output.dim() - 2, 1), 3)}d"
        return self.layer

    def feature_stride(self, output: Tensor) -> int | None:
        """Return the stride of the feature dimension that this layer creates; None if it creates none."""
        dim = _FEATURES.get(self.layer)
        if dim is None or output.is_nested or output.dim() < 2:
            return None
        return output.stride(dim)

    def rate(self, args: Sequence[Any], kwargs: dict[str, Any]) -> float:
        """Return the dropout rate of a call of a fused operator; 0 for every other operator."""
        value = self.p.value(args, kwargs) if self.p is not None else 0.0
        return float(value) if isinstance(value, (int, float)) and not self._is_off(args, kwargs) else 0.0

    def draws(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a call draws random numbers: not at rate 0, nor in evaluation mode if there is a flag."""
        if self.p is not None:
            return self.rate(args, kwargs) > 0
        return self.is_random and not self._is_off(args, kwargs)

    def _is_off(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a call is in evaluation mode, or has one layer and thus nothing between layers."""
        evaluates = self.training is not None and self.training.value(args, kwargs) is False
        return evaluates or (self.num_layers is not None and self.num_layers.value(args, kwargs) == 1)


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """A finished call of an operator: tensors in and out, its number, dropout rate, and whether it was random.

    The number is that among the operators of the training step; None in evaluation mode.
    """

    overload: Any
    operator: Operator
    args: Sequence[Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    number: int | None
    rate: float
    is_random: bool

    @property
    def factor(self) -> float | None:
        """The number that a tensor is multiplied by; None if this is no such operation."""
        numbers = [arg for arg in self.args if not isinstance(arg, Tensor) or arg.dim() == 0]
        if self.operator.name == "neg":
            return -1.0
        if self.operator.name not in ("mul", "div") or len(numbers) != 1 or len(self.args) != 2:
            return None
        number = numbers[0].item() if isinstance(numbers[0], Tensor) else numbers[0]
        if not isinstance(number, (int, float)) or (self.operator.name == "div" and not number):
            return None
        return float(number) if self.operator.name == "mul" else 1 / number

    @staticmethod
    def of(
        overload: Any, operator: Operator, args: Sequence[Any], kwargs: dict[str, Any], output: Any, number: int | None
    ) -> OperatorCall:
        inputs = list(tensors([*args, *kwargs.values()]))
        rate, is_random = operator.rate(args, kwargs), operator.draws(args, kwargs)
        return OperatorCall(overload, operator, args, inputs, list(tensors(output)), number, rate, is_random)


@lru_cache(maxsize=4096)
def describe(overload: Any) -> Operator:
    """Return the properties of an operator overload."""
    schema = operator_schema(overload)
    base = str(schema.name).rpartition("::")[2]
    name: str = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    arguments: list[Any] = schema.arguments
    written = tuple(
        (position, argument.name)
        for position, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    rates = ("p",) if name == "native_dropout" else ("dropout_p", "dropout")

    def argument(*names: str) -> Argument | None:
        matches = ((i, argument) for i, argument in enumerate(arguments) if argument.name in names)
        return next((Argument(i, match.name, match.default_value) for i, match in matches), None)

    return Operator(
        name=name,
        layer=_LAYERS.get(name, name),
        is_random=torch.Tag.nondeterministic_seeded in overload.tags and name not in _NOT_RANDOM,
        is_copy=name in _COPIES,
        is_threshold=name in _THRESHOLDS,
        is_pooling=any(word in name for word in _POOLS),
        reads_shape_only=name.endswith("_like") or name.startswith("new_"),
        can_apply_mask=name in _APPLY,
        written=written,
        p=argument(*rates) if name not in _NOT_RANDOM else None,
        training=argument("train", "training"),
        num_layers=argument("num_layers"),
    )


def is_overload(func: Any) -> bool:
    """Whether a dispatch mode received an operator overload and not a higher-order operator such as `cond`."""
    return isinstance(func, OpOverload)


def memory_id(tensor: Tensor) -> int | None:
    """Return the identity of a tensor's memory, which its views share; None for subclasses without memory."""
    try:
        return storage_identity(tensor.untyped_storage())
    except (RuntimeError, NotImplementedError):
        return None
