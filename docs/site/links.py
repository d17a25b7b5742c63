"""The navigation of the documentation site, and its links to what is not in this folder."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import api_pages

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
# Pages of the root of the repository that are pages of the site, too.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def repository() -> str:
    """The address of the source, of which pyproject.toml has the only copy."""
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]


def navigation(index: str) -> list[Any]:
    """Sections of pages in the order of index.md. A README.md stands for its folder."""
    nav: list[Any] = [{"Home": "index.md"}]
    for section in index.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        targets = dict.fromkeys(match[2] for match in LINK.finditer(text) if "//" not in match[2])
        nav.append({title: [_entry(page) for target in targets if (page := _page(DOCS / target))]})
    return [*nav, {"API": ["api/README.md", *(f"api/{module}.md" for module in api_pages.MODULES)]}]


def _entry(page: str) -> Any:
    if not page.endswith("/README.md"):
        return page
    folder = DOCS / page.removesuffix("README.md")
    title = (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    others = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    return {title: [page, *(page.replace("README.md", other) for other in others)]}


def linked(markdown: str, page: str, file: Path) -> str:
    """The links of a file as those of a page of the site."""
    folder = Path(page).parent

    def replace(match: re.Match[str]) -> str:
        opening, target, rest = match.groups()
        if re.match(r"\w+:", target):
            return match[0]
        path = Path(os.path.normpath(file.parent / target))
        if inside := _page(path):
            return f"{opening}{os.path.relpath(inside, folder)}{rest}"
        kind = "tree" if path.is_dir() else "blob"
        return f"{opening}{repository()}/{kind}/main/{path.relative_to(ROOT)}{rest}"

    return LINK.sub(replace, markdown)


def _page(path: Path) -> str:
    """The page or file of the site for a file of the repository; empty if it has none."""
    path = Path(os.path.normpath(path))
    if path.is_relative_to(DOCS) and path.suffix not in (".json", ".py"):
        return path.relative_to(DOCS).as_posix()
    return ROOT_PAGES.get(path.name, "") if path.parent == ROOT else ""
