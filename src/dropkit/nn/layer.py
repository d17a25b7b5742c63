"""What the layers have in common: the record that describes one, and the way a call takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor, fx
from torch.fx.experimental.symbolic_shapes import guard_or_false
from torch.overrides import (
    handle_torch_function,
    has_torch_function_unary,  # pyright: ignore[reportUnknownVariableType] (its stub has no types)
)

from dropkit import random
from dropkit.kernels import FLOATS
from dropkit.kernels.mask import Mask, mask_strides
from dropkit.kernels.params import DropoutParams, MakeParams, ScheduledParams
from dropkit.nn import nested, torchscript
from dropkit.nn.classes import AsTorchs
from dropkit.ops import autograd, custom_op
from dropkit.torch_private import FakeTensor, fake_mode, has_forward_hooks, tracing_state

Unit = tuple[int, ...]

# stacklevel of a warning in `Layer.check`, so that it points at the caller of the layer.
CALLER = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One member of the dropout family.

    Attributes:
        function: the functional form.
        module: the module, a subclass of `torch_module`.
        torch_function: what torch calls the functional form; it words our errors where the fault is the same.
        torch_module: what `convert` replaces by `module`.
        make_params: from `p` to what kept and dropped elements become.
        unit: from an input to the shape of its mask, shared dimensions 1; None for a mask element for each element.
        check: raises or warns about the rank of an input, also where nothing will be dropped.
        shape: of the smallest input that shows the layer at work.
        aten: name of the operator that `install` takes over for this layer, if it is this layer's to name.
    """

    function: Callable[..., Tensor]
    module: type[torch.nn.Module]
    torch_function: Callable[..., Tensor]
    torch_module: type[torch.nn.Module]
    make_params: MakeParams
    unit: Callable[[Tensor], Unit] | None
    check: Callable[[Tensor], None] | None
    shape: tuple[int, ...]
    aten: str | None = None

    @property
    def name(self) -> str:
        return self.module.__name__

    def __call__(
        self,
        input: Tensor,
        p: float | Tensor,
        training: bool,
        inplace: bool,
        generator: Generator | None,
        key: Tensor | int | None,
    ) -> Tensor:
        """The functional form, from its arguments to its result."""
        if has_torch_function_unary(input):
            return self._ask_subclass(input, p=p, training=training, inplace=inplace, generator=generator, key=key)
        scheduled = type(p) is not float and isinstance(p, Tensor) and not autograd.can_use_fast_path(p)
        if scheduled:
            check_schedule(p)
        else:
            check_probability(p)
        if self.check is not None:
            self.check(input)
        if type(training) is not bool or not isinstance(input, Tensor) or (type(p) is not float and not scheduled):
            read, training = self._as_torch_reads(input, 0.5 if scheduled else p, training, inplace)
            p = p if scheduled else read
        return self.drop(input, p, training, inplace, generator, key)

    def drop(
        self,
        input: Tensor,
        p: float | Tensor,
        training: bool,
        inplace: bool,
        generator: Generator | None = None,
        key: Tensor | int | None = None,
    ) -> Tensor:
        """The call below the checks of `torch.nn.functional`: what an operator of torch's own would do."""
        if key is not None:
            key = random.check_key(key, generator, input)
        # The exact type first, which is faster than `isinstance` alone.
        scheduled = type(p) is not float and isinstance(p, Tensor)
        if not training or (not scheduled and p == 0):
            return input
        ordinary = autograd.can_use_fast_path(input)
        if not ordinary and tracing_state() is not None:
            return torchscript.traced(self, input, p, inplace, generator, key)
        if not ordinary and autograd.exporting() and key is None and not scheduled:
            return self._exported(input, cast("float", p), inplace, generator)
        if not ordinary and type(input) is FakeTensor and fake_mode() is None:
            with input.fake_mode:  # where keys are no real tensors either
                return self.drop(input, p, training, inplace, generator, custom_op.faked(key, input))
        if input.numel() == 0 if ordinary else _is_empty(input):
            return input
        if input.dtype not in FLOATS or input.layout is not torch.strided or input.is_nested:
            unusual = nested.drop if input.dtype in FLOATS and input.is_nested else Layer._leave_to_torch
            return unusual(self, input, p, inplace, generator, key)
        if scheduled or not ordinary:
            return self._drop_by_operator(input, p, inplace, generator, key)
        # The strides come first: `unit` refuses inputs of the wrong rank, for which no key must be drawn.
        p = cast("float", p)
        strides = None if self.unit is None or p == 1 else mask_strides(self.unit(input))
        key = random.choose_key(key, generator, input, p)
        return (autograd.drop_ if inplace else autograd.drop)(
            input, Mask(key, _cached_params(self.make_params, p), strides)
        )

    def _drop_by_operator(
        self, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
    ) -> Tensor:
        """By the registered operators, which compilers, transforms and modes see."""
        custom_op.refuse_meta("p", p, input)
        strides = None
        if self.unit is not None and (isinstance(p, Tensor) or p != 1):
            strides = mask_strides(self.unit(input))
        key = random.choose_key(key, generator, input, p, by_operator=True)
        return (custom_op.drop_ if inplace else custom_op.drop)(input, Mask(key, self.params(p), strides))

    def params(self, p: float | Tensor) -> DropoutParams | ScheduledParams:
        """The numbers of the dropout at rate `p`; if that is a tensor, they are read when an operator runs."""
        return ScheduledParams(p, self.make_params.__name__) if isinstance(p, Tensor) else self.make_params(p)

    def _exported(self, input: Tensor, p: float, inplace: bool, generator: Generator | None) -> Tensor:
        """torch's operator, which every tool that reads exported programs knows; under `install` it runs our kernel."""
        if generator is not None:
            raise NotImplementedError(f"generator must be None under torch.export, got {generator}; pass key=")
        return self.by_torch(input, p, inplace)

    def by_torch(self, input: Tensor, p: float | Tensor, inplace: bool) -> Tensor:
        """torch's function, without its warning about the rank of the input: `check` has said so."""
        if autograd.is_dynamo_compiling():  # which cannot follow what is done to the filters
            return self.torch_function(input, p, True, inplace)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"dropout\dd: Received")
            return self.torch_function(input, p, True, inplace)

    def _ask_subclass(self, input: Tensor, **arguments: Any) -> Tensor:
        """Subclasses and modes see the call that they would see from torch."""
        given = {
            name: value for name, value in arguments.items() if not (name in ("generator", "key") and value is None)
        }
        return handle_torch_function(self.function, (input,), input, **given)

    def _as_torch_reads(self, input: Any, p: Any, training: Any, inplace: bool) -> tuple[float, bool]:
        """`p` and `training` as torch converts them, or its error for an argument of the wrong type."""
        if isinstance(input, Tensor):
            input = torch.empty((0,) * len(self.shape))
        self.torch_function(input, p, training, inplace)
        return float(p), bool(training)

    def _leave_to_torch(
        self, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
    ) -> Tensor:
        """Integers, complex numbers, sparse and quantised tensors: torch's answer, which is mostly an error."""
        kind = f"{input.layout} tensors of {input.dtype}"
        for name, given in (("generator", generator), ("key", key)):
            if given is not None:
                raise NotImplementedError(f"{name} must be None for {kind}, got {given}")
        plain = input.layout is torch.strided and not input.is_nested
        if p == 1 and plain and not input.is_quantized:
            return _zeroed(input, inplace)
        if p == 1 and input.is_sparse:
            # torch returns uninitialised memory.
            raise NotImplementedError(f"input must be dense, got a tensor of layout {input.layout}")
        # Plain inputs out of place: torch's in-place channel variants leave them reshaped when they fail.
        output = self.by_torch(input, p, inplace and not plain)
        return input.copy_(output) if inplace and plain else output


