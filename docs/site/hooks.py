"""What the documentation site adds to the pages of this folder: navigation, generated pages, links and formulas."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import api_pages
import notebooks
from latex2mathml.converter import convert
from links import DOCS, ROOT, ROOT_PAGES, linked, navigation, repository
from mkdocs.structure.files import File

# A name of dropkit, unless it stands in a heading or a link.
NAME = re.compile(r"<(h\d|a)\b.*?</\1>|<code>(dropkit(?:\.\w+)+)((?:\([^<]*\))?)</code>", re.DOTALL)


def on_config(config: Any) -> Any:
    """Take the navigation from index.md, and the address of the source from pyproject.toml."""
    # repo_url would have the browser ask the host of the source for numbers of stars.
    config.edit_uri_template = f"{repository()}/blob/main/docs/{{path}}"
    config.extra["social"] = [{"icon": "fontawesome/brands/git-alt", "link": repository(), "name": "Source"}]
    config.nav = navigation((DOCS / "index.md").read_text(encoding="utf-8"))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the API reference, the pages of the repository's root, and the notebooks."""
    generated: dict[str, str] = api_pages.pages()
    for source, page in ROOT_PAGES.items():
        generated[page] = linked((ROOT / source).read_text(encoding="utf-8"), page, ROOT / source)
    for file in sorted((DOCS / "tutorials").glob("[!R]*.md")):
        notebook = notebooks.execute(file.read_text(encoding="utf-8"))
        path = f"tutorials/{file.stem}.ipynb"
        generated[path] = notebooks.to_file(notebook)
        title, _, text = notebooks.markdown(notebook).partition("\n")
        files.remove(files.get_file_from_path(path.replace(".ipynb", ".md")))
        generated[path.replace(".ipynb", ".md")] = f"{title}\n\n[This page as a notebook]({file.stem}.ipynb)\n{text}"
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link to the source on its host what is not in this folder; mark the prompts of examples."""
    markdown = re.sub(r"^```python\n(?=>>>)", "```pycon\n", markdown, flags=re.MULTILINE)
    return linked(markdown, page.file.src_uri, DOCS / page.file.src_uri)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Formulas as MathML, which needs no script; names of dropkit as links, which must lead somewhere."""
    html = re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', _formula, html, flags=re.DOTALL)
    if page.file.src_uri.startswith("decisions/"):  # they speak of private names, too
        return html
    return NAME.sub(_link_to_name, html)


def _link_to_name(match: re.Match[str]) -> str:
    around, name, arguments = match.groups()
    return match[0] if around else f'<autoref identifier="{name}"><code>{name}{arguments}</code></autoref>'


def _formula(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    return convert(unescape(match[2]), display=display)
