"""The cache: where it lies, that it changes no result, and that damaged entries are rejected."""

import json
import os

import pytest
from helpers.lint import BAD, GOOD, SECRET, disk_is_full, dropkit, link, outside

from dropkit.diagnostics import CrossFileCondition, Diagnostic, Edit, Fix, Severity, Span
from dropkit.lint.engine.cache import dump, load
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.project import check_paths
from dropkit.lint.engine.project_index import ClassSummary
from dropkit.lint.engine.result import FileResult, Note
from dropkit.lint.formats import FORMATS


def test_the_cache_gives_the_same_and_follows_changes(project):
    cache = project / "cache"

    def check():
        outcome = check_paths([str(project)], Config(root=project), cache=cache)
        return [(f.code, f.span, f.fix) for f in outcome.findings]

    cold = check()
    assert check() == cold != []
    kept = next(cache.glob("*.json"))
    assert "DRP101" in kept.read_text()
    (project / "net.py").write_text(GOOD)
    assert check() == []
    (project / "net.py").write_text(BAD)
    kept.write_text("{not json")
    assert check() == cold


def test_results_are_cached_outside_of_the_project_by_default(project, tmp_path):
    """They are in the user's cache folder, one folder for each project: a project cannot bring its own results."""
    before = sorted(project.rglob("*"))

    assert dropkit()[0] == 1
    (kept,) = (tmp_path / "cache").rglob("*.json")
    assert dropkit(project.parent / "elsewhere")[0] == 1

    assert sorted(project.rglob("*")) == before
    assert "DRP101" in kept.read_text()
    assert len(list((tmp_path / "cache/dropkit").iterdir())) == 2


def test_a_project_cannot_choose_the_cache_folder(project):
    """It could otherwise make the linter write any of the user's files, or bring its own results."""
    with pytest.raises(BadConfig, match="cache-dir is not a setting"):
        Config.parse({"cache-dir": "/"}, project)


def test_a_relative_cache_home_counts_as_none(project, monkeypatch, tmp_path):
    """As the XDG specification has it: it would lie in whatever folder is checked."""
    monkeypatch.setenv("XDG_CACHE_HOME", "kept")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    dropkit()

    assert not (project / "kept").exists()
    assert list((tmp_path / "home/.cache/dropkit").rglob("*.json"))


LINKED_CACHES = {"kept": ("kept", "../elsewhere"), "above/kept": ("above", "../elsewhere")}


@pytest.mark.parametrize("cache", LINKED_CACHES)
def test_a_cache_folder_behind_a_link_is_rejected(project, cache):
    """The check runs without a cache, and warns once."""
    link(project / LINKED_CACHES[cache][0], LINKED_CACHES[cache][1])
    before = outside(project)

    code, out, err = dropkit("--cache-dir", cache)

    assert (code, outside(project)) == (1, before)
    assert "net.py:7:16: DRP101" in out
    assert err == f"warning: results are neither kept nor reused: {cache} is, or lies behind, a symbolic link\n"


def test_a_link_in_the_cache_folder_is_not_written_through(project):
    """.gitignore is created where nothing has its name."""
    link(project / "kept/.gitignore", "../../victim")

    assert dropkit("--cache-dir", "kept")[0] == 1

    assert (project.parent / "victim").read_text() == SECRET
    assert list((project / "kept").glob("*.json"))


def test_a_file_of_the_cache_that_is_a_link_is_neither_read_nor_written(project):
    """Somebody else may have put results there."""
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    kept.write_text(
        json.dumps({key: [digest, [[], [], None]] for key, (digest, _) in json.loads(kept.read_text()).items()})
    )
    assert dropkit("--cache-dir", "kept")[0] == 0
    kept.rename(project.parent / "forged.json")
    kept.symlink_to("../../forged.json")

    assert dropkit("--cache-dir", "kept")[0] == 1
    assert "DRP101" not in (project.parent / "forged.json").read_text()


def test_a_cache_that_cannot_be_written_is_a_warning(project, monkeypatch):
    monkeypatch.setattr(os, "fsync", disk_is_full)

    code, out, err = dropkit()

    assert (code, "DRP101" in out) == (1, True)
    assert err.startswith("warning: results are not kept in ")
    assert err.endswith(": No space left on device\n")


def test_with_a_relative_home_nothing_is_cached(project, monkeypatch):
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("XDG_CACHE_HOME")

    assert dropkit()[0] == 1
    assert not (project / "home").exists()


def mutations(value, junk):
    """`value` with each of its parts replaced by each of `junk`."""
    yield from junk
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for mutation in mutations(part, junk):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = mutation
            yield copy


JUNK = [None, True, -1, 0.5, 1e999, 1 << 70, "x", "\ud800", [], [[]], {}, {"a": []}, {"a": ["b"]}]


def test_only_entries_that_could_have_been_written_are_loaded():
    """Whatever replaces a part of an entry, the entry is rejected, or loads as it is."""
    finding = Diagnostic(
        "DRP101",
        "m",
        Severity.ERROR,
        "a.py",
        Span(1, 1, 1, 2),
        Fix("t", (Edit(0, 1, "x"),)),
        CrossFileCondition("A", "b", "c", ("B",)),
    )
    account = ClassSummary({"A": ["B"]}, {"A": ["b"]}, {"A": ["p"]}, ["A.b"], ["x.c"], ["d"], ["B"])
    whole = json.loads(json.dumps(dump(FileResult((finding,), (Note("a.py", "m", 1, 2),), account))))
    assert dump(load("a.py", whole)) == whole

    refused = 0
    for mutation in mutations(whole, JUNK):
        try:
            assert dump(load("a.py", mutation)) == mutation
        except ValueError:
            refused += 1
    assert refused > 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"x"', "\udcff", "[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "1e999", "NaN"],
    ids=lambda text: text[:5],
)
def test_a_damaged_cache_is_no_cache(project, text):
    """The file as a whole, and each of its entries."""
    expected = dropkit("--no-cache", "-f", "json")
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    keys = json.loads(kept.read_text())

    for content in (text, *(json.dumps(dict.fromkeys(keys, junk)) for junk in (text, [text, text], [[text]] * 2))):
        kept.write_bytes(content.encode(errors="surrogateescape"))

        assert dropkit("--cache-dir", "kept", "-f", "json") == expected


@pytest.mark.parametrize("name", FORMATS)
def test_a_cached_span_beyond_the_file_is_shown_without_source(project, name):
    """A record that could have been written, of another file."""
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    forged = kept.read_text().replace("[7,16,7,33]", "[70000,16,3,1]")
    assert forged != kept.read_text()
    kept.write_text(forged)

    code, out, _ = dropkit("--cache-dir", "kept", "-f", name)

    assert code == 1
    assert "70000" in out