def _zeroed(input: Tensor, inplace: bool) -> Tensor:
    """Integers and complex numbers at p = 1."""
    if inplace and autograd.can_use_fast_path(input):
        autograd.refuse_in_place(input)
    zero = torch.zeros((), dtype=input.dtype, device=input.device)
    if not input.is_complex():
        return input.mul_(zero) if inplace else input.mul(zero)
    # torch multiplies here too, and NaN times 0 is NaN.
    output = torch.where(torch.ones_like(input, dtype=torch.bool), zero, input)
    return input.copy_(output) if inplace else output


@lru_cache(maxsize=1024)
def _cached_params(make_params: MakeParams, p: float) -> DropoutParams:
    return make_params(p)


def check_probability(p: Any) -> None:
    """Raises torch's error unless `p` is in [0, 1]; NaN is not.

    Raises:
        ValueError: `p` is out of range.
    """
    if p < 0.0 or p > 1.0 or p != p:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def checked_rate(p: Any) -> float | Tensor:
    """`p` as a number; as it is where a compiler or a transform holds its value back.

    Raises:
        ValueError: `p` is out of range.
        TypeError: `p` is a tensor that cannot be a rate.
    """
    if isinstance(p, Tensor) and not autograd.can_use_fast_path(p):
        check_schedule(p)
        return p
    check_probability(p)
    return float(p)


