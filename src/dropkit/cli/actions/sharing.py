"""What `dropkit study` and `dropkit tune` put into a storage for `dropkit worker`: options, and hashes of code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dropkit.cli.actions.model_loading import search_working_folder
from dropkit.cli.options import Failed
from dropkit.studies.shared_study import HEARTBEAT, SharedStudy, comparable
from dropkit.studies.trial_log import OtherStudy

# Options that say where trials run, not what they are.
_LOCAL = ("storage", "name", "workers", "tensorboard", "mlflow")


def share(command: str, options: Mapping[str, Any], specification: Mapping[str, Any], resume: bool) -> SharedStudy:
    """Put a study into the storage of --storage.

    Args:
        command: that makes the specification from the options.
        options: of the command.
        specification: as of `SharedStudy.create`.
        resume: whether finished trials are kept.

    Raises:
        Failed: the storage cannot be used.
        OtherStudy: it has another study of this name, or finished trials that must be resumed.
    """
    plain = {name: value for name, value in options.items() if name not in _LOCAL}
    work = {"command": command, "options": plain, "code": code(options["targets"])}
    digest = hashlib.sha256(json.dumps(comparable(specification), sort_keys=True).encode()).hexdigest()
    name = options["name"] or f"dropkit-{command}-{digest[:8]}"
    with storage_errors():
        return SharedStudy.create(options["storage"], name, specification, work, resume, HEARTBEAT)


def code(targets: Sequence[str]) -> dict[str, str]:
    """Return a hash of the file of each target."""
    found: dict[str, str] = {}
    for target in targets:
        source = target.rpartition(":")[0]
        if source.endswith(".py"):
            found[target] = _hash(Path(source))
        elif source:
            search_working_folder()
            spec = find_spec(source)
            found[target] = "" if spec is None or spec.origin is None else _hash(Path(spec.origin))
    return found


@contextmanager
def storage_errors() -> Generator[None]:
    """Report errors of a storage as errors of the command."""
    try:
        yield
    except OtherStudy:
        raise
    except (ValueError, OSError) as error:
        raise Failed(str(error)) from error


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
