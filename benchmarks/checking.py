"""How long does `dropkit check` take, against parsing the same files, and against ruff's rules?"""

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
    case = f"torch's own sources, {len(files)} files"
    one = str(TREE / "nn" / "modules" / "dropout.py")
    with tempfile.TemporaryDirectory() as cache:
        keep = ["--cache-dir", cache]
        run(*keep, str(TREE))
        return [
            relative(f"{case}; against ast.parse in one process", cold, lambda: parse(files), "<= 1", runs=3),
            relative(f"{case}; against ruff --select ALL", cold, ruff, runs=3),
            relative(f"{case}, nothing changed; against the first time", lambda: run(*keep, str(TREE)), cold,
                     "<= 0.25", runs=3),
            relative("one file; against starting Python", lambda: run("--no-cache", one), python, runs=9),
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
