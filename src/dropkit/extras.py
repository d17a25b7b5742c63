"""Optional packages: an import error that says how to install what is missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec

# What packages are called where they are installed from.
_NAMES = {"PIL": "pillow", "grpc": "grpcio", "lsprotocol": "pygls", "sklearn": "scikit-learn"}


class MissingPackage(ImportError):
    """An optional package is not installed; the message has the command that installs it."""


@contextmanager
def needed_for(what: str, extra: str | None = "mc", only: str | None = None) -> Generator[None]:
    """Say in an import error inside the block what needs the package, and the command that installs it.

    Args:
        what: needs the package.
        extra: of dropkit, that brings the package; None for a package that none brings.
        only: leave errors about other packages as they are.

    Raises:
        MissingPackage: '<what> needs <package>: pip install "dropkit[<extra>]"'.
    """
    try:
        yield
    except ImportError as error:
        if only not in (None, error.name):
            raise
        raise _missing(what, error.name or str(error), extra) from error


def must_be_installed(what: str, extra: str, *packages: str) -> None:
    """Check that packages are there, before the work whose result would be lost.

    Raises:
        MissingPackage: one is not; the message is that of `needed_for`.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(what, package, extra)


def _missing(what: str, module: str, extra: str | None) -> MissingPackage:
    package = module.partition(".")[0]
    name = _NAMES.get(package, package)
    installed = name if extra is None else f'"dropkit[{extra}]"'
    return MissingPackage(f"{what} needs {name}: pip install {installed}", name=module)
