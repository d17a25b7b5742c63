"""IDX files, the format of MNIST and its relatives, also compressed with gzip.

Source of the format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998: a magic number of two
zeros, the type of the numbers and the number of dimensions; the dimensions, 4 bytes each; the numbers; all big-endian.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import re
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropkit import files
from dropkit.arguments import check
from dropkit.studies.data import Data
from dropkit.studies.inputs import as_data
from dropkit.studies.readers.options import Options, part_named

# By the code in the magic number: torch's dtype, and the code of Python's array for swapping bytes.
_TYPES = {
    0x08: (torch.uint8, "B"),
    0x09: (torch.int8, "b"),
    0x0B: (torch.int16, "h"),
    0x0C: (torch.int32, "i"),
    0x0D: (torch.float32, "f"),
    0x0E: (torch.float64, "d"),
}
_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<what>images|labels)[-.]idx[0-9]-?[a-z0-9]*(\.gz)?", re.IGNORECASE)


def read_pair(pair: str, options: Options) -> Data:
    """Read "IMAGES:LABELS"."""
    images, colon, labels = pair.partition(":")
    check("data", bool(colon and images and labels), "idx:IMAGES:LABELS", f"idx:{pair}")
    return as_data(_pair(Path(images), Path(labels), options), Path(images).name)


def is_folder(folder: Path) -> bool:
    """Whether a folder has files that are named as MNIST's, such as train-images-idx3-ubyte.gz."""
    return any(_NAME.fullmatch(name) for name in os.listdir(folder))


def read_folder(folder: Path, options: Options) -> Data:
    """Read the pairs of images and labels in a folder; names with "train", "val" or "test" say the part."""
    found: dict[str, dict[str, Path]] = {}
    for name in sorted(os.listdir(folder)):
        match = _NAME.fullmatch(name)
        if match:
            pair = found.setdefault(_part(match["part"]), {})
            # Compressed and not, the same file: the first in alphabetical order is the one that is not.
            pair.setdefault(match["what"].lower(), folder / name)
    pairs: dict[str, Any] = {}
    for part, pair in found.items():
        missing = [what for what in ("images", "labels") if what not in pair]
        check("the folder", not missing, "both images and labels of each part", f"no {missing[:1]} for {part or 'all'}")
        pairs[part] = _pair(pair["images"], pair["labels"], options)
    if len(pairs) == 1:
        return as_data(next(iter(pairs.values())), folder.name)
    return as_data(pairs, folder.name)


def _part(prefix: str) -> str:
    words = re.split(r"[-_.]", prefix)
    return next((part for word in reversed(words) if (part := part_named(word))), prefix and "training")


def _pair(images: Path, labels: Path, options: Options) -> tuple[Tensor, Tensor]:
    inputs, targets = _read(images), _read(labels)
    check(images.name, inputs.dim() >= 2, "images, of at least 2 dimensions", f"{inputs.dim()}")
    check(labels.name, targets.dim() == 1, "labels, of 1 dimension", f"{targets.dim()}")
    count = f"{len(targets)} labels"
    check(labels.name, len(inputs) == len(targets), f"one label for each of {len(inputs)} images", count)
    # Networks of images take (N, channels, height, width).
    inputs = inputs[:, None] if inputs.dim() == 3 else inputs
    return inputs, targets.float() if options.task == "regression" else targets


def _read(path: Path) -> Tensor:
    """Read one file."""
    content = files.read(path)
    try:
        if content[:2] != b"\x1f\x8b":
            return _tensor(io.BytesIO(content), len(content), path.name)
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            # Nothing deflated becomes more than 1032 times as large.
            return _tensor(file, min(1032 * len(content), files.MAX_SIZE), path.name)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _tensor(file: Any, limit: int, name: str) -> Tensor:
    """Read the numbers of a file that has at most `limit` bytes, which its header may contradict."""
    magic = file.read(4)
    is_idx = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _TYPES and 1 <= magic[3] <= 4
    wanted = "an IDX file, which begins with 00 00, a type and a number of dimensions"
    check(name, is_idx, wanted, magic.hex(" ") or "nothing")
    dtype, code = _TYPES[magic[2]]
    header = file.read(4 * magic[3])
    check(name, len(header) == 4 * magic[3], f"{magic[3]} dimensions of 4 bytes", f"{len(header)} bytes")
    shape = [int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4)]
    size = math.prod(shape) * dtype.itemsize
    sizes = " x ".join(map(str, shape))
    check(name, 0 < size <= limit, f"as large as its header says, {sizes} numbers", f"at most {limit} bytes")
    numbers: array[Any] = array(code)
    body = file.read(size + 1)
    check(name, len(body) == size, f"as large as its header says, {sizes} numbers", f"{len(body)} bytes of {size}")
    numbers.frombytes(body)
    if sys.byteorder == "little":
        numbers.byteswap()
    tensor = torch.frombuffer(numbers, dtype=dtype).view(shape)
    return tensor.float() if dtype.is_floating_point else tensor if dtype == torch.uint8 else tensor.long()
