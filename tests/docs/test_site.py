"""The documentation site has every page and every public name, its links work, and its pages fetch nothing."""

import functools
import importlib
import inspect
import re
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
sys.path.append(str(ROOT / "docs" / "site"))

import api_pages  # noqa: E402
import links  # noqa: E402

# Without those that import other libraries.
MODULES = [module for module in api_pages.MODULES if "callbacks" not in module]
built = pytest.mark.skipif(not SITE.exists(), reason="make docs has not built the site")


def pages_of(nav):
    """The pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(entry)]


def test_the_index_lists_every_page_once():
    """Every page of docs/ is in the navigation, which is that of index.md."""
    pages = pages_of(links.navigation((ROOT / "docs" / "index.md").read_text()))

    generated = {*api_pages.pages(), *links.ROOT_PAGES.values()}
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages) == sorted(written | generated)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    """What a public module exports has a docstring, and its place in the reference."""
    loaded = importlib.import_module(module)
    page = api_pages.pages()[f"api/{module}.md"]

    for name in api_pages.public_names(module):
        thing = getattr(loaded, name)

        assert f"::: {module}.{name}\n" in page or f"## {module}.{name}\n" in page
        assert not callable(thing) or inspect.getdoc(thing), name
        assert not inspect.ismodule(thing) or f"{module}.{name}" in api_pages.MODULES
    # Names that a module makes at run time are not forgotten either.
    assert set(getattr(loaded, "__all__", ())) <= api_pages.public_names(module).keys()


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[x](randomness.md#seeds)", "[x](../randomness.md#seeds)"),
        ("[x](../CHANGELOG.md)", "[x](../changelog.md)"),
        ("[x](../src/dropkit/nn)", "[x](REPOSITORY/tree/main/src/dropkit/nn)"),
        ("[x](../setup.py#L3)", "[x](REPOSITORY/blob/main/setup.py#L3)"),
        ("[x](findings.json)", "[x](REPOSITORY/blob/main/docs/findings.json)"),
        ("[x](https://arxiv.org) [y](#here)", "[x](https://arxiv.org) [y](#here)"),
    ],
)
def test_links_lead_to_pages_of_the_site_or_to_the_source(link, expected):
    """What has a page is linked as a page, everything else of the repository where its source is."""
    linked = links.linked(link, "decisions/page.md", ROOT / "docs" / "page.md")

    assert linked == expected.replace("REPOSITORY", links.repository())


@built
@pytest.mark.long
def test_the_built_reference_knows_every_public_name():
    """The inventory of the site, to which other sites link, has each name, so that no directive was lost."""
    import zlib

    text = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split()[0] for line in zlib.decompress(text).decode().splitlines()}

    wanted = {f"{module}.{name}" for module in api_pages.MODULES for name in api_pages.public_names(module)}
    assert len(wanted) > 100
    assert wanted <= known


@built
@pytest.mark.long
def test_no_page_names_a_script_style_or_picture_of_another_host():
    """Whatever a page loads lies beside it."""
    for page in SITE.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)", html)
        loaded += re.findall(r"<link\b(?![^>]*rel=\"?canonical)[^>]*\bhref=\"?([^\s\">]+)", html)

        assert loaded
        assert not [url for url in loaded if re.match(r"(\w+:)?//", url)], page


@pytest.fixture(scope="module")
def address():
    """The site, as a server on this machine serves it."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """A server that prints no requests."""

    def log_message(self, *arguments):
        pass


@built
@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_pages_open_in_a_browser_and_fetch_nothing(address):
    """Pages of each kind show a heading, print no message, load all they name, and ask no other host; search finds."""
    from playwright.sync_api import sync_playwright

    messages, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        screen = browser.new_page()
        screen.on("console", lambda message: messages.append(message.text))
        screen.on("pageerror", lambda error: messages.append(str(error)))
        screen.on("request", lambda request: requests.append(request.url))
        for page in ("", "api/dropkit.nn/", "layers/", "rules/DRP101/", "faq/", "tutorials/digits/", "changelog/"):
            assert screen.goto(f"{address}/{page}").ok, page
            screen.wait_for_load_state("networkidle")

            assert screen.locator("h1").count() == 1, page
            broken = "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
            assert screen.evaluate(broken) == [], page
        screen.locator("input[name=query]").press_sequentially("DropPath", delay=50)
        screen.locator(".md-search-result__link[href*=DropPath]").first.wait_for()
        browser.close()

    assert messages == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
