"""Open the storage that machines share: a journal file, a gRPC proxy or a database, each by Optuna.

Source: Akiba, Sano, Yanase, Ohta, Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019,
arXiv:1907.10902.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dropkit.arguments import check
from dropkit.extras import MissingPackage, needed_for

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

# How often, and after how many seconds each time, tables are looked for that another process makes.
_ATTEMPTS, _PAUSE = 10, 0.3

_WANTED = "journal:FILE, grpc://HOST:PORT or the URL of a database, such as postgresql://HOST/NAME"


def import_optuna() -> Any:
    """Return the module `optuna`.

    Raises:
        MissingPackage: it is not installed.
    """
    with needed_for("a search", "tune"):
        import optuna
    return optuna


@contextmanager
def quiet(optuna: Any) -> Generator[None]:
    """Have Optuna log warnings only; it logs each study and trial to standard error otherwise."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(url: str) -> BaseStorage:
    """Return the storage of a URL; a journal file is made if it does not exist.

    Args:
        url: `journal:FILE`, on a file system that all machines share; `grpc://HOST:PORT`, of a proxy that
            `optuna.storages.run_grpc_proxy_server` runs; or the URL of a database, in SQLAlchemy's form.

    Raises:
        ValueError: the URL is none of these.
        MissingPackage: a package that it needs is not installed.
        OSError: the storage cannot be reached.
    """
    optuna = import_optuna()
    kind, _, rest = url.partition(":")
    if kind == "journal":
        return _open_journal(rest)
    check("storage", "://" in url, _WANTED, repr(url))
    if kind == "grpc":
        return _open_grpc(optuna, url)
    return _open_database(optuna, url)


def _open_journal(file: str) -> BaseStorage:
    from dropkit.studies.journal import open_journal

    check("storage", bool(file), _WANTED, "journal: without a file")
    folder = Path(file).resolve().parent
    check("storage", folder.is_dir(), "a journal in a folder that exists", repr(file))
    return open_journal(file)


def _open_grpc(optuna: Any, url: str) -> BaseStorage:
    with needed_for("a storage of grpc://", "grpc"):
        import grpc  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport] (optional; used by Optuna)
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:  # of a port that is no number
        host, port = None, None
    check("storage", host is not None and port is not None, "grpc://HOST:PORT", repr(url))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=host, port=port)
    storage.wait_server_ready(timeout=30)
    return storage


def _open_database(optuna: Any, url: str) -> BaseStorage:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

    try:
        # This one caches finished trials.
        return optuna.storages.get_storage(_database(optuna, url))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError(f"storage must be {_WANTED}, got {url!r}") from error
    except OperationalError as error:
        raise OSError(f"the storage cannot be reached: {str(error.orig).strip()}") from error
    except ImportError as error:
        hint = ': pip install "psycopg[binary]"' if url.startswith("postgresql") else ""
        raise MissingPackage(f"the driver of the database must be installed{hint} ({error})") from error


def _database(optuna: Any, url: str) -> BaseStorage:
    """The database of a URL. Its first users make the tables; where they meet, those that come late try again."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError
    from sqlalchemy.pool import NullPool

    # Without a pool a worker has no connection while it trains: servers take few, and end those that are idle.
    database = partial(optuna.storages.RDBStorage, url, engine_kwargs={"poolclass": NullPool})
    for _ in range(_ATTEMPTS - 1):
        with suppress(IntegrityError, ProgrammingError):
            return database()
        time.sleep(_PAUSE)
    return database()
