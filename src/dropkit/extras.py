"""Optional packages: an import error that says how to install what is missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

# What packages are called where they are installed from.
_NAMES = {"sklearn": "scikit-learn"}


@contextmanager
def needed_for(what: str, extra: str = "mc") -> Generator[None]:
    """Say in an import error inside the block what needs the package, and the command that installs it.

    Raises:
        ImportError: '<what> needs <package>: pip install "dropkit[<extra>]"'.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise ImportError(
            f'{what} needs {_NAMES.get(package, package)}: pip install "dropkit[{extra}]"', name=error.name
        ) from error
