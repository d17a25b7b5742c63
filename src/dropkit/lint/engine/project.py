"""Check many files, and decide findings that depend on other files of the project.

Files that no rule could match are not parsed. Results are cached for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from dropkit import files
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.cache import Cache, dump, load
from dropkit.lint.engine.check_file import check_bytes, must_be_parsed, open_notebook
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.discovery import search
from dropkit.lint.engine.fact_search import FactSearch
from dropkit.lint.engine.project_index import ClassSummary, ProjectIndex, summarize_with_facts
from dropkit.lint.engine.result import CheckResult, FileResult
from dropkit.lint.engine.texts import texts_of
from dropkit.lint.engine.workers import check_each, unread_result
from dropkit.lint.semantic.dropout_names import may_have_dropout
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text

# A fact of one file may depend on another's, and that one's on a third.
_MAX_HOPS = 5

Progress = Callable[[int, int], None]


def check_source(path: str, data: bytes, config: Config) -> CheckResult:
    """Check one file with this content: an editor's buffer, standard input.

    Findings that other files may refute are reported, those that other files must confirm are not.
    """
    result = check_bytes(path, data, config)
    findings = _severe_enough([finding for finding in result.findings if finding.is_likely], config)
    return CheckResult(
        findings,
        result.notes,
        int(result.was_read),
        texts=texts_of(findings, {path: data}),
        without_dropout=int(result.was_read and not may_have_dropout(data)),
    )


def check_paths(
    paths: Sequence[str],
    config: Config,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Check files and folders. Files that cannot be read are noted, and the others are checked.

    Args:
        paths: files, which are checked whatever their name, and folders, which are searched.
        config: which rules run, and where.
        cache: folder of the cache; None uses none.
        jobs: number of processes; None uses all processors, or one for few files.
        progress: called with the number of files that are done and of all files.

    Raises:
        FileNotFoundError: none of the paths exists.
    """
    searched = search(paths, config)
    stored = Cache(cache, repr((config, [rule.code for rule in config.rules])))
    results, without_dropout = _check_all(searched.files, config, stored, jobs, progress)
    findings = [finding for path in searched.files for finding in results[path].findings]
    refuted = _refuted(findings, results, config, stored)
    stored.save()
    findings = _severe_enough([finding for finding in findings if finding not in refuted], config)
    return CheckResult(
        findings,
        (*searched.notes, *(note for path in searched.files for note in results[path].notes)),
        sum(result.was_read for result in results.values()),
        texts=texts_of(findings, {}),
        warnings=(*searched.warnings, *([] if stored.warning is None else [stored.warning])),
        without_dropout=without_dropout,
    )


def _severe_enough(findings: Iterable[Diagnostic], config: Config) -> tuple[Diagnostic, ...]:
    return tuple(finding for finding in findings if finding.severity.rank <= config.severity.rank)


def _check_all(
    paths: list[str], config: Config, stored: Cache, jobs: int | None, progress: Progress | None
) -> tuple[dict[str, FileResult], int]:
    """The results of all files, from the cache where it has them, and how many mention no dropout."""
    results: dict[str, FileResult] = {}
    without_dropout: list[str] = []
    pending: list[str] = []
    for path in paths:
        try:
            data = files.read(path)
        except (OSError, MemoryError) as error:
            results[path] = unread_result(path, error)
            continue
        if not may_have_dropout(data):
            without_dropout.append(path)
        result = stored.get(path, data) if must_be_parsed(path, data) else FileResult()
        if result is None:
            pending.append(path)
        else:
            results[path] = result
    for path, data, dumped in check_each(pending, config, jobs):
        results[path] = load(path, dumped)
        # A failure may be temporary, such as too little memory.
        if not results[path].notes:
            stored.put(path, data, dumped)
        if progress is not None:
            progress(len(results), len(paths))
    return results, sum(results[path].was_read for path in without_dropout)


