"""dropkit: dropout for PyTorch.

`dropkit.nn` and `dropkit.functional` hold the layers, `dropkit.random` the keys, `dropkit.mc` Monte Carlo dropout,
`dropkit.shard` masks across processes, `dropkit.schedules` rates that move over training, `dropkit.studies` what
`study` and `tune` are made of: both train models with and without dropout, and say which to use.
`install` and `convert` bring the layers into programs that were written for torch; `retrofit` puts dropout into a model
that has none; `audit` shows every dropout of a
running model. Everything loads at its first use: `import dropkit` imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dropkit.extras import needed_for
from dropkit.public_names import public_names

if TYPE_CHECKING:
    from dropkit import functional, mc, nn, random, schedules, shard, studies, testing
    from dropkit.auditor.audit import audit
    from dropkit.patch.convert import convert
    from dropkit.patch.install import install, installed, uninstall
    from dropkit.patch.retrofit import retrofit
    from dropkit.studies.study import study
    from dropkit.studies.tuning import tune

    __version__: str

_SUBMODULES = ("functional", "mc", "nn", "random", "schedules", "shard", "studies", "testing")
_NAMES = {
    "audit": "dropkit.auditor.audit",
    "convert": "dropkit.patch.convert",
    "install": "dropkit.patch.install",
    "installed": "dropkit.patch.install",
    "retrofit": "dropkit.patch.retrofit",
    "study": "dropkit.studies.study",
    "tune": "dropkit.studies.tuning",
    "uninstall": "dropkit.patch.install",
}

__all__ = [
    "__version__",
    "audit",
    "convert",
    "functional",
    "install",
    "installed",
    "mc",
    "nn",
    "random",
    "retrofit",
    "schedules",
    "shard",
    "studies",
    "study",
    "testing",
    "tune",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    with needed_for(f"dropkit.{name}", "torch", only="torch"):
        if name in _SUBMODULES:
            return importlib.import_module(f"dropkit.{name}")
        if name in _NAMES:
            return getattr(importlib.import_module(_NAMES[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dropkit")
    raise AttributeError(f"module 'dropkit' has no attribute {name!r}{_place_of(name)}")


def _place_of(name: str) -> str:
    """Say for an error message which public module has the name, as dropkit.nn has Dropout. None is imported."""
    for module, file in (("nn", "nn/__init__.py"), ("functional", "functional.py"), ("mc", "mc/__init__.py")):
        source = (importlib.import_module("pkgutil").get_data("dropkit", file) or b"").decode()
        if f" as {name}\n" in source or f'    "{name}",\n' in source:
            return f"; it is dropkit.{module}.{name}"
    return ""


def __dir__() -> list[str]:
    return public_names(globals())
