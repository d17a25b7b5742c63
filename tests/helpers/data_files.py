"""Valid files of every format that studies read, small, with the data that they hold."""

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image

from dropkit.studies import Data

EXAMPLES = 12
_GENERATOR = numpy.random.default_rng(0)
X = _GENERATOR.normal(size=(EXAMPLES, 3)).astype("float32")
Y = numpy.arange(EXAMPLES) % 3
PIXELS = _GENERATOR.integers(0, 255, (EXAMPLES, 5, 4), dtype="uint8")


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        target: what `read` is given in the folder of the file.
        file: path of the file that tests damage.
        content: of that file.
        expected: what it holds.
        has_checksums: whether damage that changes numbers is noticed.
        others: further files that the target needs.
    """

    target: str
    file: str
    content: bytes
    expected: Data
    has_checksums: bool
    others: tuple[tuple[str, bytes], ...] = ()

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, data in ((self.file, self.content), *self.others):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def saved(save: Callable[[io.BytesIO], None]) -> bytes:
    """What `save` writes."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def idx(array: numpy.ndarray, code: int = 8) -> bytes:
    """An array in IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def png(pixels: numpy.ndarray) -> bytes:
    """An image in PNG format."""
    return saved(lambda file: Image.fromarray(pixels).save(file, "PNG"))


def csv_table() -> bytes:
    """The table of X and Y."""
    lines = [",".join([*map(repr, row.tolist()), str(y)]) for row, y in zip(X, Y, strict=True)]
    return "\n".join(["a,b,c,class", *lines, ""]).encode()


_CLASSES = ("0", "1", "2")
TABLE = Data(torch.tensor(X), torch.tensor(Y), _CLASSES)
IMAGES = Data(torch.tensor(PIXELS)[:, None], torch.tensor(Y), _CLASSES)
_BYTES = Y.astype("uint8")
# In a folder the classes come one after the other.
_SORTED = numpy.argsort(Y, kind="stable")
_FILES = tuple((f"photos/{y}/{i:02}.png", png(pixels)) for i, (y, pixels) in enumerate(zip(Y, PIXELS, strict=True)))

FORMATS = {
    "npz": Format("t.npz", "t.npz", saved(lambda f: numpy.savez(f, x=X, y=Y)), TABLE, True),
    "compressed npz": Format("t.npz", "t.npz", saved(lambda f: numpy.savez_compressed(f, x=X, y=Y)), TABLE, True),
    "pt": Format(
        "t.pt", "t.pt", saved(lambda f: torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, f)), TABLE, True
    ),
    "npy": Format(
        "npy:x.npy:y.npy", "x.npy", saved(lambda f: numpy.save(f, X)), TABLE, False,
        (("y.npy", saved(lambda f: numpy.save(f, Y))),),
    ),
    "csv": Format("csv:t.csv:class", "t.csv", csv_table(), TABLE, False),
    "idx": Format("idx:i.idx:l.idx", "i.idx", idx(PIXELS), IMAGES, False, (("l.idx", idx(_BYTES)),)),
    "idx labels": Format("idx:i.idx:l.idx", "l.idx", idx(_BYTES), IMAGES, False, (("i.idx", idx(PIXELS)),)),
    "idx gz": Format(
        "idx:i.idx.gz:l.idx", "i.idx.gz", gzip.compress(idx(PIXELS)), IMAGES, True, (("l.idx", idx(_BYTES)),)
    ),
    "images": Format(
        "photos", _FILES[0][0], _FILES[0][1], Data(IMAGES.inputs[_SORTED], IMAGES.targets[_SORTED], _CLASSES), True,
        _FILES[1:],
    ),
}  # fmt: skip


def equal(one: Data, other: Data) -> bool:
    """Whether data has the same numbers and classes."""
    same = torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
    return same and one.classes == other.classes and one.inputs.dtype == other.inputs.dtype