def check_schedule(p: Any) -> None:
    """Raises unless `p` can be read as a rate each time a compiled graph runs; its value is checked then.

    Raises:
        TypeError: `p` is not a floating 0-d tensor, or it requires grad.
    """
    if p.dim() != 0 or not p.is_floating_point() or p.requires_grad:
        raise TypeError(
            f"p must be a number or a 0-d floating tensor that does not require grad, got {p.dtype} of "
            f"{tuple(p.shape)}, requires_grad={p.requires_grad}"
        )


def warn_unless_channels(input: Tensor, name: str, spatial: int) -> None:
    """torch's warning where `input` has neither `spatial` + 1 nor `spatial` + 2 dimensions."""
    if input.dim() in (spatial + 1, spatial + 2):
        return
    warnings.warn(
        f"{name}: Received a {input.dim()}-D input to {name}, which is deprecated "
        "and will result in an error in a future release. To retain the behavior "
        "and silence this warning, please use dropout instead. Note that "
        f"{name} exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, "
        f"a channel dimension, and an optional batch dimension (i.e. {spatial + 1}D or {spatial + 2}D inputs).",
        stacklevel=CALLER + 1,
    )


def per_channel(input: Tensor) -> Unit:
    """The mask has dimensions 0 and 1: one mask element for each sample and channel."""
    if input.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return tuple(input.shape[:2]) + (1,) * (input.dim() - 2)


def per_first(input: Tensor) -> Unit:
    """The mask has dimension 0: one mask element for each channel of an unbatched input."""
    if input.dim() < 1:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return (input.shape[0],) + (1,) * (input.dim() - 1)


def _is_empty(input: Tensor) -> bool:
    # Before torch 2.13 an operator that a compiler runs is not told that it is compiling; the size tells.
    if not torch.compiler.is_compiling() and type(input.numel()) is int:
        return input.numel() == 0
    # A size that is known when the graph runs, and not before, is taken for one that is not 0.
    return guard_or_false(input.numel() == 0)


class Dropping(torch.nn.Module, metaclass=AsTorchs):
    """What dropkit's modules add to torch's: a checked `p`, and `generator=` and `key=` in `forward`."""

    # torch's own classes set these.
    p: float
    inplace: bool
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p, inplace)  # pyright: ignore[reportCallIssue] (the next class is one of torch's)
        check_probability(p)  # torch's class takes NaN

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form of the same name."""
        if isinstance(input, fx.Proxy) and not has_forward_hooks(self):
            return self._stay_a_module(input, generator=generator, key=key)
        return type(self).function(input, self.p, self.training, self.inplace, generator=generator, key=key)

    def _stay_a_module(self, input: Any, **arguments: Any) -> Any:
        """In a graph of torch.fx, follow `train()` and `eval()` there: fx keeps modules whole that lie in torch.nn."""
        given = {name: value for name, value in arguments.items() if value is not None}
        return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input,), given)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """What `torch.jit.script` takes in the place of this module."""
        return torchscript.module(self) if type(self).forward is Dropping.forward else self
