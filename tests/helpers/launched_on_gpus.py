"""Record what is launched on GPUs that do not exist, by dropkit's launcher and by Triton's own call, and print it.

Nothing is compiled: whatever Triton would compile is a stand-in. For NVIDIA's GPUs it calls Triton's launcher, which is
in C, on a stand-in for CUDA's driver, which notes the bytes of each parameter; for AMD's it notes its arguments.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
import triton.compiler
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from dropkit.kernels import FLOATS, gpu
from dropkit.kernels.gpu import fused, launch
from dropkit.kernels.gpu.fold_in import fold_in
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import ScheduledParams, alpha, gaussian, inverted

CALLS = 150
LAUNCHED: list[tuple[Any, ...]] = []
# AMD's kernels are compiled for either. Nothing is written to them, so that the larger takes no memory.
MEMORIES = torch.empty(2**14, dtype=torch.uint8), torch.empty(2**31, dtype=torch.uint8)


class Driver:
    """The driver of two GPUs of different makers. The current one is what Triton compiles for."""

    current = 0

    @cached_property
    def utils(self) -> nvidia.CudaUtils:
        return nvidia.CudaUtils()

    def get_current_device(self) -> int:
        return self.current

    def get_current_stream(self, device: int) -> int:
        return 7

    def get_current_target(self) -> GPUTarget:
        return (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64))[self.current]


# What the driver does: it writes a launch to `noted`, whose parameters have the sizes in `sizes`, up to a 0.
STUB = """
#include <string.h>
typedef struct { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; } Config;
int sizes[128], length;
char noted[2048];
static void note(const void *from, int size) { memcpy(noted + length, from, size); length += size; }
int cuPointerGetAttribute(void **result, int attribute, void *pointer) { *result = pointer; return 0; }
int cuLaunchKernelEx(const Config *config, void *function, void **parameters, void **extra) {
    length = 0;
    note(config, sizeof config->grid + sizeof config->block + sizeof config->shared);
    note(&config->stream, sizeof config->stream);
    note(&function, sizeof function);
    for (int i = 0; sizes[i]; i++) note(parameters[i], sizes[i]);
    return 0;
}
"""
COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
FOLDER = tempfile.TemporaryDirectory()


@cache
def stub() -> ctypes.CDLL:
    """The driver, where Triton looks for it; functions that launches do not call return 0."""
    sources = [Path(nvidia.__file__).with_name(name).read_text() for name in ("driver.c", "driver.py")]
    names = {*re.findall(r"\bcu[A-Z]\w*(?=\()", "".join(sources))} - {*re.findall(r"\bcu\w+(?=\()", STUB)}
    (source := Path(FOLDER.name) / "stub.c").write_text(
        STUB + "".join(f"int {name}() {{ return 0; }}\n" for name in names)
    )
    library = source.with_name("libcuda.so.1")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source], check=True)
    library.with_name("libcuda.so").symlink_to(library)  # for Triton 3.5
    os.environ.update(TRITON_LIBCUDA_PATH=FOLDER.name, TRITON_CACHE_DIR=FOLDER.name)
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


class Compiled:
    """What Triton has compiled, as far as `triton.runtime.jit` and dropkit know it."""

    packed_metadata: tuple[int, ...] = ()
    made = 0

    def __init__(self, src: Any, *_: Any, target: GPUTarget, options: dict[str, Any], **__: Any) -> None:
        Compiled.made += 1
        self.function = Compiled.made
        if target.backend == "cuda" and COMPILER:
            stub()
            scratch = {f"{kind}_scratch_{what}": 0 for kind in ("global", "profile") for what in ("size", "align")}
            metadata = SimpleNamespace(**{"cluster_dims": (1, 1, 1), **options, **scratch, "shared": 0})
            self.packed_metadata = triton.compiler.make_backend(target).pack_metadata(metadata)
            types = [kind for kind in src.signature.values() if kind != "constexpr"]
            self.sizes = [8 if kind[0] == "*" else int(kind[1:]) // 8 for kind in types]
            self.launch, self.run = nvidia.CudaLauncher(src, metadata), self.run_by_launcher

    def launch_metadata(self, *_: Any) -> dict[str, Any]:
        return {}

    def run_by_launcher(self, *arguments: Any) -> None:
        (ctypes.c_int * 128).in_dll(stub(), "sizes")[:] = [*self.sizes, *[0] * (128 - len(self.sizes))]
        self.launch(*arguments)
        length = ctypes.c_int.in_dll(stub(), "length").value
        LAUNCHED.append((bytes((ctypes.c_char * 2048).in_dll(stub(), "noted"))[:length],))

    def run(self, *arguments: Any) -> None:
        *grid, stream, function, metadata, _, enter, leave = arguments[:9]
        addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments[9:]]
        LAUNCHED.append((*grid, stream, function, metadata, *addresses))
        for hook in (enter, leave):
            if hook is not None:
                hook({})


def made(choose: random.Random) -> Callable[[], None]:
    """A random call of a kernel; nothing of it is random when it runs."""
    dtype = choose.choice(sorted(FLOATS, key=str))
    key: Any = choose.choice([1, 16, 2**31, -(2**40), torch.tensor(5), torch.empty(2, dtype=torch.uint64)])
    scheduled = ScheduledParams(torch.tensor(0.3, dtype=choose.choice([torch.float32, torch.float64])), "inverted")
    params = choose.choice([inverted(0.3), alpha(0.3), gaussian(0.3), scheduled])
    kind = choose.choice(["flat", "tiles", "keys", "mask", "fold_in", "norm", "activation"])
    rows, columns = choose.choice([1, 3, 16]), choose.choice([1, 16, 24, 33, 64])
    shift = choose.choice([0, 0, 1])
    memory = choose.choice(MEMORIES).view(dtype)
    x = memory[shift : shift + rows * columns].view(rows, columns)
    if kind == "flat":
        return partial(gpu.drop, x, x, Mask(key, params), choose.choice([None, x]))
    if kind == "mask":
        return partial(gpu.drop_and_mask, x, torch.empty(rows, columns, dtype=torch.bool), x, Mask(key, inverted(0.3)))
    if kind == "fold_in":
        return partial(fold_in, *torch.arange(65)[shift:][None].expand(2, 1, -1))
    if kind == "tiles":
        x = x.as_strided((rows, columns), choose.choice([(32, 1), (1, 32), (128, 2), (48, 3)]), shift)
        return partial(gpu.drop, x, x, Mask(key, params, choose.choice([(1, 0), (columns, 1), (3, 5)])))
    if kind == "keys":
        return partial(gpu.drop, x, x, Mask(torch.arange(rows), params))
    mask, row = Mask(key, inverted(0.3)), x[:1, :].view(-1)
    if kind == "activation":
        if choose.random() < 0.5:
            return partial(fused.activation_forward, x, row, x, "gelu", mask)
        return partial(fused.activation_backward, x, x, None, "relu", mask)
    norm, per_row = fused.Norm(row, None, None, choose.choice([mask, None]), 1e-5, True), torch.empty(rows)
    if choose.random() < 0.5:
        return partial(fused.norm_forward, x, x, norm)
    return partial(fused.norm_backward, x, None, x, per_row, per_row, norm)


class Outputs:
    """Stands for `torch.empty` and `torch.empty_like`: the n-th tensor of a call is the same every time."""

    def __init__(self, make: Callable[..., Tensor]) -> None:
        self.make, self.tensors, self.used = make, list[Tensor](), 0

    def __call__(self, *size: Any, **options: Any) -> Tensor:
        if self.used == len(self.tensors):
            self.tensors.append(self.make(*size, **options))
        self.used += 1
        return self.tensors[self.used - 1]


def launched(call: Callable[[], None], outputs: list[Outputs]) -> list[Any]:
    """What a call launches."""
    LAUNCHED.clear()
    for output in outputs:
        output.used = 0
    call()
    return [*LAUNCHED]


def main() -> None:
    triton.compiler.compile = Compiled
    device = Driver()
    driver.set_active(device)
    by_triton = counted(JITFunction)
    empty, empty_like = torch.empty, torch.empty_like
    facts: dict[str, Any] = {"different": [], "by Triton the second time": 0}
    for Driver.current in (0, 1):
        launch._IS_AMD = bool(Driver.current)
        launch.launcher.cache_clear()
        choose = random.Random(3)
        for number in range(CALLS):
            torch.empty, torch.empty_like = empty, empty_like
            call = made(choose)
            outputs = [Outputs(empty), Outputs(empty_like)]
            torch.empty, torch.empty_like = outputs
            first = launched(call, outputs)
            before = len(by_triton)
            again = launched(call, outputs)
            facts["by Triton the second time"] += len(by_triton) - before
            # Under hooks, Triton launches.
            with watched([]):
                expected = launched(call, outputs)
            if not first == again == expected or not first or len(by_triton) == before:
                facts["different"].append([Driver.current, number, *by_triton[before:]])
    seen: list[Any] = []
    with watched(seen):
        call()
    facts["hooks called"] = len(seen)
    facts["compiled"] = Compiled.made
    before = len(by_triton)
    launch.KNOWN = (2, 0), (3, 3)
    launch.launcher.cache_clear()
    call()
    call()
    facts["by Triton where it is unknown"] = len(by_triton) - before
    print(json.dumps(facts))


def counted(owner: type[JITFunction[Any]]) -> list[str]:
    """The names of the kernels that Triton's own call launches from now on."""
    names: list[str] = []
    original = owner.run

    def run(self: JITFunction[Any], *args: Any, **kwargs: Any) -> Any:
        names.append(self.__name__)
        return original(self, *args, **kwargs)

    owner.run = run
    return names


@contextmanager
def watched(seen: list[Any]) -> Iterator[None]:
    """Launches under a profiler's hooks, which note what they are called with."""
    runtime = triton.knobs.runtime
    names = "launch_enter_hook", "launch_exit_hook"
    chains = [getattr(runtime, name) for name in names]
    for name, chain in zip(names, chains, strict=True):
        if hasattr(chain, "add"):
            chain.add(seen.append)
        else:
            setattr(runtime, name, seen.append)  # Triton 3.4
    try:
        yield
    finally:
        for name, chain in zip(names, chains, strict=True):
            if hasattr(chain, "remove"):
                chain.remove(seen.append)
            else:
                setattr(runtime, name, chain)


if __name__ == "__main__":
    main()
