"""`dropkit check`: find and mend dropout misuse in source code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import click

from dropkit import files
from dropkit.cli import edits
from dropkit.cli.options import counted, is_terminal, must_go_together, named, split, wants_color
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine import baseline
from dropkit.lint.engine.cache import user_folder
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.discovery import excludes, search
from dropkit.lint.engine.project import check_paths, check_source, mended
from dropkit.lint.engine.result import UNREAD, Outcome
from dropkit.lint.formats import FORMATS
from dropkit.lint.formats.escape import seen
from dropkit.report.progress import Progress

_CLEAN, _FOUND, _FAILED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Options:
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


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--fix", is_flag=True, help="Mend what can be mended safely.")
@click.option("--unsafe-fixes", is_flag=True, help="With --fix or --diff: also fixes that may change more than meant.")
@click.option("--diff", is_flag=True, help="Show what --fix would change, and change nothing.")
@click.option("--select", multiple=True, callback=split, metavar="CODES", help="Run these rules only: DRP101,DRP2,ALL.")
@click.option("--extend-select", multiple=True, callback=split, metavar="CODES", help="Run these rules too.")
@click.option("--ignore", multiple=True, callback=split, metavar="CODES", help="Do not run these rules.")
@click.option("--preview/--no-preview", default=None, help="Run the rules that are still on trial, too.")
@click.option("--severity", type=click.Choice(["error", "warning", "info"]), help="The least severity shown.")
@click.option(
    "--exclude", multiple=True, callback=split, metavar="PATTERNS", help="Leave these files and folders out, too."
)
@click.option("--output-format", "-f", type=click.Choice(list(FORMATS)), default="full", show_default=True)
@click.option(
    "--output-file", "-o", type=click.Path(dir_okay=False), callback=named, help="Write there, not to standard output."
)
@click.option("--statistics", is_flag=True, help="Show how often each rule was broken, not where.")
@click.option("--add-noqa", is_flag=True, help="Silence every finding by a comment on its line.")
@click.option(
    "--marker",
    type=click.Choice(["noqa", "dropkit"]),
    default="noqa",
    show_default=True,
    help="The comment of --add-noqa: `# noqa: CODE` or `# dropkit: ignore[CODE]`.",
)
@click.option(
    "--baseline",
    "baseline_file",
    type=click.Path(dir_okay=False),
    callback=named,
    help="Show only what is not in this file.",
)
@click.option(
    "--write-baseline", type=click.Path(dir_okay=False), callback=named, help="Write all findings to this file."
)
@click.option("--watch", is_flag=True, help="Check again whenever a file changes.")
@click.option("--ignore-noqa", is_flag=True, help="Show silenced findings, too.")
@click.option("--stdin-filename", metavar="PATH", callback=named, help="The name of what comes from standard input.")
@click.option(
    "--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="Read settings from this file."
)
@click.option("--show-files", is_flag=True, help="List the files that would be checked.")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    callback=named,
    help="Where to keep results.  [default: ~/.cache/dropkit]",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes.  [default: as many as processors]")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever is found, and whatever could not be read.")
@click.option(
    "--allow-unread/--no-allow-unread", default=None, help="Name what could not be read, and do not exit with 2 for it."
)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
def command(**given: Any) -> int | Callable[[], None]:
    """Find dropout that does not do what it seems to, in Python files and notebooks below PATHS (here, if none).

    A dash for PATHS reads standard input. Nothing that is checked is imported or run.

    Exit code: 0 nothing found but information (or all of it fixed), 1 something found, 2 the check, or a part of it,
    could not be done: what was not read is not clean.
    """
    return _attempt(lambda: _run(given))


def _run(given: dict[str, Any]) -> int:
    from_stdin = given["paths"] == ("-",) or bool(given["stdin_filename"] and not given["paths"])
    must_go_together(given, from_stdin)
    _must_be_open("input", sys.stdin, from_stdin)
    _must_be_open("output", sys.stdout, given["output_file"] is None)
    options = _options(given)
    if given["show_files"]:
        return _show_files(options)
    if from_stdin:
        return _check_stdin(given["stdin_filename"], options)
    if given["watch"]:
        from dropkit.lint.engine.watch import watch

        # What cannot be done now may be done after the next change.
        watch(options.paths, options.config, lambda: _attempt(lambda: _report(_checked(options), options)))
        return _CLEAN
    return _check_files(options, given)


def _must_be_open(name: str, stream: TextIO | None, needed: bool) -> None:
    """Said before the work is done that would be lost. Python has no stream where the shell closed it."""
    if needed and stream is None:
        raise OSError(f"standard {name} is closed")


def _attempt(check: Callable[[], int]) -> int:
    """The exit code of `check`; of one that meets what it cannot go on with, the reason on standard error, and 2."""
    try:
        return check()
    except BrokenPipeError:
        raise  # a reader that has enough, such as head
    except OSError as error:
        # Of the system's errors, those without a name are about where the report goes.
        where = "" if error.errno is None else f"{error.filename or 'standard output'}: "
        return _fail(where + files.reason(error))
    except BadConfig as error:
        return _fail(str(error))


def _fail(why: str) -> int:
    click.echo(f"Error: {seen(why)}", err=True)
    return _FAILED


def _options(given: dict[str, Any]) -> _Options:
    paths = given["paths"] or (".",)
    start = Path(given["stdin_filename"] or (paths[0] if paths[0] != "-" else "."))
    config = Config.read(Path(given["config_file"])) if given["config_file"] else Config.load(start)
    config = config.with_options(
        select=given["select"],
        extend_select=given["extend_select"],
        ignore=None if given["ignore"] is None else (*config.ignore, *given["ignore"]),
        preview=given["preview"],
        severity=None if given["severity"] is None else type(config.severity)(given["severity"]),
        exclude=None if given["exclude"] is None else (*config.exclude, *given["exclude"]),
        respect_noqa=False if given["ignore_noqa"] else None,
        allow_unread=given["allow_unread"],
    )
    _ = config.rules  # a code that is not one is said before any file is read
    # Not below the project, and not where its settings say: it could bring results of its own.
    folder = Path(given["cache_dir"]) if given["cache_dir"] else user_folder(config.root)
    cache = None if given["no_cache"] else folder
    into_file = given["color"] == "auto" and given["output_file"] is not None
    color = not into_file and wants_color(given["color"])
    known = Path(given["baseline_file"]) if given["baseline_file"] else None
    return _Options(
        tuple(paths), config, given["fix"], given["unsafe_fixes"], given["diff"], given["output_format"],
        given["statistics"], cache, given["jobs"], known, given["output_file"], given["exit_zero"], color,
    )  # fmt: skip


def _checked(options: _Options) -> Outcome:
    with Progress("checking") as bar:
        outcome = check_paths(options.paths, options.config, options.cache, options.jobs, bar.update)
    return _new(outcome, options)


def _new(outcome: Outcome, options: _Options) -> Outcome:
    """`outcome` without the findings that the baseline holds."""
    if options.baseline is None:
        return outcome
    return replace(outcome, findings=baseline.new(options.baseline, outcome, options.config.root))


def _show_files(options: _Options) -> int:
    found = search(options.paths, options.config)
    if is_terminal(sys.stdout):
        click.echo("".join(f"{seen(path)}\n" for path in found.files), nl=False)
    else:
        # Whoever opens them needs the names as they are.
        click.echo(b"".join(os.fsencode(path) + b"\n" for path in found.files), nl=False)
    return _end(Outcome(notes=tuple(found.notes), warnings=tuple(found.warnings)), options)


def _check_files(options: _Options, given: dict[str, Any]) -> int:
    if given["write_baseline"]:
        # All of them: what an earlier baseline holds would otherwise be missing in the next.
        outcome = _checked(replace(options, baseline=None))
        count = baseline.write(Path(given["write_baseline"]), outcome, options.config.root)
        click.echo(f"Wrote {counted(count, 'finding')} to {seen(given['write_baseline'])}.")
        return _end(replace(outcome, findings=()), options)
    outcome = _checked(options)
    if given["add_noqa"]:
        silenced, notes = edits.silence(outcome, given["marker"])
        click.echo(f"Silenced {counted(silenced, 'finding')}.")
        return _end(replace(outcome, findings=(), notes=(*outcome.notes, *notes)), options)
    if options.fix or options.diff:
        done, notes = edits.apply_fixes(outcome, options.config, options.unsafe, options.diff)
        if done and not options.diff:
            outcome = _checked(options)
        outcome = replace(outcome, mended=tuple(done), notes=(*outcome.notes, *notes))
        if options.diff:
            return _end(replace(outcome, findings=outcome.mended), options)
    return _report(outcome, options)


def _check_stdin(name: str | None, options: _Options) -> int:
    path, data = name or "-", sys.stdin.buffer.read()
    left_out = name is not None and excludes(name, options.config)
    outcome = Outcome() if left_out else _new(check_source(path, data, options.config), options)
    if options.fix or options.diff:
        fixed, done = data, list[Diagnostic]()
        if outcome.findings:
            try:
                fixed, done = mended(data, outcome.findings, options.config, options.unsafe)
            except Exception as error:  # what is there is left as it is, whatever the reason
                outcome = replace(outcome, notes=(*outcome.notes, edits.unfixed(path, error)))
        if options.diff:
            edits.print_diff(path, data, fixed)
            return _end(replace(outcome, findings=tuple(done)), options)
        click.echo(fixed, nl=False)
        if done:
            outcome = replace(_new(check_source(path, fixed, options.config), options), notes=outcome.notes)
        return _end(outcome, options)
    return _report(outcome, options)


def _report(outcome: Outcome, options: _Options) -> int:
    text = (
        _statistics(outcome, options) if options.statistics else FORMATS[options.output_format](outcome, options.color)
    )
    if options.output_file is not None:
        files.write(options.output_file, text.encode())
    else:
        click.echo(text, nl=not text.endswith("\n") and bool(text), color=options.color)
    _warn(outcome.warnings)
    return _exit_code(outcome, options)


def _end(outcome: Outcome, options: _Options) -> int:
    """Say on standard error what could not be done, where no report does; the exit code."""
    _warn(outcome.warnings)
    for line in _notes(outcome):
        click.echo(line, err=True)
    return _exit_code(outcome, options)


def _notes(outcome: Outcome) -> Iterator[str]:
    return (f"{seen(note.path)}: {note.what}: {seen(note.message)}" for note in outcome.notes)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {seen(warning)}", err=True)


def _exit_code(outcome: Outcome, options: _Options) -> int:
    if options.exit_zero:
        return _CLEAN
    if any(note.what != UNREAD or not options.config.allow_unread for note in outcome.notes):
        return _FAILED
    return _FOUND if outcome.fails else _CLEAN


def _statistics(outcome: Outcome, options: _Options) -> str:
    import json
    from collections import Counter

    from dropkit.rules import RULES

    counts = Counter(finding.code for finding in outcome.findings)
    rows = [(counts[rule.code], rule.code, rule.name, rule.fix) for rule in RULES if counts[rule.code]]
    rows.sort(key=lambda row: -row[0])
    if options.output_format in ("json", "jsonl"):
        unread = Counter(note.what for note in outcome.notes)
        listed = [{"code": code, "name": name, "count": n} for n, code, name, _ in rows]
        listed += [{"code": None, "name": what.replace(" ", "-"), "count": n} for what, n in unread.items()]
        return json.dumps(listed, indent=2) + "\n"
    width = len(str(rows[0][0])) if rows else 1
    counted = "".join(f"{n:>{width}}  {code}  {name}{'  [fix]' if fix else ''}\n" for n, code, name, fix in rows)
    return counted + "".join(f"{line}\n" for line in _notes(outcome))
