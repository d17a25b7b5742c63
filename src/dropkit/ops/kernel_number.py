"""A number in a kernel that inductor writes: Python's operators on it write operations into the kernel.

Functions of `kernels/numbers.py` and `kernels/params.py` that compute on tensors compute on these numbers, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch


def _binary(operation: str, result: torch.dtype | None = None) -> Callable[[KernelNumber, Any], KernelNumber]:
    def operate(self: KernelNumber, other: KernelNumber | float) -> KernelNumber:
        return self._made(getattr(self.ops, operation)(self.value, self.constant(other).value), result)

    return operate


_Operator: TypeAlias = Callable[["KernelNumber", Any], "KernelNumber"]


class KernelNumber:
    """A number of a dtype, to which each operation rounds. The other operand is converted to this dtype before.

    Args:
        ops: inductor's operations.
        value: what they return.
        dtype: of the value.
        device: the type of the device that the kernel is for.
    """

    def __init__(self, ops: Any, value: Any, dtype: torch.dtype, device: str) -> None:
        self.ops = ops
        self.value = value
        self.dtype = dtype
        self.device = device

    __add__: ClassVar[_Operator] = _binary("add")
    __sub__: ClassVar[_Operator] = _binary("sub")
    __truediv__: ClassVar[_Operator] = _binary("truediv")
    __and__: ClassVar[_Operator] = _binary("bitwise_and")
    __or__: ClassVar[_Operator] = _binary("bitwise_or")
    __xor__: ClassVar[_Operator] = _binary("bitwise_xor")
    __lshift__: ClassVar[_Operator] = _binary("bitwise_left_shift")
    __rshift__: ClassVar[_Operator] = _binary("bitwise_right_shift")
    __ge__: ClassVar[_Operator] = _binary("ge", torch.bool)
    __le__: ClassVar[_Operator] = _binary("le", torch.bool)
    __lt__: ClassVar[_Operator] = _binary("lt", torch.bool)

    def __radd__(self, other: float) -> KernelNumber:
        return self + other

    def __rmul__(self, other: float) -> KernelNumber:
        return self * other

    def __rsub__(self, other: float) -> KernelNumber:
        return self.constant(other) - self

    def __rtruediv__(self, other: float) -> KernelNumber:
        return self.constant(other) / self

    def __invert__(self) -> KernelNumber:
        return self._made(self.ops.bitwise_not(self.value))

    def __neg__(self) -> KernelNumber:
        return self._made(self.ops.neg(self.value))

    def __mul__(self, other: KernelNumber | float) -> KernelNumber:
        x, y = self.value, self.constant(other).value
        if self.device == "cuda" and self.dtype.is_floating_point:
            return self._made(self._rounded_product(x, y))
        return self._made(self.ops.mul(x, y))

    def _rounded_product(self, x: Any, y: Any) -> Any:
        """A product that no later addition is fused with. `ops.mul_rn` would flush subnormal numbers to zero."""
        bits, register = (64, "d") if self.dtype == torch.float64 else (32, "f")
        asm = f"mul.rn.f{bits} $0, $1, $2;"
        if torch.version.hip:
            asm, register = f"v_mul_f{bits} $0, $1, $2", "v"
        constraints = f"={register},{register},{register}"
        return self.ops.inline_asm_elementwise(x, y, asm=asm, constraints=constraints, dtype=self.dtype)

    def constant(self, number: KernelNumber | float) -> KernelNumber:
        """Another number in this dtype."""
        if isinstance(number, KernelNumber):
            return number if number.dtype == self.dtype else number.to(self.dtype)
        return self._made(self.ops.constant(number, self.dtype))

    def to(self, dtype: torch.dtype) -> KernelNumber:
        """The number in another dtype, even one of fewer bits than inductor computes with."""
        return self._made(self.ops.to_dtype(self.value, dtype, use_compute_types=False), dtype)

    def float(self) -> KernelNumber:
        """The number in float32."""
        return self.to(torch.float32)

    def view(self, dtype: torch.dtype) -> KernelNumber:
        """The number of another dtype that has the same bits."""
        return self._made(self.ops.to_dtype_bitcast(self.value, dtype, self.dtype), dtype)

    def _made(self, value: Any, dtype: torch.dtype | None = None) -> KernelNumber:
        return KernelNumber(self.ops, value, dtype or self.dtype, self.device)

    @classmethod
    def __torch_function__(cls, function: Any, _types: Any, arguments: Sequence[Any], _named: Any = None) -> Any:
        if function is torch.full_like:
            return arguments[0].constant(arguments[1])
        if function is torch.where:
            condition, x, y = arguments
            return x._made(x.ops.where(condition.value, x.value, x.constant(y).value))
        if function is torch.sqrt:
            return arguments[0]._made(arguments[0].ops.sqrt(arguments[0].value))
        return NotImplemented
