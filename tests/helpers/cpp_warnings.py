"""Compile csrc with warnings as errors, for this processor and, if there is a cross compiler, for Arm."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Only the syntax: with optimisation, GCC 12 warns of its own AVX-512 headers (GCC bug 105593).
FLAGS = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]


def main() -> int:
    includes = [f"-I{sysconfig.get_path('include')}", f"-I{ROOT / 'csrc'}"]
    compilers = [name for name in (os.environ.get("CXX", "c++"), "aarch64-linux-gnu-g++") if shutil.which(name)]
    sources = [*sorted(ROOT.glob("csrc/*.cpp")), ROOT / "tests" / "helpers" / "emulate.cpp"]
    failed = 0
    for compiler in compilers:
        for source in sources:
            failed += subprocess.run([compiler, *FLAGS, *includes, source], check=False).returncode != 0
    print(f"{len(sources)} C++ files, {', '.join(compilers)}: {failed or 'no'} warnings or errors")
    return 1 if failed or not compilers else 0


if __name__ == "__main__":
    sys.exit(main())