def _refuted(
    findings: list[Diagnostic], results: dict[str, FileResult], config: Config, stored: Cache
) -> set[Diagnostic]:
    """The findings that another file refutes, or none confirms: one that was checked, or one of the same project."""
    open_findings = [finding for finding in findings if finding.is_open]
    summaries = [result.classes for result in results.values() if result.classes is not None]
    index = ProjectIndex(summaries, is_complete=False)
    undecided = [finding for finding in open_findings if not _is_refuted(finding, index)]
    if undecided:
        absolute = {os.path.abspath(path): result for path, result in results.items()}
        roots = {root for path in absolute if (root := files.project_root(os.path.dirname(path))) is not None}
        others = dict.fromkeys([*absolute, *map(os.path.abspath, search(sorted(roots), config).files)])
        parsed = {path for path, result in absolute.items() if result.classes is not None}
        conditions = [finding.unless for finding in undecided if finding.unless is not None]
        owners = {name for condition in conditions for name in (condition.owner, *condition.bases)}
        search_more = partial(_search, parsed, owners, stored)
        # What would refute a finding takes longer to find out: first whether what it needs holds at all.
        needs = {fact for finding in undecided if finding.given is not None for fact in finding.given.needs}
        index, unseen = search_more(list(others), summaries, needs)
        confirmed = [finding for finding in undecided if finding.given is not None and _is_confirmed(finding, index)]
        refuting = {fact for finding in confirmed if finding.given is not None for fact in finding.given.refuted_by}
        if refuting:
            index, _ = search_more(unseen, summaries, refuting)
    return {finding for finding in open_findings if _is_refuted(finding, index) or not _is_confirmed(finding, index)}


def _search(
    parsed: set[str],
    owners: set[str],
    stored: Cache,
    unseen: list[str],
    summaries: list[ClassSummary],
    facts: set[str],
) -> tuple[ProjectIndex, list[str]]:
    """An index with what files say of classes and facts, and of those on which these depend; adds `summaries`.

    Also the files that were not looked at.
    """
    index = ProjectIndex(summaries)
    aliases = _aliases(facts, index)
    for _ in range(_MAX_HOPS):
        found = dict(_summaries(unseen, parsed, FactSearch(owners, facts | aliases), stored))
        summaries += [summary for summary in found.values() if summary is not None]
        unseen = [path for path in unseen if path not in found]
        index = ProjectIndex(summaries)
        known = facts | aliases
        # What a class is depends on its bases, and what a function does on those that it calls.
        facts = facts | {body for each in summaries for head, *rest in each.facts if head in known for body in rest}
        aliases = _aliases(facts, index)
        if facts | aliases == known:
            break
    return index, unseen


def _is_refuted(finding: Diagnostic, index: ProjectIndex) -> bool:
    return (finding.unless is not None and index.satisfies(finding.unless)) or (
        finding.given is not None and any(map(index.holds, finding.given.refuted_by))
    )


def _is_confirmed(finding: Diagnostic, index: ProjectIndex) -> bool:
    return finding.given is None or all(map(index.holds, finding.given.needs))


def _aliases(facts: set[str], index: ProjectIndex) -> set[str]:
    """The other names of what facts are about."""
    return {f"{kind}:{alias}" for kind, name in map(_split, facts) for alias in index.aliases(name)}


def _split(fact: str) -> tuple[str, str]:
    kind, _, name = fact.partition(":")
    return kind, name


def _summaries(
    paths: list[str], parsed: set[str], wanted: FactSearch, stored: Cache
) -> Iterator[tuple[str, ClassSummary | None]]:
    """The paths and summaries of files that may say something of classes, if not parsed yet, and of facts."""
    for path in paths:
        if path in parsed and not wanted.facts:
            continue
        try:
            data = files.read(path)
        except (OSError, MemoryError):
            continue
        if not (path not in parsed and wanted.may_name(data)) and not wanted.may_state(path, data):
            continue
        result = stored.get(path, data, "classes")
        if result is None:
            result = _summarized(path, data)
            stored.put(path, data, dump(result), "classes")
        yield path, result.classes


def _summarized(path: str, data: bytes) -> FileResult:
    try:
        notebook = open_notebook(path, data)
        source = read(path, Text.decode(data) if notebook is None else notebook.text)
        result = FileResult(classes=summarize_with_facts(source))
        source.break_cycles()
        return result
    except Exception:  # the user did not ask for this file: it is left out in silence
        return FileResult()
