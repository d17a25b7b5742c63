"""Dropout in inductor's own operations, which fuse with their neighbours into one kernel: on GPUs.

Where mask indices are consecutive along memory, the expressions of a thread's four elements for their Philox block are
equal, and Triton's compiler keeps one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch

from dropkit.kernels import FLOATS
from dropkit.kernels.mask import row_major
from dropkit.kernels.numbers import numbers
from dropkit.kernels.params import NoiseParams, ScheduledParams, is_valid
from dropkit.ops.kernel_number import KernelNumber
from dropkit.torch_private import Inductor

# The types of devices whose generated code holds these operations. On a CPU, dropkit's kernel is faster.
DEVICES = {"cuda"}

Place: TypeAlias = Sequence[Any]  # the coordinates of an element
_Words: TypeAlias = tuple[KernelNumber, KernelNumber, KernelNumber, KernelNumber]


def drop(kind: Any, parts: Inductor, input: Any, key: Any, *arguments: Any) -> Any:
    """A call of an operator as a pointwise operation; None where the operator itself must be called.

    Args:
        kind: class of the operator's parameters. A rate in memory is read where it is used.
        input, key, arguments: of the operator.
    """
    *values, strides, offset = arguments
    params: Any = kind(*values)
    call, is_scheduled = _Call(parts, input, key, strides, offset), kind is ScheduledParams
    form: Any = params.form if is_scheduled else params
    if not call.can_fuse or (is_scheduled and params.p.get_device() != input.get_device()):
        return None

    def read() -> tuple[Any, KernelNumber | None]:
        """The parameters, and whether the rate in memory is valid; if not, they are those of rate 0."""
        if not is_scheduled:
            return params, None
        p = call.number(params.p.make_loader()(()), params.p.get_dtype()).to(torch.float64)
        valid = cast("Any", is_valid)(p, params.function)
        return params.at(_where(valid, p, 0.0)), valid

    def is_kept(word: KernelNumber) -> KernelNumber:
        return word >= read()[0].threshold

    def number_of(word: KernelNumber) -> KernelNumber:
        return cast("Any", numbers)(word, form.distribution, call.arithmetic)

    is_noise = isinstance(form, NoiseParams)
    drawn = call.by_mask_element(*((number_of, call.arithmetic) if is_noise else (is_kept, torch.bool)))

    def changed(x: KernelNumber, place: Place) -> KernelNumber:
        n, (at_rate, valid) = drawn(place), read()
        if valid is not None:  # a kernel cannot raise: everything becomes NaN
            x = _where(valid, x, math.nan)
        if is_noise:
            return x * (n * at_rate.factor + 1) + n * at_rate.term
        y = x * at_rate.scale
        return _where(n, y + at_rate.shift if at_rate.shift else y, at_rate.fill)

    return call.output(changed)


@dataclass(frozen=True)
class _Call:
    """A call of an operator in the graph that is compiled."""

    parts: Inductor
    input: Any
    key: Any
    strides: Any
    offset: Any

    @property
    def can_fuse(self) -> bool:
        """Whether the operator takes the input, the key is where the kernel runs, and the first mask index is known."""
        is_here = self.key.get_device() == self.input.get_device()
        return is_here and self.input.get_dtype() in FLOATS and isinstance(self.offset, int)

    @property
    def arithmetic(self) -> torch.dtype:
        """The dtype of all operations on elements."""
        return torch.float64 if self.input.get_dtype() == torch.float64 else torch.float32

    def output(self, changed: Callable[[KernelNumber, Place], KernelNumber]) -> Any:
        """A tensor like the input, each element a function of the element and its coordinates.

        Both are rounded to the dtype as in eager mode; inductor keeps 16-bit numbers in float32 between operations.
        """
        dtype, load = self.input.get_dtype(), self.input.make_loader()

        def element(place: Place) -> Any:
            x = self.number(load(place), dtype).to(dtype).to(self.arithmetic)
            return changed(x, place).to(dtype).to(self.arithmetic).value

        return self._tensor(dtype, element, self.input.get_size())

    def by_mask_element(
        self, function: Callable[[KernelNumber], KernelNumber], dtype: torch.dtype
    ) -> Callable[[Place], KernelNumber]:
        """A function of the random word of each element, int64 in [0, 2**32), with results of `dtype`."""
        is_pair = self.key.get_dtype() == torch.uint64
        batch, load = len(self.key.get_size()) - is_pair, self.key.make_loader()

        def at(place: Place) -> KernelNumber:
            places = [(*place[:batch], half) for half in range(2)] if is_pair else [place[:batch]]
            return function(_word(self._index(place), *(self.number(load(at), self.key.get_dtype()) for at in places)))

        size, strides = self.input.get_size(), self.strides or ()
        shared = [
            stride == 0 and dim >= batch and number != 1
            for dim, (number, stride) in enumerate(zip(size, strides, strict=False))
        ]
        if not any(shared):
            return at
        # Once for all elements that share a mask element; in a kernel with them, each would compute it.
        sizes = [1 if is_shared else number for number, is_shared in zip(size, shared, strict=True)]
        buffer = self._tensor(dtype, lambda place: at(place).value, sizes)
        buffer.realize()
        load_shared = buffer.make_loader()
        return lambda place: self.number(
            load_shared([0 if is_shared else i for i, is_shared in zip(place, shared, strict=True)]), dtype
        )

    def _index(self, place: Place) -> KernelNumber:
        """The mask index of an element: int32 where all of them are known to fit, else int64."""
        ops, size = self.parts.ops, self.input.get_size()
        strides = row_major(size) if self.strides is None else self.strides
        last = self.offset + sum((number - 1) * stride for number, stride in zip(size, strides, strict=True))
        steps = [i * stride for i, stride in zip(place, strides, strict=True)]
        if self.parts.V.graph.sizevars.statically_known_lt(last, 2**31):
            return self.number(ops.index_expr(sum(steps, self.offset), torch.int32), torch.int32)
        # Inductor may compute an expression with 32 bits if the sizes of all tensors fit.
        if self.strides is None:
            index = self._expression(sum(steps))
        else:
            index = self._expression(0)
            for i, stride in zip(place, strides, strict=True):
                index = index + self._expression(i) * self._expression(stride)
        return index + self.offset

    def _expression(self, expression: Any) -> KernelNumber:
        """An expression of coordinates and sizes as int64."""
        if isinstance(expression, int) or expression.is_Integer:
            return self.number(self.parts.ops.constant(int(expression), torch.int64), torch.int64)
        # Inductor would compute a sum of expressions as one expression, but does not see through bits.
        return self.number(self.parts.ops.index_expr(expression, torch.int64), torch.int64) | 0

    def number(self, value: Any, dtype: torch.dtype) -> KernelNumber:
        return KernelNumber(self.parts.ops, value, dtype, self.input.get_device().type)

    def _tensor(self, dtype: torch.dtype, element: Callable[[Place], Any], size: Sequence[Any]) -> Any:
        return self.parts.Pointwise.create(
            device=self.input.get_device(), dtype=dtype, inner_fn=element, ranges=list(size)
        )


def _word(index: KernelNumber, seed: KernelNumber, first: KernelNumber | None = None) -> KernelNumber:
    """The random word of a mask index, int64, under a key or the two numbers of a pair."""
    block, lane = index >> 2, index & 3
    if first is None and index.dtype == torch.int32:
        halves = block.to(torch.uint32), block.constant(0).to(torch.uint32)
    else:
        block = block.to(torch.int64)
        halves = _halves(block if first is None else block + first.to(torch.int64))
    # Signed, since inductor selects no unsigned numbers in C++.
    w0, w1, w2, w3 = (word.to(torch.int32) for word in _philox(halves, _halves(seed)))
    word = _where(lane < 2, _where(lane < 1, w0, w1), _where(lane < 3, w2, w3))
    return word.to(torch.uint32).to(torch.int64)


def _philox(block: Sequence[KernelNumber], key: Sequence[KernelNumber]) -> _Words:
    """The four words of a block, of which there are the low and the high half, as of the key; all of them uint32."""
    (c0, c1), (low, high) = block, key
    c2 = c3 = c0.constant(0)
    # Each use of a Python number would be one more operation to compile.
    wide = c0.to(torch.uint64)
    m0, m1, half = wide.constant(0xD2511F53), wide.constant(0xCD9E8D57), wide.constant(32)
    w0, w1 = c0.constant(0x9E3779B9), c0.constant(0xBB67AE85)
    for _ in range(10):
        p0, p1 = c0.to(torch.uint64) * m0, c2.to(torch.uint64) * m1
        c0, c1 = (p1 >> half).to(torch.uint32) ^ c1 ^ low, p1.to(torch.uint32)
        c2, c3 = (p0 >> half).to(torch.uint32) ^ c3 ^ high, p0.to(torch.uint32)
        low, high = low + w0, high + w1
    return c0, c1, c2, c3


def _halves(number: KernelNumber) -> tuple[KernelNumber, KernelNumber]:
    """The low and the high word of 64 bits."""
    return number.to(torch.uint32), (number >> 32).to(torch.uint32)


def _where(condition: KernelNumber, x: KernelNumber, y: KernelNumber | float) -> KernelNumber:
    return cast("Any", torch).where(condition, x, y)
