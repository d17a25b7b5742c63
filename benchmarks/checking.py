"""How long does `dropkit check` take?

It is run on PyTorch's own sources, and compared with parsing the same files by `ast.parse`, with all rules of ruff, and
with a second run that finds its cache. The ratio is dropkit's time as a multiple of the other's: lower is better.
"""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from side_by_side import Row, relative

TREE = Path(torch.__file__).parent


def rows() -> list[Row]:
    files = sorted(TREE.rglob("*.py"))
    case = f"PyTorch's sources, {len(files)} files"
    file = str(TREE / "nn" / "modules" / "dropout.py")
    with tempfile.TemporaryDirectory() as cache:
        cached = ["--cache-dir", cache]
        run(*cached, str(TREE))
        return [
            relative(f"{case}; ast.parse in one process", cold, lambda: parse(files), "<= 1", runs=3),
            relative(f"{case}; ruff --select ALL", cold, ruff, runs=3),
            relative(f"{case}, nothing changed; the first run", lambda: run(*cached, str(TREE)), cold,
                     "<= 0.25", runs=3),
            relative("one file; python -c pass", lambda: run("--no-cache", file), python, runs=9),
        ]  # fmt: skip


def run(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dropkit", "check", "--exit-zero", *arguments], check=True, capture_output=True
    )


def cold() -> None:
    run("--no-cache", str(TREE))


def ruff() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--select", "ALL"]
    subprocess.run([*command, "--quiet", str(TREE)], check=False, capture_output=True)


def python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def parse(files: list[Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            with contextlib.suppress(SyntaxError, ValueError):
                ast.parse(file.read_bytes())
