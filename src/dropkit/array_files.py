"""Read arrays from .npy, .npz and .pt files that may be damaged or hostile, without objects or needless memory.

Source of the format: NEP 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from importlib import import_module
from typing import Any

from dropkit import files
from dropkit.extras import needed_for

TORCH = (".pt", ".pth", ".ckpt")
FORMATS = (".npy", ".npz", *TORCH)

# No deflated byte becomes more bytes than this, so a larger claim is damage.
_MAX_RATIO = 1032
_PICKLED = "it holds objects, or is damaged"


def read(path: str, is_strict: bool = False) -> Any:
    """Return the array of a .npy file, a mapping of those of a .npz file, or what a .pt file holds without objects.

    Args:
        path: a file of one of `FORMATS`; symbolic links are followed.
        is_strict: whether checksums of .pt files are verified, which must then be in torch's format since 1.6, and
            files and what they expand to are limited to 1 GiB.

    Raises:
        ImportError: NumPy is needed and not installed.
        ValueError: the file holds objects, or is damaged.
        OSError: it cannot be read.
    """
    if path.endswith(TORCH):
        return _torch(path, is_strict)
    limit = files.MAX_SIZE if is_strict else None
    content = files.read(path, limit=limit)
    try:
        return _array(io.BytesIO(content), len(content)) if path.endswith(".npy") else _archive(content, limit)
    except ImportError:
        raise
    except Exception as error:  # damaged files raise errors of any kind
        raise ValueError(_reason(error)) from error


def _torch(path: str, is_strict: bool) -> Any:
    import torch

    try:
        if is_strict:
            _must_be_intact(files.read(path))
        # With `mmap` a storage cannot reach beyond the file, whatever size it claims.
        return torch.load(path, weights_only=True, map_location="cpu", mmap=is_strict)
    except OSError:
        raise
    except Exception as error:  # damaged files raise errors of any kind
        raise ValueError(_reason(error)) from error


def _must_be_intact(content: bytes) -> None:
    """Verify the checksums, which torch does not."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        if not is_stored or archive.testzip() is not None:
            raise ValueError("damaged, or saved without checksums")


def _archive(content: bytes, limit: int | None) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        expanded = sum(entry.file_size for entry in entries)
        if limit is not None and expanded > limit:
            raise ValueError(f"its arrays must take at most 1 GiB, got {expanded} bytes")
        for entry in entries:
            if entry.file_size > _MAX_RATIO * entry.compress_size + 64:
                raise ValueError(f"damaged: {entry.filename} cannot have {entry.file_size} bytes")
            with archive.open(entry) as file:
                # It reads to the end, where the checksum is verified.
                arrays[entry.filename.removesuffix(".npy")] = _array(file, entry.file_size)
    return arrays


def _array(file: Any, size: int) -> Any:
    """Read one array of a file of `size` bytes; NumPy's own reader would allocate whatever the header claims."""
    with needed_for("a file of NumPy arrays", "study"):
        numpy: Any = import_module("numpy")
    form = numpy.lib.format
    version = form.read_magic(file)
    # Versions differ in the width of the header's length, and in its encoding.
    read_header = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote, or that are damaged
        shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    data = bytearray(file.read(size))
    if dtype.itemsize * math.prod(shape) != len(data) or not dtype.itemsize:
        raise ValueError(f"damaged: {len(data)} bytes for shape {shape} of {dtype}")
    array = numpy.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    why = " ".join(f"{type(error).__name__}: {error}".splitlines()[:1])
    # torch and NumPy then suggest unsafe loading, which is not offered here.
    return _PICKLED if "pickl" in why.lower() else why
