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

    Returns when the program ends. Its exceptions propagate, `SystemExit` included, and a traceback printed for one
    starts where Python's would. Child processes of `multiprocessing` are reached however they start; another Python
    that the program starts is not, and a message says so once.

    Args:
        target: a script, a folder or zip file that holds `__main__.py`, or `-` for standard input.
        arguments: the program's own.
        as_module: `target` is the name of a module, as for `python -m`.

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
            # Python does so even if it was started to leave the script's folder out.
            sys.path[: not _is_path_safe()] = [os.path.abspath(target)]
            run_module("__main__", False)
        else:
            path, code = _read(target, main)
            # Compiled in this frame, which `_hide_frames_of_this_file` removes from tracebacks.
            exec(compile(code, path, "exec", dont_inherit=True) if isinstance(code, bytes) else code, vars(main))
    except BaseException as error:
        _hide_frames_of_this_file(error)
        raise


def _install() -> None:
    """Install in this process and, when it starts, in each of its child processes of `multiprocessing`."""
    # Imported here because it imports torch.
    from dropkit.patch.install import install

    install()
    prepared = multiprocessing.spawn.get_preparation_data

    def with_installer(name: str) -> dict[str, object]:
        return {**prepared(name), "dropkit": _Installer()}

    multiprocessing.spawn.get_preparation_data = with_installer


class _Installer:
    """Part of the data that a spawned child, or one of a fork server, unpickles first: that installs dropkit there."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _install, ()


def _new_main() -> ModuleType:
    """Make the module `__main__` as Python starts with it."""
    main = ModuleType("__main__")
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    vars(main).update(__builtins__=builtins, __loader__=BuiltinImporter)
    return main


def _read(target: str, main: ModuleType) -> tuple[str, Any]:
    """Return the name of a file and its source, or the code of a compiled one; set the names of `main` for it."""
    if target == STDIN:
        _begin_path_with("")
        vars(main).update(__file__="<stdin>", __cached__=None)
        return "<stdin>", sys.stdin.buffer.read()
    # Python makes the path absolute and does not normalise it.
    path = os.path.join(os.getcwd(), target)
    _begin_path_with(os.path.dirname(os.path.realpath(path)))
    loader = (SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader)("__main__", path)
    vars(main).update(__file__=path, __cached__=None, __loader__=loader)
    return path, loader.get_code("__main__") if path.endswith(".pyc") else loader.get_data(path)


def _is_package(path: str) -> bool:
    return os.path.isdir(path) or zipfile.is_zipfile(path)


def _is_path_safe() -> bool:
    """Whether Python was started to leave the script's folder out of `sys.path`."""
    return bool(getattr(sys.flags, "safe_path", sys.flags.isolated))


def _begin_path_with(folder: str) -> None:
    if not _is_path_safe():
        sys.path[0] = folder


def _hide_frames_of_this_file(error: BaseException) -> None:
    """Make `sys.excepthook`, by which Python prints the error, leave out the frames that ran the program."""
    hook = sys.excepthook
    here = error.__traceback__
    below = None if here is None else here.tb_next

    def hide(cls: type[BaseException], shown: BaseException, traceback: TracebackType | None) -> None:
        if shown is error:
            shown.__traceback__ = traceback = below
        hook(cls, shown, traceback)

    sys.excepthook = hide


def _watch_for_pythons() -> Callable[[str, tuple[Any, ...]], None]:
    """Make an audit hook that prints a message when the program first starts a Python that is not reached."""
    is_printed = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal is_printed
        if is_printed or event not in _STARTS:
            return
        try:
            another = next(filter(_is_another_python, _commands(arguments[_STARTS[event]])), None)
        except (TypeError, ValueError):
            return  # Not a command that can be parsed; an error in it is for Python to raise.
        if another is None or sys.stderr is None:
            return
        is_printed = True
        command = shlex.join(another)
        command = command if len(command) <= 60 else f"{command[:57]}..."
        print(
            f"dropkit run: the program starts another Python, which keeps torch's dropout ({command}); "
            "write `dropkit run` into that command to reach it",
            file=sys.stderr,
        )

    return hook


# Audit events of Python that start a program, and the position of the argument that is its command.
_STARTS = {"subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.spawn": 2, "os.system": 0}
_PYTHON = re.compile(r"(.*[\\/])?python[\d.]*t?(\.exe)?", re.IGNORECASE)
_SHELLS = ("sh", "bash", "dash", "zsh")
# Commands that run the command after them.
_LAUNCHERS = ("env", "exec", "nice", "nohup", "sudo", "time")


def _commands(command: Any) -> list[list[str]]:
    """Split a command, which may be one for a shell, into the simple commands in it, each a list of words."""
    if isinstance(command, (str, bytes, os.PathLike)):
        lexer = shlex.shlex(os.fsdecode(cast("Any", command)), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
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
    """Whether the command starts a Python that runs the user's program, not dropkit and not a part of torch."""
    if not words or _PYTHON.fullmatch(words[0]) is None or any("dropkit" in word for word in words[1:]):
        return False
    torch_folder = os.path.dirname(str(getattr(sys.modules.get("torch"), "__file__", "")))
    is_torch = any(torch_folder and word.startswith(torch_folder) for word in words)
    return not is_torch and any(not word.startswith("-") for word in words[1:])
