"""`dropkit check`: find and fix dropout misuse in source code.

What only some options need is imported where it is used: a check of one file takes little longer than its imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import click

from dropkit import files
from dropkit.cli.check_options import CheckOptions, must_be_compatible
from dropkit.cli.check_report import fail, finish, report
from dropkit.cli.options import CLEAN, Command, codes_option, is_terminal, not_empty, split
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.config import BadConfig
from dropkit.lint.engine.discovery import excludes, search
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.engine.result import CheckResult
from dropkit.lint.formats import FORMATS
from dropkit.lint.formats.escape import printable
from dropkit.report.progress import Progress
from dropkit.report.units import counted


@click.command("check", cls=Command)
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--fix", is_flag=True, help="Apply safe fixes.")
@click.option("--unsafe-fixes", is_flag=True, help="With --fix or --diff: also apply unsafe fixes; review the changes.")
@click.option("--diff", is_flag=True, help="Show what --fix would change, without changing files.")
@codes_option("--select", help="Run only these rules: DRP101,DRP2,ALL.")
@codes_option("--extend-select", help="Run these rules in addition.")
@codes_option("--ignore", help="Skip these rules.")
@click.option("--preview/--no-preview", default=None, help="Also run preview rules.")
@click.option("--severity", type=click.Choice(["error", "warning", "info"]), help="Minimum severity to report.")
@click.option(
    "--exclude", multiple=True, callback=split, metavar="PATTERNS", help="Also exclude these files and folders."
)
@click.option(
    "--output-format",
    "-f",
    type=click.Choice(list(FORMATS)),
    default="full",
    show_default=True,
    help="Format of the report.",
)
@click.option(
    "--output-file", "-o", type=click.Path(dir_okay=False), callback=not_empty, help="Write the report to this file."
)
@click.option("--statistics", is_flag=True, help="Print the number of findings of each rule.")
@click.option("--add-noqa", is_flag=True, help="Silence all findings with a comment on their line.")
@click.option(
    "--marker",
    type=click.Choice(["noqa", "dropkit"]),
    default="noqa",
    show_default=True,
    help="Comment that --add-noqa writes: `# noqa: CODE` or `# dropkit: ignore[CODE]`.",
)
@click.option(
    "--baseline",
    "baseline_file",
    type=click.Path(dir_okay=False),
    callback=not_empty,
    help="Report only findings that are not in this file.",
)
@click.option(
    "--write-baseline",
    type=click.Path(dir_okay=False),
    callback=not_empty,
    help="Write all findings to this file, for --baseline.",
)
@click.option("--watch", is_flag=True, help="Check again whenever a file changes.")
@click.option("--ignore-noqa", is_flag=True, help="Report silenced findings, too.")
@click.option("--stdin-filename", metavar="PATH", callback=not_empty, help="File name of standard input.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help="Read settings from this pyproject.toml.",
)
@click.option("--show-files", is_flag=True, help="List the files that would be checked.")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    callback=not_empty,
    help="Folder of the cache.  [default: ~/.cache/dropkit]",
)
@click.option("--no-cache", is_flag=True, help="Use no cache.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Number of processes.  [default: number of processors]")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings or unreadable files.")
@click.option(
    "--allow-unread/--no-allow-unread",
    default=None,
    help="Do not exit with 2 for unreadable files; they are still listed.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="When to colour the report.",
)
def command(**given: Any) -> int | Callable[[], None]:
    """Find dropout bugs in the Python files and notebooks below PATHS, or below the working directory.

    \b
    dropkit check                   check all files below this folder
    dropkit check --diff src/       show what safe fixes would change
    dropkit check --fix src/        apply them
    dropkit check --ignore DRP202   leave out a rule; `dropkit explain` lists all

    If PATHS is a dash, standard input is checked. The checked code is neither imported nor run.

    Exit code: 0 if there are no findings above `info`, or all were fixed; 1 if there are; 2 if a file could not be
    read, or on any other error.
    """
    return _attempt(lambda: _run(given))


def _attempt(check: Callable[[], int]) -> int:
    """Run `check` and return its exit code; print system and configuration errors."""
    try:
        return check()
    except BrokenPipeError:
        raise  # the reader has seen enough, such as `head`
    except OSError as error:
        # System errors without a file name are about the report's destination.
        where = "" if error.errno is None else f"{error.filename or 'standard output'}: "
        return fail(where + files.reason(error))
    except BadConfig as error:
        return fail(str(error))


def _run(given: dict[str, Any]) -> int:
    from_stdin = given["paths"] == ("-",) or bool(given["stdin_filename"] and not given["paths"])
    must_be_compatible(given, from_stdin)
    _must_be_open("input", sys.stdin, from_stdin)
    _must_be_open("output", sys.stdout, given["output_file"] is None)
    options = CheckOptions.parse(given)
    if given["show_files"]:
        return _show_files(options)
    if from_stdin:
        return _check_stdin(given["stdin_filename"], options)
    if given["watch"]:
        return _watch(options)
    if given["write_baseline"]:
        return _write_baseline(given["write_baseline"], options)
    if given["add_noqa"]:
        return _add_noqa(given["marker"], options)
    return _fix_files(options) if options.fix or options.diff else report(_check(options), options)


def _must_be_open(name: str, stream: TextIO | None, needed: bool) -> None:
    """Fail before the check if a stream is needed that the shell has closed: Python sets it to None."""
    if needed and stream is None:
        raise OSError(f"standard {name} is closed")


def _check(options: CheckOptions) -> CheckResult:
    with Progress("checking") as bar:
        result = check_paths(options.paths, options.config, options.cache, options.jobs, bar.update)
    return _without_baseline(result, options)


def _without_baseline(result: CheckResult, options: CheckOptions) -> CheckResult:
    """Leave out the findings in the baseline."""
    if options.baseline is None:
        return result
    from dropkit.lint.engine import baseline

    return replace(result, findings=baseline.new_findings(options.baseline, result, options.config.root))


def _show_files(options: CheckOptions) -> int:
    searched = search(options.paths, options.config)
    if is_terminal(sys.stdout):
        click.echo("".join(f"{printable(path)}\n" for path in searched.files), nl=False)
    else:
        # Other programs need the exact names.
        click.echo(b"".join(os.fsencode(path) + b"\n" for path in searched.files), nl=False)
    return finish(CheckResult(notes=tuple(searched.notes), warnings=tuple(searched.warnings)), options)


def _watch(options: CheckOptions) -> int:
    from dropkit.lint.engine.watch import watch

    # An error ends one check only: the next change may repair it.
    watch(options.paths, options.config, lambda: _attempt(lambda: report(_check(options), options)))
    return CLEAN


def _write_baseline(path: str, options: CheckOptions) -> int:
    from dropkit.lint.engine import baseline

    # All findings, also those in an earlier baseline: they would otherwise be missing in the new one.
    result = _check(replace(options, baseline=None))
    count = baseline.write(Path(path), result, options.config.root)
    click.echo(f"Wrote {counted(count, 'finding')} to {printable(path)}.")
    return finish(replace(result, findings=()), options)


def _add_noqa(marker: str, options: CheckOptions) -> int:
    from dropkit.cli import edits

    result = _check(options)
    silenced, notes = edits.silence(result, marker)
    click.echo(f"Silenced {counted(silenced, 'finding')}.")
    return finish(replace(result, findings=(), notes=(*result.notes, *notes)), options)


def _fix_files(options: CheckOptions) -> int:
    from dropkit.cli import edits

    result = _check(options)
    fixed, notes = edits.apply_fixes(result, options.config, options.unsafe, options.diff)
    if fixed and not options.diff:
        result = _check(options)
    result = replace(result, fixed=tuple(fixed), notes=(*result.notes, *notes))
    if options.diff:
        return finish(replace(result, findings=result.fixed), options)
    return report(result, options)


def _check_stdin(name: str | None, options: CheckOptions) -> int:
    path, data = name or "-", sys.stdin.buffer.read()
    is_excluded = name is not None and excludes(name, options.config)
    result = CheckResult() if is_excluded else _without_baseline(check_source(path, data, options.config), options)
    if not options.fix and not options.diff:
        return report(result, options)
    from dropkit.cli import edits
    from dropkit.lint.engine.fixing import fix_bytes

    new, fixed = data, list[Diagnostic]()
    if result.findings:
        try:
            new, fixed = fix_bytes(data, result.findings, options.config, options.unsafe)
        except Exception as error:  # standard output then repeats the input
            result = replace(result, notes=(*result.notes, edits.unfixed(path, error)))
    if options.diff:
        edits.print_diff(path, data, new)
        return finish(replace(result, findings=tuple(fixed)), options)
    click.echo(new, nl=False)
    if fixed:
        result = replace(_without_baseline(check_source(path, new, options.config), options), notes=result.notes)
    return finish(result, options)
