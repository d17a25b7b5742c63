"""Decode images with Pillow into bytes, all of one size and with the same channels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit import files
from dropkit.arguments import check
from dropkit.studies.readers.options import need

# Pillow's names of the formats that are read; it knows more, which are rare and make damaged files riskier.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
# In pixels: photographs have fewer. More is a damaged header, or meant to take all memory.
_MAX_PIXELS = 1 << 25
_GREY = ("1", "L", "LA", "La")


def stack(images: Sequence[tuple[str, Callable[[], bytes]]], size: int | None) -> Tensor:
    """Return images as bytes, (N, channels, height, width): grey ones with 1 channel, or with 3 if any has colours.

    Args:
        images: for each its name, for errors, and a function that reads its file.
        size: height and width that they are resized to; None if they have one size.

    Raises:
        ValueError: one is no image or damaged, or sizes differ.
    """
    pillow = need("PIL.Image", "a folder of images", "study")
    tensors = [_decode(pillow, name, load(), size) for name, load in images]
    return join([name for name, _ in images], tensors)


def join(names: str | Sequence[str], images: Sequence[Tensor]) -> Tensor:
    """Return images, (channels, height, width) each, as one tensor; grey ones get 3 channels beside coloured ones.

    Args:
        names: of the images, or one that is followed by their numbers.
        images: as bytes.

    Raises:
        ValueError: sizes differ, or there are more than 1 GiB.
    """
    names = [f"{names} {number}" for number in range(len(images))] if isinstance(names, str) else names
    channels = max(image.shape[0] for image in images)
    for name, image in zip(names, images, strict=True):
        wanted = f"as large as {names[0]}, {_size(images[0])} pixels, unless a size to resize all to is given"
        check(name, image.shape[1:] == images[0].shape[1:], wanted, _size(image))
    total = len(images) * channels * images[0][0].numel()
    check("images", total <= files.MAX_SIZE, "at most 1 GiB, for which a smaller size can be given", f"{total} bytes")
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _size(image: Tensor) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"


def _decode(pillow: Any, name: str, content: bytes, size: int | None) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, and about sizes that are refused here
            with pillow.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > _MAX_PIXELS:
                    raise ValueError(f"{width} x {height} pixels")
                image.verify()  # checksums, where the format has them; the image must then be opened again
            with pillow.open(io.BytesIO(content), formats=FORMATS) as image:
                return to_tensor(image, size)
    except Exception as error:  # damaged files raise errors of any kind
        why = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify" in why:
            why = "something else, or damage at its beginning"
        raise ValueError(f"{name} must be a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, got {why}") from error


def to_tensor(image: Any, size: int | None) -> Tensor:
    """Return an image of Pillow as bytes, (1, height, width) if it is grey, else (3, height, width)."""
    image = image.convert("L" if image.mode in _GREY else "RGB")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size))  # bicubic, and smoothed where it becomes smaller
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
