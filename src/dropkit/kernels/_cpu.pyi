"""Types of the compiled extension; csrc/module.cpp documents it."""

from typing import overload

from dropkit.kernels.mask import Mask

DTYPES: tuple[str, ...]

@overload
def drop(dst: int, src: int, dtype: int, mask: Mask, n: int, add: int = ..., /) -> None: ...
@overload
def drop(
    dst: int,
    src: int,
    dtype: int,
    mask: Mask,
    sizes: tuple[int, ...],
    dst_strides: tuple[int, ...],
    src_strides: tuple[int, ...],
    slices: tuple[int, int, tuple[int, ...]] = ...,
    /,
) -> None: ...
def philox(key: int, low: int, high: int, /) -> tuple[int, int, int, int]: ...
def levels() -> tuple[tuple[str, bool], ...]: ...
def level() -> str: ...
def use_level(name: str, /) -> None: ...
def use_pool(address: int, /) -> None: ...
