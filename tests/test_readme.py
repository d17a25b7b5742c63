"""The README claims only what was measured, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from dropkit.rules import RULES

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def cells(page: Path) -> list[list[str]]:
    """The cells of each row with a number, of all tables of a page."""
    lines = page.read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| .*\d", line)]


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def test_every_number_of_the_readme_comes_from_the_benchmarks():
    """Both times stand in one row of the page that `make bench` wrote, and the ratio is theirs."""
    measured = {(theirs, ours) for _, ours, theirs, *_ in cells(ROOT / "docs" / "benchmarks.md")}
    claimed = [row for row in cells(ROOT / "README.md") if re.match(r"[\d.]+ (us|ms|s|B)$", row[1])]

    assert len(claimed) == 5
    for _, theirs, ours, ratio in claimed:
        assert (theirs, ours) in measured
        # Times are rounded to three digits, so their quotient is right to a relative 2 * 0.005.
        assert not ratio or float(ratio) == pytest.approx(seconds(theirs) / seconds(ours), rel=0.01)


def test_the_readme_counts_the_rules_right():
    """So many rules of the linter, so many with a fix, so many with a safe one."""
    source = [rule for rule in RULES if rule.check_source is not None]
    fixes = [rule for rule in source if rule.fix]
    safe = [rule for rule in fixes if rule.fix_is_safe]

    text = " ".join((ROOT / "README.md").read_text().split())

    assert f"[{len(source)} rules]" in text
    assert f"{len(fixes)} offer a fix, {len(safe)} of them a safe one" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    """No page points at a file that is not there."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_of_the_map_exists():
    """The architecture page names files of the package, of csrc and of tests that exist, and hold what it says."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+(?:\.py|\.h|/))(?:: (\w+))?`", page)

    assert len(named) > 30
    for path, name in named:
        files = [folder / path for folder in (ROOT / "src" / "dropkit", ROOT) if (folder / path).exists()]
        assert files, path
        assert not name or re.search(rf"\b(?:def|class) {name}\b", files[0].read_text()), (path, name)


def test_the_repository_is_that_of_pyproject():
    """Files that a form or a citation needs as they are repeat its address."""
    source = re.findall(r'^Source = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    files = ["pyproject.toml", "SECURITY.md", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml"]

    for file in files:
        found = re.findall(r"https://github\.com/[\w-]+/dropkit", (ROOT / file).read_text())
        assert set(found) == {source}, file


def test_the_citation_names_the_version_of_the_package():
    """CITATION.cff and pyproject.toml agree."""
    version, cited = (
        re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
        for file, pattern in (("pyproject.toml", r'^version = "(.+)"$'), ("CITATION.cff", r"^version: (.+)$"))
    )

    assert version == cited
