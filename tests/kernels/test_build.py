"""Building without a C++ compiler: dropkit builds without the extension and warns, or fails if required to have it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("setuptools", "77", reason="older ones cannot read pyproject.toml")

FREE_THREADED = """
import sys, sysconfig
real = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else real(name)
exec(compile(open("setup.py").read(), "setup.py", "exec"))
"""


def built(folder: Path, required: str, *start: str) -> subprocess.CompletedProcess[str]:
    """A build of the extension into `folder` with a compiler that always fails."""
    command = [sys.executable, *start, "build_ext", "--build-lib", folder, "--build-temp", folder / "temp"]
    environment = {**os.environ, "CC": "false", "CXX": "false", "DROPKIT_REQUIRE_EXTENSION": required}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_failed_compiler_is_a_warning(tmp_path):
    """Without a C++ compiler the build succeeds, and says what is missing and how to require it."""
    done = built(tmp_path, "", "setup.py")

    assert done.returncode == 0, done.stderr
    assert "*** dropkit is built WITHOUT its C++ kernel: the C++ compiler failed or is missing" in done.stderr
    assert "DROPKIT_REQUIRE_EXTENSION=1" in done.stderr
    assert not list(tmp_path.rglob("_cpu*"))


def test_a_failed_compiler_is_an_error_where_the_extension_is_required(tmp_path):
    """With DROPKIT_REQUIRE_EXTENSION=1 the build fails without the extension."""
    assert built(tmp_path, "1", "setup.py").returncode != 0


@pytest.mark.parametrize(("required", "succeeds"), [("", True), ("1", False)])
def test_free_threaded_python_gets_no_extension(required, succeeds, tmp_path):
    """Free-threaded Python has no limited API, so the compiler is not called."""
    done = built(tmp_path, required, "-c", FREE_THREADED)

    assert (done.returncode == 0) == succeeds, done.stderr
    assert "free-threaded Python has no limited C API" in done.stderr
    assert "false" not in done.stdout


def test_a_pure_wheel_serves_every_platform(tmp_path):
    """With DROPKIT_PURE=1 the wheel is tagged for any Python and platform, and the compiler is not called."""
    command = [sys.executable, "setup.py", "build", "-b", tmp_path / "build", "egg_info", "-e", tmp_path]
    environment = {**os.environ, "CC": "false", "CXX": "false", "DROPKIT_REQUIRE_EXTENSION": "", "DROPKIT_PURE": "1"}

    command += ["bdist_wheel", "-d", tmp_path, "-b", tmp_path / "wheel"]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)

    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "dropkit/kernels/reference.py" in names
    assert not [name for name in names if "_cpu." in name and not name.endswith(".pyi")]


def test_a_pure_wheel_and_a_required_extension_contradict_each_other(monkeypatch, tmp_path):
    """DROPKIT_PURE=1 and DROPKIT_REQUIRE_EXTENSION=1 together are an error."""
    monkeypatch.setenv("DROPKIT_PURE", "1")

    done = built(tmp_path, "1", "setup.py")

    assert done.returncode != 0
    assert "DROPKIT_REQUIRE_EXTENSION must be unset where DROPKIT_PURE is set" in done.stderr
