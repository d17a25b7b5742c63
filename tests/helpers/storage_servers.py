"""Servers of Optuna storages for tests, on loopback: PostgreSQL of Debian's package, and Optuna's gRPC proxy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _binaries() -> Path | None:
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.get_exec_path())]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def postgresql() -> Iterator[str]:
    """Start an empty cluster; give the URL of its database."""
    pytest.importorskip("psycopg", reason="the driver is missing: pip install 'psycopg[binary]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as the superuser, and cannot reach the folders of pytest.
    owner = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = tempfile.mkdtemp(prefix="dropkit-postgresql-")
    if owner:
        shutil.chown(folder, **owner)
    cluster, port = f"{folder}/cluster", free_port()
    options = f"-h 127.0.0.1 -p {port} -k {folder} -F"

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", cluster, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **owner)

    try:
        call("initdb", "-A", "trust", "-U", "postgres", "-N")
        call("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def grpc_proxy(url: str) -> Iterator[str]:
    """Start a proxy of a storage; give its URL."""
    pytest.importorskip("grpc", reason="grpcio is missing: pip install grpcio")
    from helpers.study_workers import serve, start

    port = free_port()
    server = start(serve, url, port)
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.join()
