"""`dropkit check`: find and mend dropout misuse in source code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from dropkit.check import baseline
from dropkit.check.config import BadConfig, Config
from dropkit.check.discover import discover
from dropkit.check.formats import FORMATS
from dropkit.check.outcome import Outcome
from dropkit.check.project import check_paths, check_source, mended
from dropkit.cli.options import split, wants_color
from dropkit.facts.finding import Finding

_CLEAN, _FOUND, _FAILED = 0, 1, 2
# Seconds without a word before progress is shown.
_PATIENCE = 1.0


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
@click.option("--output-file", "-o", type=click.Path(dir_okay=False), help="Write there, not to standard output.")
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
    "--baseline", "baseline_file", type=click.Path(dir_okay=False), help="Show only what is not in this file."
)
@click.option("--write-baseline", type=click.Path(dir_okay=False), help="Write all findings to this file.")
@click.option("--watch", is_flag=True, help="Check again whenever a file changes.")
@click.option("--ignore-noqa", is_flag=True, help="Show silenced findings, too.")
@click.option("--stdin-filename", metavar="PATH", help="The name of what comes from standard input.")
@click.option(
    "--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="Read settings from this file."
)
@click.option("--show-files", is_flag=True, help="List the files that would be checked.")
@click.option("--cache-dir", type=click.Path(file_okay=False), help="Where to keep results.  [default: .dropkit_cache]")
@click.option("--no-cache", is_flag=True, help="Keep nothing.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes.  [default: as many as processors]")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever is found.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
def command(**given: Any) -> int | Callable[[], None]:
    """Find dropout that does not do what it seems to, in Python files and notebooks below PATHS (here, if none).

    A dash for PATHS reads standard input. Nothing that is checked is imported or run.

    Exit code: 0 nothing found (or all of it mended), 1 something found, 2 the check could not be done.
    """
    try:
        options = _options(given)
        if given["show_files"]:
            click.echo("".join(f"{path}\n" for path in discover(options.paths, options.config)), nl=False)
            return _CLEAN
        if options.paths == ("-",) or (given["stdin_filename"] and not given["paths"]):
            return _check_stdin(given["stdin_filename"] or "-", options)
        if given["watch"]:
            from dropkit.check.watch import watch

            watch(options.paths, options.config, lambda: _report(_checked(options), options, None))
            return _CLEAN
        return _check_files(options, given)
    except (BadConfig, FileNotFoundError) as error:
        click.echo(f"Error: {error}", err=True)
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
    )
    _ = config.rules  # a code that is not one is said before any file is read
    cache = None if given["no_cache"] else Path(given["cache_dir"] or config.root / ".dropkit_cache")
    into_file = given["color"] == "auto" and given["output_file"] is not None
    color = not into_file and wants_color(given["color"])
    known = Path(given["baseline_file"]) if given["baseline_file"] else None
    return _Options(
        tuple(paths), config, given["fix"], given["unsafe_fixes"], given["diff"], given["output_format"],
        given["statistics"], cache, given["jobs"], known, given["exit_zero"], color,
    )  # fmt: skip


def _checked(options: _Options) -> Outcome:
    outcome = check_paths(options.paths, options.config, options.cache, options.jobs, _progress())
    if options.baseline is not None:
        outcome = replace(outcome, findings=baseline.new(options.baseline, outcome, options.config.root))
    return outcome


def _check_files(options: _Options, given: dict[str, Any]) -> int:
    outcome = _checked(options)
    if given["write_baseline"]:
        count = baseline.write(Path(given["write_baseline"]), outcome, options.config.root)
        click.echo(f"Wrote {count} findings to {given['write_baseline']}.")
        return _CLEAN
    if given["add_noqa"]:
        click.echo(f"Silenced {_silence(outcome, given['marker'])} findings.")
        return _CLEAN
    if options.fix or options.diff:
        outcome = _mend(outcome, options)
        if options.diff:
            return _CLEAN if not outcome.mended or options.exit_zero else _FOUND
    return _report(outcome, options, given["output_file"])


def _check_stdin(path: str, options: _Options) -> int:
    data = sys.stdin.buffer.read()
    outcome = check_source(path, data, options.config)
    if options.fix or options.diff:
        fixed, done = mended(data, outcome.findings, options.config, options.unsafe) if outcome.findings else (data, [])
        if options.diff:
            click.echo(_diff(path, data, fixed), nl=False)
            return _FOUND if done else _CLEAN
        sys.stdout.buffer.write(fixed)
        left = check_source(path, fixed, options.config)
        return _CLEAN if not left.findings or options.exit_zero else _FOUND
    return _report(outcome, options, None)


def _report(outcome: Outcome, options: _Options, output_file: str | None) -> int:
    text = (
        _statistics(outcome, options) if options.statistics else FORMATS[options.output_format](outcome, options.color)
    )
    if output_file is not None:
        Path(output_file).write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=not text.endswith("\n") and bool(text), color=options.color)
    return _CLEAN if not outcome.findings or options.exit_zero else _FOUND


def _mend(outcome: Outcome, options: _Options) -> Outcome:
    """Mend, or show what mending would change; what is left is checked again."""
    done: list[Finding] = []
    for path in dict.fromkeys(finding.path for finding in outcome.findings):
        mine = [finding for finding in outcome.findings if finding.path == path]
        if not any(one.fix is not None and (options.unsafe or one.fix.safe) for one in mine):
            continue
        data = Path(path).read_bytes()
        fixed, taken = mended(data, mine, options.config, options.unsafe)
        done += taken
        if options.diff:
            click.echo(_diff(path, data, fixed), nl=False)
        elif fixed != data:
            _write(Path(path), fixed)
    if options.diff or not done:
        return replace(outcome, mended=tuple(done))
    return replace(_checked(options), mended=tuple(done))


def _write(path: Path, data: bytes) -> None:
    """Replace the content of a file, or leave it whole: never half of it."""
    import os
    import shutil
    import tempfile

    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        shutil.copymode(target, name)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _diff(path: str, before: bytes, after: bytes) -> str:
    from difflib import unified_diff

    old, new = (data.decode("utf-8", "replace").splitlines(keepends=True) for data in (before, after))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in unified_diff(old, new, f"a/{path}", f"b/{path}")
    )


def _silence(outcome: Outcome, marker: str) -> int:
    from dropkit.check.file import decode
    from dropkit.facts.suppress import add_comments

    silenced = 0
    for path in dict.fromkeys(finding.path for finding in outcome.findings if finding.cell is None):
        text = decode(Path(path).read_bytes())
        mine = [finding for finding in outcome.findings if finding.path == path]
        after = add_comments(text, mine, marker)
        if after.utf8 != text.utf8:
            _write(Path(path), after.encode())
            silenced += len(mine)
    return silenced


def _statistics(outcome: Outcome, options: _Options) -> str:
    import json
    from collections import Counter

    from dropkit.rules import RULES

    counts = Counter(finding.code for finding in outcome.findings)
    rows = [(counts[rule.code], rule.code, rule.name, rule.fix) for rule in RULES if counts[rule.code]]
    rows.sort(key=lambda row: -row[0])
    if options.output_format in ("json", "jsonl"):
        return json.dumps([{"code": code, "name": name, "count": n} for n, code, name, _ in rows], indent=2) + "\n"
    width = len(str(rows[0][0])) if rows else 1
    return "".join(f"{n:>{width}}  {code}  {name}{'  [fix]' if fix else ''}\n" for n, code, name, fix in rows)


def _progress() -> Callable[[int, int], None] | None:
    """A line on the terminal once the check takes longer than a moment; nothing where errors are piped."""
    if not sys.stderr.isatty():
        return None
    begin = time.monotonic()

    def show(done: int, files: int) -> None:
        if time.monotonic() - begin > _PATIENCE:
            end = "\r\033[K" if done == files else ""
            click.echo(f"\rchecking {done} of {files} files{end}", nl=False, err=True)

    return show
