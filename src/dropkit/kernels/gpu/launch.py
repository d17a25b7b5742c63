"""Launching Triton's kernels in little time on the host.

A call of a `triton.jit` function looks at every argument, to find the kernel that Triton has compiled for its like, and
for the 15 us that this takes a small tensor could have been dropped several times. Triton compiles for the device, the
constants, the dtypes of tensors, whether their addresses are multiples of 16, and whether numbers that it may
specialise on are 1 or multiples of 16. Here only these are looked at; the compiled kernel is kept, and called as Triton
itself would call it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch

from dropkit.kernels.gpu import capture
from dropkit.torch_private import current_gpu

# The oldest and the newest release of Triton that were read: how its functions choose and call compiled kernels.
KNOWN = (3, 4), (3, 9)


# Triton compiles for AMD's GPUs specially where offsets in a tensor's memory fit 32 bits.
_IS_AMD = bool(torch.version.hip)


class _Compiled(NamedTuple):
    """A compiled kernel, and how its launcher is called.

    Attributes:
        owner: Triton's object, with which the function would be unloaded.
        run: launches.
        function: handle of the kernel on the device.
        metadata: of the kernel, as `run` takes it.
        stream: of a device, the current one.
    """

    owner: Any
    run: Callable[..., None]
    function: Any
    metadata: Any
    stream: Callable[[int], int]


class Constants:
    """The constants of a kernel by name, and options of the compiler, of a call. Equal only to itself: to be kept."""

    def __init__(self, **values: Any) -> None:
        self.values: dict[str, Any] = values


class Launcher:
    """A kernel and what Triton has compiled of it.

    Args:
        kernel: a `triton.jit` function, whose constants are its last parameters.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._compiled: dict[tuple[Any, ...], _Compiled] = {}
        self._functions: dict[Constants, Callable[..., tuple[Any, ...] | None]] = {}
        # Triton's interpreter makes functions of another class.
        self._can_keep = is_known() and isinstance(kernel, import_module("triton").JITFunction)
        parameters: list[Any] = kernel.params if self._can_keep else []
        self._constants: list[str] = [parameter.name for parameter in parameters if parameter.is_constexpr]
        # The places of the arguments that Triton looks at.
        self._inspected = [
            place
            for place, parameter in enumerate(parameters)
            if not parameter.is_constexpr and not (parameter.do_not_specialize and parameter.annotation_type)
        ]

    def __call__(self, programs: int, arguments: tuple[Any, ...], constants: Constants) -> None:
        """Launch on the device of the arguments.

        Args:
            programs: how many.
            arguments: tensors and ints, the first of them a tensor.
            constants: the same object for the same constants, or Triton looks for the compiled kernel again; another
                one if other arguments are tensors.
        """
        device = arguments[0].get_device()  # -1 is the CPU, for Triton's interpreter
        if device >= 0 and device != current_gpu():
            # Triton launches on the current device.
            with torch.cuda.device(device):
                self(programs, arguments, constants)
            return
        if not self._can_keep or _is_watched():
            self._launch_by_triton(programs, arguments, constants)
            return
        launch = self._functions.get(constants)
        if launch is None:
            launch = self._functions[constants] = self._function(arguments, constants)
        kind = launch(programs, device, *arguments)
        if kind is not None:
            self._keep(kind, self._launch_by_triton(programs, arguments, constants))

    def _function(self, arguments: tuple[Any, ...], constants: Constants) -> Callable[..., tuple[Any, ...] | None]:
        """Write a function that launches what is compiled for a device and arguments, or returns their kinds.

        Written out for the arguments that are tensors, it takes 0.5 us less than a loop over the arguments.
        """
        names = [f"a{place}" for place in range(len(arguments))]
        passed, kinds = [*names], ["device", "constants"]
        for place in self._inspected:
            name = names[place]
            if type(arguments[place]) is int:
                kinds.append(f"number_kind({name}) if {name} else 0")  # 0 stands for what a kernel does not use
                continue
            # The address is passed, too: Triton would ask for it again.
            passed[place] = f"p{place}"
            kinds += f"{name}.dtype", f"(p{place} := {name}.data_ptr()) % 16 == 0"
            if _IS_AMD:
                kinds.append(f"{name}.untyped_storage().nbytes() < 2**31")
        passed += [repr(constants.values[name]) for name in self._constants]
        source = f"""
def launch(programs, device, {", ".join(names)}):
    kind = {", ".join(kinds)}
    compiled = get(kind)
    if compiled is None:
        return kind
    _, run, function, metadata, stream = compiled
    run(programs, 1, 1, stream(device), function, metadata, None, None, None, {", ".join(passed)})
"""
        scope: dict[str, Any] = {"constants": constants, "get": self._compiled.get, "number_kind": _number_kind}
        exec(source, scope)
        return scope["launch"]

    def _launch_by_triton(self, programs: int, arguments: tuple[Any, ...], constants: Constants) -> Any:
        with capture.loading():
            return self._kernel[(programs,)](*arguments, **constants.values)

    def _keep(self, kind: tuple[Any, ...], made: Any) -> None:
        if made is not None:  # a hook on compilation may have launched nothing
            self._compiled[kind] = _Compiled(made, made.run, made.function, made.packed_metadata, _current_stream())


def _is_watched() -> bool:
    """Whether a profiler has hooks on launches, which Triton's own call serves."""
    runtime = _knobs().runtime
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    try:
        return bool(enter.calls or leave.calls)
    except AttributeError:  # in Triton 3.4 a hook is a function or None
        return enter is not None or leave is not None


def _number_kind(number: int) -> int:
    """What Triton compiles for: whether a number is 1, whether it is a multiple of 16, and its type."""
    if number == 1:
        return 1
    size = 0 if -(2**31) <= number < 2**31 else 2 if number < 2**63 else 4
    return 8 + size + (number % 16 == 0)


def _current_stream() -> Callable[[int], int]:
    return import_module("triton.runtime.driver").driver.active.get_current_stream


@cache
def _knobs() -> Any:
    return import_module("triton.knobs")


def is_known() -> bool:
    """Whether compiled kernels of this release of Triton are called directly."""
    version = re.match(r"(\d+)\.(\d+)", str(getattr(import_module("triton"), "__version__", "")))
    return version is not None and KNOWN[0] <= (int(version[1]), int(version[2])) <= KNOWN[1]


@cache
def launcher(module: str, name: str) -> Launcher:
    """The launcher of a kernel in a module of this package."""
    return Launcher(getattr(import_module(f"{__package__}.{module}"), name))
