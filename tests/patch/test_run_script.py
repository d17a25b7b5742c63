"""`dropkit run` compared with `python`: what a program sees, prints and returns."""

import os
import re
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

import dropkit

# Replaces `install`, which imports torch and takes seconds: every Python of these tests counts its installs.
COUNTING = """
import sys, types
operators = sys.modules["dropkit.patch.install"] = types.ModuleType("dropkit.patch.install")
sys.installs = 0
def install():
    sys.installs += 1
operators.install = install
"""

# Prints its environment, and ends as its last argument says.
PROGRAM = """\
import sys
for _name, _value in list(globals().items()):
    print(_name, type(_value).__name__, _value if isinstance(_value, (str, dict, type(None))) else "")
print(sys.argv, sys.path, __loader__, getattr(__spec__, "name", None), sys.modules["__main__"].__dict__ is globals())

class Local:
    number: int = 0

def fail(how):
    if how == "raise":
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("from the program") from error
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "pickle":
        import pickle
        print(type(pickle.loads(pickle.dumps(Local()))) is Local)
    if how == "hook":
        sys.excepthook = lambda kind, error, traceback: print(kind, traceback.tb_frame.f_code.co_name)
        raise ValueError
    if how == "exit":
        sys.exit(5)
    if how == "say":
        sys.exit("a text")

if __name__ == "__main__":
    fail(sys.argv[-1])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where programs are run; `counting` in it is for `PYTHONPATH`."""
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "sitecustomize.py").write_text(COUNTING)
    return tmp_path


def ran(folder: Path, *arguments: str | Path, stdin: str | None = None) -> tuple[int, str, str]:
    """Run Python with these arguments: exit code, stdout and stderr, without addresses."""
    sources = Path(dropkit.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{folder / 'counting'}{os.pathsep}{sources}"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    return done.returncode, *(re.sub("0x[0-9a-f]+", "0x", text) for text in (done.stdout, done.stderr))


def both(folder: Path, *arguments: str | Path, stdin: str | None = None) -> list[tuple[int, str, str]]:
    """The results of the program under `python` and under `dropkit run`."""
    return [ran(folder, *start, *arguments, stdin=stdin) for start in ([], ["-m", "dropkit", "run"])]


@pytest.mark.parametrize(
    "form",
    [
        ["folder/script.py"],
        ["./folder/script.py"],
        ["link.py"],
        ["-m", "package.module"],
        ["-m", "package"],
        ["-"],
        ["package"],
        ["app.pyz"],
    ],
    ids=" ".join,
)
def test_a_program_sees_what_it_would_under_python(form, folder: Path):
    """Names, sys.argv, sys.path and tracebacks are Python's, however the program is given."""
    for name in ("folder", "package"):
        (folder / name).mkdir()
    for name in ("folder/script.py", "package/__main__.py", "package/module.py"):
        (folder / name).write_text(PROGRAM)
    (folder / "package" / "__init__.py").touch()
    (folder / "link.py").symlink_to(folder / "folder" / "script.py")
    zipapp.create_archive(folder / "package", folder / "app.pyz")

    plain, ours = both(folder, *form, "--help", "-m", "raise", stdin=PROGRAM)

    assert ours == plain
    assert plain[0] == 1
    assert "from the program" in plain[2]
    assert "__main__" in plain[1]


@pytest.mark.parametrize("how", ["interrupt", "pickle", "hook", "exit", "say"])
def test_a_program_ends_as_it_would_under_python(how, folder: Path):
    """Exit codes, interrupts and a hook of its own are the program's."""
    (folder / "script.py").write_text(PROGRAM)

    plain, ours = both(folder, "script.py", how)

    assert ours == plain


def test_a_program_that_does_not_compile_shows_its_own_error(folder: Path):
    """The traceback of a SyntaxError has no frames of dropkit."""
    (folder / "wrong.py").write_text("x = = 1\n")

    plain, ours = both(folder, "wrong.py")

    assert ours == plain


@pytest.mark.parametrize(
    ("arguments", "code"), [(["nowhere.py"], 2), (["-m", "no.module"], 1)], ids=["script", "module"]
)
def test_a_program_that_is_not_there_is_named(arguments, code, folder: Path):
    """The error names the program, and the exit code is Python's."""
    plain, ours = both(folder, *arguments)

    assert plain[0] == ours[0] == code
    assert arguments[-1] in ours[2]


CHILDREN = """
import multiprocessing, subprocess, sys

def child(method=None):
    print(multiprocessing.current_process().name, sys.installs, flush=True)
    if method:
        started(method, "grandchild")

def started(method, name, *arguments):
    process = multiprocessing.get_context(method).Process(target=child, name=name, args=arguments)
    process.start()
    process.join()

if __name__ == "__main__":
    started("fork", "fork")
    started("spawn", "spawn", "forkserver")
    started("forkserver", "forkserver")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", "import sys; print('another', sys.installs)"])
"""


@pytest.mark.parametrize("form", [["script.py"], ["-m", "script"]], ids=["script", "module"])
def test_child_processes_are_reached_and_other_pythons_reported(form, folder: Path):
    """Child processes of every start method, and their children; another Python is reported once."""
    (folder / "script.py").write_text(CHILDREN)

    code, stdout, stderr = ran(folder, "-m", "dropkit", "run", *form)

    assert code == 0, stderr
    assert stdout.splitlines() == ["fork 1", "spawn 1", "grandchild 1", "forkserver 1", "another 0", "another 0"]
    assert stderr.count("the program starts another Python") == stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "reported"),
    [
        ("[sys.executable, 'train.py']", True),
        ("'python3 train.py', shell=True", True),
        ("['env', 'A=1', 'python', 'x.py']", True),
        ("'cd .; A=1 python3 train.py > log', shell=True", True),
        ("[sys.executable, '-m', 'dropkit', 'run', 'train.py']", False),
        ("[sys.executable, '--version']", False),
        ("['cc', '-I/usr/include/python3']", False),
        ("['ls', '/usr/bin/python3']", False),
        ("'python \\'', shell=True", False),
        ("[]", False),
        ("[1]", False),
    ],
)
def test_only_pythons_that_run_a_program_are_reported(command, reported, folder: Path):
    """Compilers that read Python's headers and `python --version` are not reported."""
    (folder / "script.py").write_text(
        "import contextlib, subprocess, sys\n"
        "with contextlib.suppress(OSError, TypeError, IndexError):\n"
        f"    subprocess.run({command}, capture_output=True)\n"
    )

    _, _, stderr = ran(folder, "-m", "dropkit", "run", "script.py")

    assert ("the program starts another Python" in stderr) == reported


LOADER = """
import sys
import torch
from torch.utils.data import DataLoader

def kind(batch=None):
    output = torch.nn.functional.dropout(torch.ones(3, requires_grad=True))
    return output.grad_fn.name()

if __name__ == "__main__":
    print(sys.argv[1:], kind())
    print(*DataLoader([0], num_workers=1, multiprocessing_context="spawn", collate_fn=kind))
"""


@pytest.mark.parametrize(
    "start",
    [[], pytest.param(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"], marks=pytest.mark.slow)],
    ids=["dropkit run", "torchrun"],
)
def test_dropout_runs_on_dropkit_in_workers_too(start, tmp_path: Path):
    """Dropout runs on dropkit in the program, alone or under torchrun, and in the workers of a DataLoader."""
    (tmp_path / "script.py").write_text(LOADER)
    command = [sys.executable, *start, "-m", "dropkit", "run", "script.py", "--epochs"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == ["['--epochs'] _DropPlainBackward", "_DropPlainBackward"], done.stderr
