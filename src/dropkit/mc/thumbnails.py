"""Small pictures of the inputs that are images, for pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from dropkit.arrays import is_array
from dropkit.extras import needed_for

# Pixels along the longer side; a page shows them in half the size, sharp on any screen.
_SIZE = 96
# Anything smaller is no image.
_LEAST = 6
_CHANNELS = (1, 3, 4)


def thumbnails(inputs: Any, numbers: Sequence[int]) -> dict[int, str]:
    """Return pictures of those of the inputs that are images, by number, as URLs of their data.

    Args:
        inputs: a tensor or array, a mapping or tuple that begins with one, or a data set of inputs or pairs.
        numbers: of the inputs.
    """
    return {number: _png(image) for number, image in pictures(inputs, numbers).items()}


def pictures(inputs: Any, numbers: Sequence[int]) -> dict[int, Tensor]:
    """Return those of the inputs that are images, (C, H, W), by number; the arguments are as for `thumbnails`."""
    if isinstance(inputs, IterableDataset):
        return {}
    if hasattr(inputs, "__getitem__") and not _is_whole(inputs):
        rows = [images(_row(inputs[number])) for number in numbers]
        return {number: image[0] for number, image in zip(numbers, rows, strict=True) if image is not None}
    found = images(inputs)
    return {} if found is None else {number: found[number] for number in numbers if number < len(found)}


def images(inputs: Any) -> Tensor | None:
    """Return inputs as images, (N, C, H, W); None if they are none.

    Images have 1, 3 or 4 channels, first or last, or are square without channels.
    """
    value = _first(inputs)
    if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
        return None
    shape = value.shape
    if value.dim() == 3 and shape[1] == shape[2] >= _LEAST:
        return value.unsqueeze(1)
    if value.dim() == 4 and shape[1] in _CHANNELS and min(shape[2:]) >= _LEAST:
        return value
    if value.dim() == 4 and shape[3] in _CHANNELS and min(shape[1:3]) >= _LEAST:
        return value.movedim(3, 1)
    return None


def shrunk(images: Tensor, size: int = _SIZE) -> Tensor:
    """Return images of at most `size` pixels in 8 bits a channel, (N, C, h, w); the contrast of floats is stretched."""
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        images = images.float().nan_to_num()
        if images.numel() and not 0 <= float(images.min()) <= float(images.max()) <= 1:
            flat = images.flatten(1)
            low, high = (end[:, None, None, None] for end in (flat.amin(1), flat.amax(1)))
            images = (images - low) / (high - low).clamp(min=1e-12)
        images = 255 * images
    factor = size / max(images.shape[2:])
    if factor < 1:
        sides: Any = [max(1, round(factor * side)) for side in images.shape[2:]]
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), sides)
    return images.round().to(torch.uint8) if images.is_floating_point() else images


def _is_whole(inputs: Any) -> bool:
    return isinstance(inputs, (Tensor, Mapping, tuple, list)) or is_array(inputs)


def _row(item: Any) -> Any:
    """The input of one item of a data set, as a batch of one."""
    value = _first(item)
    value = _first(value) if isinstance(value, Mapping) else value
    return value.unsqueeze(0) if isinstance(value, Tensor) else None


def _first(value: Any) -> Any:
    """The first argument in a mapping or a tuple; arrays as tensors."""
    if isinstance(value, Mapping):
        value = next(iter(cast("Mapping[str, Any]", value).values()), None)
    elif isinstance(value, (tuple, list)):
        value = next(iter(cast("Sequence[Any]", value)), None)
    return torch.as_tensor(value) if is_array(value) else value


def _png(image: Tensor) -> str:
    """A picture of one image, (C, H, W)."""
    with needed_for("a picture"):
        from matplotlib.image import imsave  # pyright: ignore[reportUnknownVariableType] (partly untyped)

    file = io.BytesIO()
    metadata: Any = {"Software": None}
    imsave(file, pixels(image).numpy(), format="png", metadata=metadata)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def pixels(image: Tensor, size: int = _SIZE) -> Tensor:
    """Return an image, (C, H, W), as `shrunk` does, with colours last, (h, w, 3 or 4)."""
    last = shrunk(image.unsqueeze(0), size)[0].movedim(0, 2)
    return last.expand(-1, -1, 3) if last.shape[2] == 1 else last


class Collected:
    """Small pictures of the inputs of batches that pass, in order, until there are so many.

    Args:
        most: how many pictures to keep.
    """

    def __init__(self, most: int) -> None:
        self._kept: list[Tensor | None] = []
        self._most = most

    def add(self, batch: Any) -> None:
        """Keep the images of a batch, if it holds some."""
        found, left = images(batch), self._most - len(self._kept)
        self._kept += [] if found is None else shrunk(found[:left]).unbind()

    def __getitem__(self, number: int) -> Tensor | None:
        return self._kept[number] if number < len(self._kept) else None
