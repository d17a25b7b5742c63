"""The Arm kernel on other processors: cross-compiled, run under QEMU, compared with the reference.

Needs `aarch64-linux-gnu-g++` and `qemu-aarch64` (Debian: g++-aarch64-linux-gnu and qemu-user). On Arm itself
`test_cpu_kernel.py` does the same natively.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.kernel_grid import DTYPES, INDICES, LAYOUTS, by_reference, same_bits
from torch import Tensor

from dropkit.kernels.mask import Mask
from dropkit.kernels.params import NoiseParams, alpha, gaussian, inverted

CSRC = Path(__file__).parents[2] / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-static"]
_cpu = pytest.importorskip("dropkit.kernels._cpu", reason="the compiled extension is missing")
CODES = {getattr(torch, name): code for code, name in enumerate(_cpu.DTYPES)}

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"{COMPILER} or {EMULATOR} is not installed"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("arm") / "emulate"
    sources = [source for source in sorted(CSRC.glob("*.cpp")) if source.name != "module.cpp"]
    emulate = Path(__file__).parents[1] / "helpers" / "emulate.cpp"
    subprocess.run([COMPILER, *FLAGS, f"-I{CSRC}", *sources, emulate, "-o", built], check=True)
    return built


def packed(input: Tensor, mask: Mask) -> bytes:
    """A call on a dense copy of `input`, in the format that emulate.cpp reads."""
    threshold, *constants = mask.params
    if isinstance(mask.params, NoiseParams):
        threshold, constants = 2**32 + 1 + mask.params.distribution, [*constants, 0.0]
    numbers = struct.pack("=qqqqq", CODES[input.dtype], mask.key, threshold, mask.offset, input.numel())
    numbers += struct.pack("=ddd", *constants)
    dims = zip(input.shape, input.stride(), input.stride(), mask.strides, strict=True)
    layout = struct.pack("=q", input.dim()) + b"".join(struct.pack("=qqqq", *dim) for dim in dims)
    return numbers + layout + stored(input)


def stored(dense: Tensor) -> bytes:
    return bytes(dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).tolist())


def same(answer: bytes, expected: Tensor) -> bool:
    numbers = torch.frombuffer(bytearray(answer), dtype=expected.dtype)
    return same_bits(numbers.as_strided(expected.shape, expected.stride()), expected)


@pytest.mark.parametrize("level", ["neon", "scalar"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arm_gives_the_bits_of_the_reference(level, dtype, program):
    """The Arm kernel equals the reference to the bit for every layout, mask and kind of dropout."""
    calls = []
    for layout in LAYOUTS.values():
        for indices in INDICES.values():
            input = torch.empty_like(layout()).copy_(layout()).to(dtype)
            calls += [
                (input, Mask(-5, params, *indices(input))) for params in (inverted(0.3), alpha(0.3), gaussian(0.3))
            ]
    calls = [call for call in calls if call[0].numel() < 3000]

    command = [EMULATOR, str(program), level]
    done = subprocess.run(command, input=b"".join(packed(*call) for call in calls), capture_output=True, check=True)

    position = 0
    for call in calls:
        size = call[0].numel() * call[0].element_size()
        assert same(done.stdout[position : position + size], by_reference(*call)), call[0].shape
        position += size
    assert position == len(done.stdout) > 0
