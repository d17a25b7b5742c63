"""How the options of `dropkit check` combine, with each other and with the settings of the project.

`cli/check.py` declares the options, `lint/engine/config.py` the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dropkit.cli.options import wants_color
from dropkit.diagnostics import Severity
from dropkit.lint.engine.cache import user_folder
from dropkit.lint.engine.config import Config

# --diff shows what --fix does; of all other tasks only one can be done.
_TASKS = ("fix", "diff", "add_noqa", "write_baseline", "show_files", "watch")
# Options of reports, and the tasks that print no report.
_REPORT_OPTIONS = ("output_file", "statistics")
_WITHOUT_REPORT = ("diff", "add_noqa", "write_baseline", "show_files")


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options, as `dropkit check` uses them: `config` joins the project's settings and the command line's."""

    paths: tuple[str, ...]
    config: Config
    fix: bool
    unsafe: bool
    diff: bool
    output_format: str
    statistics: bool
    cache: Path | None
    jobs: int | None
    baseline: Path | None
    output_file: str | None
    exit_zero: bool
    color: bool

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> CheckOptions:
        """Read the options that click passes.

        Raises:
            BadConfig: a setting of the project, or a code, is invalid.
        """
        paths = given["paths"] or (".",)
        config = _config(given, paths[0])
        # A cache in the project could contain results that the project wrote itself.
        folder = Path(given["cache_dir"]) if given["cache_dir"] else user_folder(config.root)
        writes_plain_file = given["color"] == "auto" and given["output_file"] is not None
        return cls(
            paths=tuple(paths),
            config=config,
            fix=given["fix"],
            unsafe=given["unsafe_fixes"],
            diff=given["diff"],
            output_format=given["output_format"],
            statistics=given["statistics"],
            cache=None if given["no_cache"] else folder,
            jobs=given["jobs"],
            baseline=Path(given["baseline_file"]) if given["baseline_file"] else None,
            output_file=given["output_file"],
            exit_zero=given["exit_zero"],
            color=not writes_plain_file and wants_color(given["color"]),
        )


def _config(given: Mapping[str, Any], path: str) -> Config:
    start = Path(given["stdin_filename"] or (path if path != "-" else "."))
    config = Config.read(Path(given["config_file"])) if given["config_file"] else Config.load(start)
    config = config.with_options(
        select=given["select"],
        extend_select=given["extend_select"],
        ignore=None if given["ignore"] is None else (*config.ignore, *given["ignore"]),
        preview=given["preview"],
        severity=None if given["severity"] is None else Severity(given["severity"]),
        exclude=None if given["exclude"] is None else (*config.exclude, *given["exclude"]),
        respect_noqa=False if given["ignore_noqa"] else None,
        allow_unread=given["allow_unread"],
    )
    _ = config.rules  # raises for an unknown code, before any file is read
    return config


def must_be_compatible(given: Mapping[str, Any], from_stdin: bool) -> None:
    """Check that no option would be ignored because of another one, before any file is read.

    Raises:
        click.UsageError: one would be.
    """
    tasks = [name for name in _TASKS if given[name]]
    report_options = [name for name in _REPORT_OPTIONS if given[name]]
    if len(tasks) > 1 and tasks != ["fix", "diff"]:
        raise click.UsageError(f"{_option(tasks[0])} and {_option(tasks[1])} must not be given together")
    for task in tasks:
        if from_stdin and task not in ("fix", "diff"):
            raise click.UsageError(f"{_option(task)} must be given files or folders, got standard input")
        if report_options and (task in _WITHOUT_REPORT or from_stdin):
            where = " of standard input" if from_stdin else ""
            raise click.UsageError(f"{_option(report_options[0])} must not be given with {_option(task)}{where}")
    if given["stdin_filename"] and not from_stdin:
        raise click.UsageError("--stdin-filename must be given with standard input (-), got other paths")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
