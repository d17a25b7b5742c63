"""Run a program as Python itself would, with torch's dropout on dropkit's kernels, in its child processes too."""

from __future__ import annotations

import builtins
import multiprocessing.spawn
import os
import re
import runpy
import shlex
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import Any, cast

STDIN = "-"


def run(target: str, arguments: Sequence[str], as_module: bool = False) -> None:
    """Run a program as `__main__`, with `sys.argv`, `sys.path` and the module's own names as Python would set them.

    Returns when it ends; what it raises goes on, `SystemExit` included, and a traceback printed for it begins where
    Python's would. Children by `multiprocessing` are reached however they start; another Python that the program starts
    is not, which is said once.

    Args:
        target: a script, a folder or zip file that holds `__main__.py`, or `-` for what stands on standard input.
        arguments: the program's own.
        as_module: take `target` for the name of a module, as `python -m` does.

    Raises:
        OSError: the script cannot be read.
        SyntaxError: it cannot be compiled.
    """
    _install()
    sys.addaudithook(_watch_for_pythons())
    sys.argv[:] = ["-m" if as_module else target, *arguments]
    main = sys.modules["__main__"] = _new_main()
    run_module: Callable[[str, bool], None] = cast("Any", runpy)._run_module_as_main
    try:
        if as_module:
            _begin_path_with(os.getcwd())
            run_module(target, True)
        elif target != STDIN and _is_package(target):
            # Even where Python was told to leave the script's folder out.
            sys.path[: not _is_path_safe()] = [os.path.abspath(target)]
            run_module("__main__", False)
        else:
            path, code = _read(target, main)
            # Compiled in this frame, which no traceback shows.
            exec(compile(code, path, "exec", dont_inherit=True) if isinstance(code, bytes) else code, vars(main))
    except BaseException as error:
        _show_below_here(error)
        raise


def _install() -> None:
    """Install in this process and, as each begins, in its children by `multiprocessing`."""
    # Imports torch.
    from dropkit.patch.install import install

    install()
    prepared = multiprocessing.spawn.get_preparation_data

    def with_installer(name: str) -> dict[str, object]:
        return {**prepared(name), "dropkit": _Installer()}

    multiprocessing.spawn.get_preparation_data = with_installer


class _Installer:
    """Among what a spawned child, or a child of a fork server, is told first: reading it installs dropkit there."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _install, ()


def _new_main() -> ModuleType:
    """The module that Python begins with."""
    main = ModuleType("__main__")
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    vars(main).update(__builtins__=builtins, __loader__=BuiltinImporter)
    return main


def _read(target: str, main: ModuleType) -> tuple[str, Any]:
    """The name of a file and its source, or the code of a compiled one; `main` is told where it comes from."""
    if target == STDIN:
        _begin_path_with("")
        vars(main).update(__file__="<stdin>", __cached__=None)
        return "<stdin>", sys.stdin.buffer.read()
    # Python makes the name absolute and leaves it as it is otherwise.
    path = os.path.join(os.getcwd(), target)
    _begin_path_with(os.path.dirname(os.path.realpath(path)))
    loader = (SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader)("__main__", path)
    vars(main).update(__file__=path, __cached__=None, __loader__=loader)
    return path, loader.get_code("__main__") if path.endswith(".pyc") else loader.get_data(path)


def _is_package(path: str) -> bool:
    return os.path.isdir(path) or zipfile.is_zipfile(path)


def _is_path_safe() -> bool:
    """Whether Python was told to leave the script's folder out of `sys.path`."""
    return bool(getattr(sys.flags, "safe_path", sys.flags.isolated))


def _begin_path_with(folder: str) -> None:
    if not _is_path_safe():
        sys.path[0] = folder


def _show_below_here(error: BaseException) -> None:
    """Python prints what is raised through `sys.excepthook`: leave out the frames that ran the program."""
    hook = sys.excepthook
    here = error.__traceback__
    below = None if here is None else here.tb_next

    def from_the_program(kind: type[BaseException], shown: BaseException, traceback: TracebackType | None) -> None:
        if shown is error:
            shown.__traceback__ = traceback = below
        hook(kind, shown, traceback)

    sys.excepthook = from_the_program


def _watch_for_pythons() -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that says once that the program starts a Python that is not reached."""
    said = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal said
        if said or event not in _STARTS:
            return
        try:
            another = next(filter(_is_another_python, _commands(arguments[_STARTS[event]])), None)
        except (TypeError, ValueError):
            return  # No command that could be read: what is wrong with it, if anything, others say.
        if another is None or sys.stderr is None:
            return
        said = True
        command = shlex.join(another)
        command = command if len(command) <= 60 else f"{command[:57]}..."
        print(
            f"dropkit run: the program starts another Python, whose dropout stays torch's ({command}); "
            "`dropkit run` in that command reaches it, too",
            file=sys.stderr,
        )

    return hook


# Events of Python that start a program, and which argument is its command.
_STARTS = {"subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.spawn": 2, "os.system": 0}
_PYTHON = re.compile(r"(.*[\\/])?python[\d.]*t?(\.exe)?", re.IGNORECASE)
_SHELLS = ("sh", "bash", "dash", "zsh")
# What runs the words behind it.
_LAUNCHERS = ("env", "exec", "nice", "nohup", "sudo", "time")


def _commands(command: Any) -> list[list[str]]:
    """The words of the commands in a command, which may be one that a shell is to read."""
    if isinstance(command, (str, bytes, os.PathLike)):
        read = shlex.shlex(os.fsdecode(cast("Any", command)), posix=True, punctuation_chars=True)
        read.whitespace_split = True
        words = list(read)
    else:
        words = [os.fsdecode(word) for word in command]
        if len(words) > 2 and os.path.basename(words[0]) in _SHELLS and words[1] == "-c":
            return _commands(words[2])
    commands: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("();<>|&"):
            commands.append([])
        elif commands[-1] or not (word in _LAUNCHERS or "=" in word):
            commands[-1].append(word)
    return commands


def _is_another_python(words: list[str]) -> bool:
    """Whether these start a Python that runs the user's program: neither dropkit nor what torch starts for itself."""
    if not words or _PYTHON.fullmatch(words[0]) is None or any("dropkit" in word for word in words[1:]):
        return False
    torchs = os.path.dirname(str(getattr(sys.modules.get("torch"), "__file__", "")))
    own = any(torchs and word.startswith(torchs) for word in words)
    return not own and any(not word.startswith("-") for word in words[1:])
