"""Compile the GPU kernels on a machine without a GPU, by the calls that would run them, and print facts about it."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import inductor_for_gpus
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from dropkit.functional import alpha_dropout, dropout
from dropkit.kernels import FLOATS, gpu
from dropkit.kernels.gpu import fold_in as on_gpu
from dropkit.kernels.gpu import fused
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import ScheduledParams, gaussian, inverted, uniform_number

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
WIDE_LOAD, WIDE_STORE = (re.compile(rf"{name}\.global\S*\.(?:v4\.b32|v2\.b64)") for name in ("ld", "st"))
MASK = Mask(torch.tensor(7), inverted(0.1))
NOISE = MASK._replace(params=gaussian(0.1))


class Driver:
    """The driver of a GPU that does not exist: it only tells Triton what to compile for."""

    target = "sm_90"

    def get_current_device(self) -> int:
        return [*TARGETS].index(self.target)

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.target]


MADE: list[Any] = []


def compile_alone(run: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        MADE.append(run(self, *args, grid=grid, warmup=True, **kwargs))

    return compiled


def drop(dtype: torch.dtype, count: int = 4096, add: bool = False, mask: Mask = MASK) -> None:
    x = torch.empty(count, dtype=dtype)
    gpu.drop(torch.empty_like(x), x, mask, x if add else None)


def drop_and_mask(dtype: torch.dtype) -> None:
    x = torch.empty(4096, dtype=dtype)
    gpu.drop_and_mask(torch.empty_like(x), torch.empty(4096, dtype=torch.bool), x, MASK)


def strided(strides: tuple[int, int], mask: Mask = MASK, rows: int = 64) -> None:
    x = torch.empty(rows, 2048, dtype=torch.bfloat16)[:, :1024]
    gpu.drop(torch.empty(rows, 1024, dtype=torch.bfloat16), x, mask._replace(strides=strides))


def keyed(keys: Tensor) -> None:
    x = torch.empty(64, 1024, dtype=torch.bfloat16)
    gpu.drop(torch.empty_like(x), x, Mask(keys, inverted(0.1), (0, 1)))


def norm(backward: bool, columns: int = 4096) -> None:
    x, w, row = (
        torch.empty(8, columns, dtype=torch.bfloat16),
        torch.empty(columns, dtype=torch.bfloat16),
        torch.empty(8),
    )
    if backward:
        fused.norm_backward(x, x, x, row, row, fused.Norm(w, w, None, MASK, 1e-5, True))
    else:
        fused.norm_forward(x, x, fused.Norm(w, w, None, MASK, 1e-5, True))


def activation(backward: bool) -> None:
    x, b = torch.empty(8, 4096, dtype=torch.bfloat16), torch.empty(4096, dtype=torch.bfloat16)
    if backward:
        fused.activation_backward(x, x, b, "gelu", MASK)
    else:
        fused.activation_forward(x, b, x, "gelu", MASK)


def at_rate(function: str) -> None:
    drop(torch.float32, mask=MASK._replace(params=ScheduledParams(torch.tensor(0.1), function)))


@cache
def by_inductor(vendor: str) -> dict[torch.dtype, Callable[[], Tensor]]:
    """Activation, dropout and addition in one kernel, written once for each vendor of GPUs; alpha's rate in memory."""
    torch._dynamo.reset()
    calls: dict[torch.dtype, Callable[[], Tensor]] = {}
    at_rate = partial(alpha_dropout, training=True)
    for dtype, drop, p in ((torch.float32, at_rate, torch.tensor(0.1)), (torch.bfloat16, dropout, 0.1)):
        function = torch.compile(lambda x, p, drop=drop: drop(x.relu(), p) + x, backend=inductor_for_gpus.backend)
        calls[dtype] = partial(function, torch.empty(64, 1024, dtype=dtype, requires_grad=True), p)
    with patch("torch.version.hip", "6.0" if vendor == "hip" else None):
        for call in calls.values():
            call().sum().backward()
    return calls


def in_inductors_kernel(dtype: torch.dtype, backward: bool = False) -> None:
    output = by_inductor(Driver().get_current_target().backend)[dtype]()
    if backward:
        output.sum().backward()


DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in sorted(FLOATS, key=str)}
CALLS: dict[str, Callable[[], None]] = {
    **{f"flat {name}": partial(drop, dtype) for name, dtype in DTYPES.items()},
    **{f"added {name}": partial(drop, dtype, add=True) for name, dtype in DTYPES.items()},
    **{f"kept {name}": partial(drop_and_mask, dtype) for name, dtype in DTYPES.items()},
    **{f"noise {name}": partial(drop, dtype, mask=NOISE) for name, dtype in DTYPES.items()},
    "noise uniform": partial(drop, torch.float32, mask=NOISE._replace(params=uniform_number(0.0))),
    "noise strided any": partial(strided, (3, 5), NOISE),
    "noise strided shared": partial(strided, (4, 0), NOISE),
    **{f"rate {name}": partial(at_rate, name) for name in ("inverted", "alpha", "gaussian")},
    "flat odd": partial(drop, torch.bfloat16, 4099),
    "flat pair": partial(drop, torch.float32, mask=MASK._replace(key=torch.tensor([7, 1], dtype=torch.uint64))),
    "strided shared": partial(strided, (4, 0)),
    "strided consecutive": partial(strided, (1024, 1)),
    "strided across": partial(strided, (1, 64)),
    "strided any": partial(strided, (3, 5)),
    "strided keys": partial(keyed, torch.arange(64)),
    "strided pairs": partial(keyed, torch.zeros(64, 2, dtype=torch.uint64)),
    "norm forward": partial(norm, False),
    "norm backward": partial(norm, True),
    "wide norm forward": partial(norm, False, fused.MAX_COLUMNS),
    "wide norm backward": partial(norm, True, fused.MAX_COLUMNS),
    "activation forward": partial(activation, False),
    "activation backward": partial(activation, True),
    "fold_in": lambda: on_gpu.fold_in(torch.arange(64), torch.arange(64)),
}
if torch.__version__.startswith("2.13"):  # whose parts the backend replaces
    CALLS |= {
        "inductor": partial(in_inductors_kernel, torch.float32),
        "inductor bfloat16": partial(in_inductors_kernel, torch.bfloat16),
        "inductor backward": partial(in_inductors_kernel, torch.float32, True),
    }


def described(made: Any) -> dict[str, Any]:
    common = {"threads": made.metadata.num_warps * made.metadata.target.warp_size, "shared": made.metadata.shared}
    if "ptx" not in made.asm:
        return {"size": len(made.asm["hsaco"]), **common}
    ptx = made.asm["ptx"]
    return {
        **common,
        "wide_loads": len(WIDE_LOAD.findall(ptx)),
        "philox_before_loads": str(0xD2511F53) in WIDE_LOAD.split(ptx)[0],
        "wide_stores": len(WIDE_STORE.findall(ptx)),
        "compares_before_stores": WIDE_STORE.split(ptx)[0].count("setp."),
        "wide_multiplies": ptx.count("mul.wide.u32"),
        "divisions": len(re.findall(r"(?:rem|div)\.[su]32", ptx)),
        # ptxas makes one instruction of each of these, since the upper halves of the factors are zero.
        "philox_multiplies": len(re.findall(r"mul\.(?:wide\.u32|lo\.s64|hi\.u32)", ptx)),
        "products": sorted(set(re.findall(r"mul\.\S*f32", ptx))),
        "high_multiplies": ptx.count("mul.hi"),
        "fused_multiply_adds": ptx.count("fma.rn"),
        "inexact_doubles": len(re.findall(r"(?:approx|full)\S*\.f64", ptx)),
        "float_multiplies": len(re.findall(r"mul\.(?:rn\.)?f32", ptx)),
        **used(made.asm["cubin"]),
    }


def used(cubin: bytes) -> dict[str, int]:
    """Registers, and bytes of a thread's stack, which only spilled registers use."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", done.stdout)}
    return {"registers": usage["REG"], "spilled": usage["STACK"]}


def main() -> None:
    device = Driver()
    driver.set_active(device)
    inductor_for_gpus.BLOCK = 1024
    JITFunction.run = compile_alone(JITFunction.run)
    facts: dict[str, Any] = {}
    for Driver.target, target in TARGETS.items():
        fused.warp_size = lambda size=target.warp_size: size
        for name, call in CALLS.items():
            call()
            facts[f"{name} {Driver.target}"] = described(MADE[-1])
    Driver.target = "sm_90"
    MADE.clear()
    for p in (0.1, 0.25, 0.5, 2**-32, 0.9):
        for key in (torch.tensor(7), torch.tensor(3)):
            drop(torch.float32, mask=Mask(key, inverted(p)))
    facts["kernels for ten rates and keys"] = len({id(made) for made in MADE})
    MADE.clear()
    for count in (1, 16, 17, 4096, 4100):
        drop(torch.float32, count)
    facts["kernels for five sizes"] = len({id(made) for made in MADE})
    MADE.clear()
    for rows in (1, 3, 16, 64):
        strided((1024, 1), rows=rows)
    facts["kernels for four heights"] = len({id(made) for made in MADE})
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
