"""A backend of torch.compile: inductor's code for a GPU, which Triton's interpreter runs on CPU tensors."""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.graph
import torch._inductor.lowering  # where dropkit adds its lowerings
from torch import Tensor
from torch._inductor import compile_fx
from torch._inductor.debug import DebugContext
from torch._inductor.runtime import hints
from torch._inductor.virtualized import V
from torch.utils._pytree import tree_map

GPU = torch.device("cuda", 0)
PROPERTIES = {"major": 9, "minor": 0, "multi_processor_count": 132, "warp_size": 32, "total_memory": 2**37}
# The wrapper around the kernels runs on the CPU.
ON_CPU = {
    "from torch._inductor.async_compile import AsyncCompile": f"from {__name__} import Kernels as AsyncCompile",
    "from torch._C import _cuda_getCurrentRawStream as get_raw_stream": "get_raw_stream = int",
    "with torch.cuda._DeviceGuard(0):": "if True:",
    "torch.cuda.set_device(0)": "pass",
    "_empty_strided_cuda": "_empty_strided_cpu",
    "device(type='cuda', index=0)": "device('cpu')",
}
PRODUCT = re.compile(r"tl\.inline_asm_elementwise\('mul\.rn\.f\d\d [^']*', '[^']*', \[(\w+), (\w+)\][^)]*\)")

BLOCK = 256
FOLDER = tempfile.TemporaryDirectory()
atexit.register(FOLDER.cleanup)

# The code of each graph since the list was cleared.
written: list[str] = []


def backend(graph: Any, inputs: Any) -> Any:
    """The backend, to be given to torch.compile."""
    return compile_fx.compile_fx(graph, inputs, inner_compile=_compile)


def kernels(code: str) -> dict[str, str]:
    """The sources of the Triton kernels in the code of a graph, by name."""
    return dict(re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)''', device_str", code, re.DOTALL))


def operators(code: str) -> list[str]:
    """The names of the operators that the code of a graph calls."""
    return re.findall(r"= torch\.ops\.dropkit\.(\w+)\.default\(", code)


def _compile(graph: Any, inputs: Any, **_: Any) -> Callable[[list[Any]], Any]:
    mode = torch._guards.detect_fake_mode(inputs)
    with mode, torch.no_grad():
        inputs = [_on_gpu(input) for input in inputs]
        for node in graph.graph.nodes:
            node.meta["val"] = tree_map(_on_gpu, node.meta.get("val"))
            node.kwargs = tree_map(_on_gpu, dict(node.kwargs))
    compile_fx.record_original_output_strides(graph)
    lowering = torch._inductor.graph.GraphLowering(graph, inputs, shape_env=mode.shape_env)
    properties = hints.DeviceProperties("cuda", 0, cc=90, multi_processor_count=132, major=9, warp_size=32)
    with ExitStack() as stack:
        for context in (
            DebugContext(),
            V.set_fake_mode(mode),
            V.set_graph_handler(lowering),
            patch("torch._inductor.scheduler.has_triton", lambda *_: True),
            patch("torch.utils._triton.triton_hash_with_backend", lambda: ""),
            patch("torch._inductor.async_compile.AsyncCompile.triton", lambda *_, **__: None),
            patch.object(hints.DeviceProperties, "create", lambda _: properties),
            patch("torch.cuda.get_device_properties", lambda *_: SimpleNamespace(**PROPERTIES)),
        ):
            stack.enter_context(context)
        lowering.run(*inputs)
        code = lowering.codegen()[0]
    written.append(getattr(code, "value", code))
    call = _module(written[-1]).call

    def run(arguments: list[Any]) -> Any:
        return call(arguments)

    run._boxed_call = True  # it takes one list, as inductor's code does
    return run


def _on_gpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)
    return GPU if isinstance(value, torch.device) else value


def _module(code: str) -> ModuleType:
    for text, instead in ON_CPU.items():
        code = code.replace(text, instead)
    return _imported(code)


def _imported(code: str) -> ModuleType:
    """A module with this source, in a file, where Triton looks for the source of a function."""
    path = Path(FOLDER.name) / f"module_{len(os.listdir(FOLDER.name))}.py"
    path.write_text(code)
    spec: Any = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kernels:
    """Triton kernels as the interpreter runs them, or Triton's driver if it does not."""

    def triton(self, name: str, source: str, **_: Any) -> Any:
        if os.environ.get("TRITON_INTERPRET") == "1":
            source = PRODUCT.sub(r"\1 * \2", source).replace("libdevice.sqrt(", "tl.sqrt(")
        return SimpleNamespace(run=partial(launch, kernel(name, source)))

    def wait(self, _: Any) -> None:
        """Wait for nothing: there is no compilation."""


def kernel(name: str, source: str) -> Any:
    """The Triton function in the source that inductor wrote, without inductor's choice of launch parameters."""
    source = re.sub(r"@triton_heuristics.*?\n\)\n(?=@triton)", "", source, flags=re.DOTALL)
    return getattr(_imported(source.replace("triton_helpers.set_driver_to_gpu()", "")), name)


def launch(function: Any, *arguments: Any, stream: object) -> None:
    """Launch the function, in blocks of BLOCK elements along each axis."""
    blocks = {name: BLOCK for name in function.arg_names if name.endswith("BLOCK")}
    numbers = dict(zip([name for name in function.arg_names if name not in blocks], arguments, strict=True))
    grid = [-(-numbers[f"{axis}numel"] // BLOCK) for axis in "xyz" if f"{axis}numel" in numbers]
    function[tuple(grid)](*arguments, **blocks)
