"""Many files: each is examined by itself, in several processes where there are many, then findings ask the others.

Python files whose bytes hold no word that a rule looks for are not parsed. What a file gave is kept for the next run.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dropkit.diagnostics import Diagnostic, Edit
from dropkit.files import project, reason
from dropkit.files import read as read_bytes
from dropkit.lint.engine.cache import Cache, Record, dump, load
from dropkit.lint.engine.check_file import decode, mend, read, worth_reading
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.discovery import discover, search
from dropkit.lint.engine.examine import examine, was_read
from dropkit.lint.engine.notebook import Notebook
from dropkit.lint.engine.project_index import Account, Answers, account
from dropkit.lint.engine.result import Note, Outcome
from dropkit.lint.semantic.source_text import Text

# Below this many files starting processes costs more than they save.
_MANY = 200
# What is left in circles is collected after so many bytes of source, so that memory stays small.
_COLLECT_AFTER = 5_000_000
# Up to so many words a search for each is faster than to take a text apart.
_FEW = 32
# Fixes can make room for others; a file is done after so many rounds at the latest.
_ROUNDS = 10

Progress = Callable[[int, int], None]


def check_source(path: str, data: bytes, config: Config) -> Outcome:
    """Check one file whose content is at hand: an editor's buffer, standard input.

    Findings that only another file could refute stand.
    """
    record = examine(path, data, config)
    findings = _wanted(record.findings, config)
    return Outcome(findings, record.notes, int(was_read(record)), texts=_texts(findings, {path: data}))


def check_paths(
    paths: Sequence[str],
    config: Config,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Check files and folders. What cannot be read is noted, and the rest is checked.

    Args:
        paths: files, taken as they are, and folders, searched.
        config: what runs and where.
        cache: folder to keep results in; None keeps nothing.
        jobs: processes; as many as processors if None, and one where there are few files.
        progress: called with the files done and the files in all.

    Raises:
        FileNotFoundError: none of the paths exists.
    """
    found = search(paths, config)
    files = found.files
    kept = Cache(cache, repr((config, [rule.code for rule in config.rules])))
    records = _examine_all(files, config, kept, jobs, progress)
    findings = [one for path in files for one in records[path].findings]
    refuted = _refuted(findings, files, records, config, kept)
    kept.save()
    standing = _wanted([one for one in findings if one not in refuted], config)
    return Outcome(
        standing,
        (*found.notes, *(note for path in files for note in records[path].notes)),
        sum(map(was_read, records.values())),
        texts=_texts(standing, {}),
        warnings=(*found.warnings, *([] if kept.warning is None else [kept.warning])),
    )


def mended(data: bytes, findings: Sequence[Diagnostic], config: Config, unsafe: bool) -> tuple[bytes, list[Diagnostic]]:
    """Fix what can be fixed in a file with this content; return the new content and what was mended.

    Raises:
        Undecodable: a fix needs a character that the file's encoding lacks. Nothing is changed then.
        OddLayout: the JSON of a notebook cannot be written as it is laid out. Nothing is changed then, either.
    """
    path = findings[0].path
    wanted = {(one.code, one.message, one.unless) for one in findings}
    done: list[Diagnostic] = []
    for _ in range(_ROUNDS):
        fixable = [
            one
            for one in examine(path, data, config).findings
            if one.fix is not None and (unsafe or one.fix.safe) and (one.code, one.message, one.unless) in wanted
        ]
        data, taken = _mend_once(path, data, fixable, config)
        if not taken:
            break
        done += taken
    return data, done


def _mend_once(path: str, data: bytes, findings: list[Diagnostic], config: Config) -> tuple[bytes, list[Diagnostic]]:
    if not findings:
        return data, []
    if path.endswith(".ipynb"):
        notebook = Notebook.parse(data)
        text, taken = mend(path, notebook.text, [notebook.unplace(one) for one in findings], config.rules)
        edits: list[Edit] = [edit for one in taken if one.fix is not None for edit in one.fix.edits]
        return (notebook.edited(edits) if taken else data), taken
    text, taken = mend(path, decode(data), findings, config.rules)
    return text.encode(), taken


def _examine_all(
    files: list[str], config: Config, kept: Cache, jobs: int | None, progress: Progress | None
) -> dict[str, Record]:
    records: dict[str, Record] = {}
    left: list[str] = []
    for path in files:
        try:
            data = read_bytes(path)
        except (OSError, MemoryError) as error:
            records[path] = _unread(path, error)
            continue
        record = kept.get(path, data) if worth_reading(path, data) else Record()
        if record is None:
            left.append(path)
        else:
            records[path] = record
    done = len(records)
    for path, data, values in _work(left, config, jobs):
        records[path] = load(path, values)
        # Some reasons pass: memory is short once.
        if not records[path].notes:
            kept.put(path, data, values)
        done += 1
        if progress is not None:
            progress(done, len(files))
    return records


