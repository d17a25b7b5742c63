"""What the README claims was measured."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table_rows(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if re.match(r"\| .*\d", line)]


def test_every_number_of_the_readme_comes_from_the_benchmarks():
    """Each row of its table stands in the page that `make bench` wrote, to the letter."""
    claimed = table_rows(ROOT / "README.md")

    assert claimed
    assert set(claimed) <= set(table_rows(ROOT / "docs" / "benchmarks.md"))


def test_every_link_leads_somewhere():
    """No page points at a file that is not there."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
