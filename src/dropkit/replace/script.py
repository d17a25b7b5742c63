"""Run a script as `python SCRIPT` would, with torch's dropout on dropkit's kernels."""

from __future__ import annotations

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
    path = str(Path(path).resolve())
    code = compile(source, path, "exec", dont_inherit=True)
    install()
    main = ModuleType("__main__")
    vars(main).update(
        __file__=path, __builtins__=__builtins__, __loader__=SourceFileLoader("__main__", path), __cached__=None
    )
    sys.argv[:] = arguments
    sys.path[0] = str(Path(path).parent)
    sys.modules["__main__"] = main
    try:
        exec(code, vars(main))
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
        error.__traceback__ = frame or traceback
        hook(kind, error, frame or traceback)

    sys.excepthook = from_the_script