def _work(files: list[str], config: Config, jobs: int | None) -> Iterator[tuple[str, bytes, list[Any]]]:
    count = jobs if jobs is not None else (os.cpu_count() or 1)
    if count <= 1 or len(files) < _MANY:
        _begin(config)
        try:
            yield from map(_examine_file, files)
        finally:
            gc.enable()
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # A child made by fork starts at once; where threads or the system forbid it, a new interpreter does.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    left = dict.fromkeys(sorted(files, key=_size, reverse=True))
    try:
        with ProcessPoolExecutor(count, context, _begin, (config,)) as pool:
            for done in pool.map(_examine_file, list(left), chunksize=8):
                del left[done[0]]
                yield done
    except BrokenProcessPool:
        # One of them ended its process, as where memory runs out. Each is tried in a process of its own to see which.
        for path in left:
            with ProcessPoolExecutor(1, context, _begin, (config,)) as pool:
                try:
                    yield pool.submit(_examine_file, path).result()
                except BrokenProcessPool:
                    yield path, b"", dump(Record(notes=(Note(path, "the process that read it died"),)))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _unread(path: str, error: OSError | MemoryError) -> Record:
    why = reason(error) if isinstance(error, OSError) else "it does not fit in memory"
    return Record(notes=(Note(path, why),))


_config: Config
_read_since = 0


def _begin(config: Config) -> None:
    global _config
    _config = config
    # The collector would look at every tree again and again while it grows.
    gc.disable()


def _examine_file(path: str) -> tuple[str, bytes, list[Any]]:
    global _read_since
    try:
        data = read_bytes(path)
    except (OSError, MemoryError) as error:
        return path, b"", dump(_unread(path, error))
    values = dump(examine(path, data, _config))
    _read_since += len(data)
    if _read_since > _COLLECT_AFTER:
        _read_since = 0
        gc.collect()
    return path, data, values


def _refuted(
    findings: list[Diagnostic], files: list[str], records: dict[str, Record], config: Config, kept: Cache
) -> set[Diagnostic]:
    """The findings whose question some file answers: one that was checked, or another of the same project."""
    asking = [finding for finding in findings if finding.unless is not None]
    accounts = [told for path in files if (told := records[path].account) is not None]
    refuted = _answered(asking, accounts)
    asking = [one for one in asking if one not in refuted]
    if asking:
        checked = {os.path.abspath(path) for path in files if records[path].account is not None}
        folders = {os.path.dirname(os.path.abspath(path)) for path in files}
        roots = {root for folder in folders if (root := project(folder)) is not None}
        others = dict.fromkeys(os.path.abspath(path) for path in (*files, *discover(sorted(roots), config)))
        owners = {one.unless.owner.encode() for one in asking if one.unless is not None}
        accounts += _accounts([path for path in others if path not in checked], owners, kept)
        refuted |= _answered(asking, accounts)
    return refuted


def _answered(asking: list[Diagnostic], accounts: list[Account]) -> set[Diagnostic]:
    answers = Answers(accounts)
    return {one for one in asking if one.unless is not None and answers.to(one.unless)}


def _accounts(files: list[str], owners: set[bytes], kept: Cache) -> Iterator[Account]:
    """What files that were not parsed yet, and name one of the classes, say of them."""
    for path in files:
        try:
            data = read_bytes(path)
        except (OSError, MemoryError):
            continue
        if not _names_any(owners, data):
            continue
        record = kept.get(path, data, "account")
        if record is None:
            record = _account_only(path, data)
            kept.put(path, data, dump(record), "account")
        if record.account is not None:
            yield record.account


def _names_any(owners: set[bytes], data: bytes) -> bool:
    """Whether a file names one of the classes: by a search for each, or, where there are many, by all of its words."""
    if len(owners) <= _FEW:
        return any(owner in data for owner in owners)
    return not owners.isdisjoint(re.findall(rb"\w+", data))


def _account_only(path: str, data: bytes) -> Record:
    try:
        text = Notebook.parse(data).text if path.endswith(".ipynb") else decode(data)
        source = read(path, text)
        record = Record(account=account(source))
        source.forget()
        return record
    except Exception:  # it was not asked to be checked: what it could have said stays unsaid
        return Record()


def _wanted(findings: Iterable[Diagnostic], config: Config) -> tuple[Diagnostic, ...]:
    """Those that are grave enough to be shown."""
    return tuple(finding for finding in findings if finding.severity.rank <= config.severity.rank)


def _texts(findings: Iterable[Diagnostic], contents: Mapping[str, bytes]) -> dict[tuple[str, int | None], Text]:
    texts: dict[tuple[str, int | None], Text] = {}
    for path, cells in _cells_by_path(findings).items():
        text_of: Callable[[int | None], Text] = _no_text
        with suppress(OSError, ValueError, LookupError, TypeError):  # it may have become anything since
            text_of = _text_of(path, contents[path] if path in contents else read_bytes(path))
        for cell in cells:
            texts[path, cell] = _no_text(cell)
            with suppress(ValueError, LookupError, TypeError):
                texts[path, cell] = text_of(cell)
    return texts


def _cells_by_path(findings: Iterable[Diagnostic]) -> dict[str, dict[int | None, None]]:
    """The cells with findings, None for a file that is no notebook, each once and in order."""
    cells: dict[str, dict[int | None, None]] = {}
    for finding in findings:
        cells.setdefault(finding.path, {})[finding.cell] = None
    return cells


def _text_of(path: str, data: bytes) -> Callable[[int | None], Text]:
    """Read a file once, and return what gives the text of one of its cells."""
    if path.endswith(".ipynb"):
        notebook = Notebook.parse(data)
        return lambda cell: _no_text(cell) if cell is None else notebook.cell_text(cell)
    text = Text.decode(data)
    return lambda _: text


def _no_text(_: int | None) -> Text:
    return Text(b"")
