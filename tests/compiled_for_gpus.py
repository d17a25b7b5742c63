"""Compiles the GPU kernels ahead of time, on a machine without a GPU, and prints what came of it as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dropkit.kernels.gpu import walks

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}
# What memory that torch allocates, and most counts, are multiples of.
ALIGNED = [["tt.divisibility", 16]]
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(kernel: Any, dtype: str, target: str, aligned: tuple[str, ...], **constants: Any) -> dict[str, Any]:
    pointer = f"*{TYPES[dtype]}"
    signature = {"output": pointer, "input": pointer, "add": pointer, "key": "*i64", "threshold": "u32"}
    signature = {name: signature.get(name, "constexpr" if name in constants else "i64") for name in kernel.arg_names}
    attributes = {(kernel.arg_names.index(name),): ALIGNED for name in ("output", "input", *aligned)}
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    made = triton.compile(source, target=TARGETS[target], options=options)
    if "ptx" not in made.asm:
        return {"size": len(made.asm["hsaco"])}
    ptx = made.asm["ptx"]
    return {
        "wide_loads": len(re.findall(r"ld\.global\S*\.v4\.b32|ld\.global\S*\.v2\.b64", ptx)),
        "wide_stores": len(re.findall(r"st\.global\S*\.v4\.b32|st\.global\S*\.v2\.b64", ptx)),
        "wide_multiplies": ptx.count("mul.wide.u32"),
        "high_multiplies": ptx.count("mul.hi"),
        "shared": made.metadata.shared,
        **used(made.asm["cubin"]),
    }


def used(cubin: bytes) -> dict[str, int]:
    """Registers, and bytes of a thread's stack, which only spills need."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", said.stdout)}
    return {"registers": found["REG"], "spilled": found["STACK"]}


def main() -> None:
    found: dict[str, Any] = {}
    flat = {"KEY_IN_MEMORY": True, "AFFINE": False, "ADD": False, "BLOCK": 2048}
    # As Triton finds them where rows are dense and of an even length.
    tiles = {"KEY_IN_MEMORY": True, "AFFINE": False, "OUTER": 1, "input_stride": 1, "output_stride": 1}
    even = ("columns", "input_stride1", "output_stride1", "step1", "base")
    sizes = {"ONE": (2, 1024), "FOURS": (2, 1024), "ANY": (1, 512)}
    for target in TARGETS:
        for dtype in TYPES:
            found[f"flat {dtype} {target}"] = compiled(walks.flat, dtype, target, ("base",), **flat)
            found[f"added {dtype} {target}"] = compiled(
                walks.flat, dtype, target, ("add", "base"), **flat | {"ADD": True}
            )
        for kind, (rows, columns) in sizes.items():
            shape = {"KIND": getattr(walks, kind).value, "ROWS": rows, "COLUMNS": columns}
            found[f"tiles {kind} {target}"] = compiled(walks.tiles, "bfloat16", target, even, **tiles, **shape)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
