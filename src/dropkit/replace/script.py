"""Run a script as `python SCRIPT` would, with torch's dropout on dropkit's kernels."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from dropkit.replace.operators import install


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run the script at `path` as `__main__`, with `sys.argv` and `sys.path` as Python would set them.

    Returns when the script ends; what it raises goes on, `SystemExit` included, and a traceback printed for it begins
    in the script.

    Raises:
        OSError: the script cannot be read.
        SyntaxError: it cannot be compiled.
    """
    source = Path(path).read_bytes()
    arguments = [path, *arguments]
    path = os.path.abspath(path)
    install()
    main = ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(main).update(__file__=path, __builtins__=__builtins__, __loader__=loader, __cached__=None)
    sys.argv[:] = arguments
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.modules["__main__"] = main
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(main))
    except BaseException:
        _begin_tracebacks_in(path)
        raise


def _begin_tracebacks_in(path: str) -> None:
    """Python prints what is raised through `sys.excepthook`: leave out the frames that ran the script."""
    hook = sys.excepthook

    def from_the_script(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        frame = traceback
        while frame is not None and frame.tb_frame.f_code.co_filename != path:
            frame = frame.tb_next
        # No frame of the script: it did not compile.
        error.__traceback__ = frame
        hook(kind, error, frame)

    sys.excepthook = from_the_script
