"""Check many files, in several processes where that pays."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

from dropkit import files
from dropkit.lint.engine.cache import dump
from dropkit.lint.engine.check_file import check_bytes
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.result import FileResult, Note

# Starting processes costs more than it saves below this many files.
_MIN_FILES = 200
# Garbage is collected after this many bytes of source, so that memory stays small.
_COLLECT_AFTER = 5_000_000


def check_each(paths: list[str], config: Config, jobs: int | None) -> Iterator[tuple[str, bytes, list[Any]]]:
    """Yield path, content and result of each file, as they are done; the result as `cache.dump` writes it."""
    count = jobs if jobs is not None else (os.cpu_count() or 1)
    if count <= 1 or len(paths) < _MIN_FILES:
        _begin(config)
        try:
            yield from map(_check_file, paths)
        finally:
            gc.enable()
    else:
        yield from _in_processes(paths, config, count)


def _in_processes(paths: list[str], config: Config, count: int) -> Iterator[tuple[str, bytes, list[Any]]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # A forked process starts at once. Elsewhere threads or the system forbid it, and a new interpreter is started.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pending = dict.fromkeys(sorted(paths, key=_size, reverse=True))
    try:
        with ProcessPoolExecutor(count, context, _begin, (config,)) as pool:
            for result in pool.map(_check_file, list(pending), chunksize=8):
                del pending[result[0]]
                yield result
    except BrokenProcessPool:
        # A process died, for example of too little memory. Checking each file in its own process shows for which.
        for path in pending:
            with ProcessPoolExecutor(1, context, _begin, (config,)) as pool:
                try:
                    yield pool.submit(_check_file, path).result()
                except BrokenProcessPool:
                    yield path, b"", dump(FileResult(notes=(Note(path, "the process that read it died"),)))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def unread_result(path: str, error: OSError | MemoryError) -> FileResult:
    """The result of a file that could not be read."""
    why = files.reason(error) if isinstance(error, OSError) else "it does not fit in memory"
    return FileResult(notes=(Note(path, why),))


# The state of a process that checks files.
_config: Config
_bytes_since_collection = 0


def _begin(config: Config) -> None:
    global _config
    _config = config
    # While a syntax tree grows, the collector would visit it again and again.
    gc.disable()


def _check_file(path: str) -> tuple[str, bytes, list[Any]]:
    global _bytes_since_collection
    try:
        data = files.read(path)
    except (OSError, MemoryError) as error:
        return path, b"", dump(unread_result(path, error))
    result = dump(check_bytes(path, data, _config))
    _bytes_since_collection += len(data)
    if _bytes_since_collection > _COLLECT_AFTER:
        _bytes_since_collection = 0
        gc.collect()
    return path, data, result
