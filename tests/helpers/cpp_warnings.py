"""Compile csrc with warnings as errors: by this machine's compiler, and by Clang for every system that has wheels.

Clang and the systems' headers come in the wheel `ziglang`. Python's header is that of this Python, whose `pyconfig.h`
is replaced for Windows by the sizes that the limited API needs.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Only the syntax: optimisation is for the build.
FLAGS = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
# Clang's names of the targets, and zig's folders of their headers.
TARGETS = {
    "arm64-apple-macosx11": ["any-darwin-any"],
    "x86_64-apple-macosx11": ["any-darwin-any"],
    "x86_64-windows-gnu": ["any-windows-any"],
    "aarch64-linux-gnu": ["aarch64-linux-gnu", "generic-glibc", "any-linux-any"],
}
# libc++ has no configuration of its own there; these are what zig passes.
LIBCXX = {
    "ABI_VERSION": "1",
    "ABI_NAMESPACE": "__1",
    "HAS_THREADS": "1",
    "HAS_MONOTONIC_CLOCK": "1",
    "HAS_TERMINAL": "1",
    "HAS_MUSL_LIBC": "0",
    "HAS_FILESYSTEM": "1",
    "HAS_RANDOM_DEVICE": "1",
    "HAS_LOCALIZATION": "1",
    "HAS_UNICODE": "1",
    "HAS_WIDE_CHARACTERS": "1",
    "HAS_VENDOR_AVAILABILITY_ANNOTATIONS": "0",
    "PSTL_BACKEND_SERIAL": "1",
    "HARDENING_MODE": "_LIBCPP_HARDENING_MODE_NONE",
    "ASSERTION_SEMANTIC_DEFAULT": "_LIBCPP_ASSERTION_SEMANTIC_IGNORE",
}
WINDOWS_PYCONFIG = """
#define MS_WINDOWS
#define MS_WIN64
#define HAVE_DECLSPEC_DLL
#define Py_NO_ENABLE_SHARED
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_HKEY 8
#define ALIGNOF_MAX_ALIGN_T 8
"""


def windows_headers(folder: Path) -> Path:
    """Python's headers in `folder`, with the configuration of Windows."""
    for header in Path(sysconfig.get_path("include")).iterdir():
        (folder / header.name).symlink_to(header)
    (folder / "pyconfig.h").unlink()
    (folder / "pyconfig.h").write_text(WINDOWS_PYCONFIG)
    return folder


def commands(folder: Path) -> dict[str, list[str]]:
    """The compilers that are installed, by what they compile for."""
    python = Path(sysconfig.get_path("include"))
    found = {
        name: [path, f"-I{python}"]
        for name in (os.environ.get("CXX", "c++"), "aarch64-linux-gnu-g++")
        if (path := shutil.which(name))
    }
    wheel = importlib.util.find_spec("ziglang")
    if wheel is None or wheel.origin is None:
        print("ziglang is not installed: no compilation for other systems")
        return found
    zig = Path(wheel.origin).parent
    headers = [zig / "lib" / "libcxx" / "include", zig / "lib" / "libcxxabi" / "include", zig / "lib" / "include"]
    common = [str(zig / "zig"), "clang", "-nostdinc", "-nostdinc++"]
    common += [f"-D_LIBCPP_{name}={value}" for name, value in LIBCXX.items()]
    common += ["-D_LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS"]
    windows = windows_headers(folder)
    for target, folders in TARGETS.items():
        paths = [*headers, *(zig / "lib" / "libc" / "include" / name for name in folders)]
        include = windows if "windows" in target else python
        found[target] = [*common, f"--target={target}", *(f"-isystem{path}" for path in paths), f"-isystem{include}"]
    return found


def main() -> int:
    sources = [*sorted(ROOT.glob("csrc/*.cpp")), ROOT / "tests" / "helpers" / "emulate.cpp"]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as threads:
        compilers = commands(Path(folder))
        calls = [[*command, *FLAGS, f"-I{ROOT / 'csrc'}", *sources] for command in compilers.values()]
        codes = threads.map(lambda call: subprocess.run(call, check=False).returncode, calls)
        failed = [name for name, code in zip(compilers, codes, strict=True) if code]
    print(f"{len(sources)} C++ files, {', '.join(compilers)}: warnings or errors: {', '.join(failed) or 'none'}")
    return 1 if failed or not compilers else 0


if __name__ == "__main__":
    sys.exit(main())
